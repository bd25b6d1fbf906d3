"""The lattice of a packet's deformation: quantised, and coded by what its neighbours are.

    q = value / step, rounded, but 0 within a dead zone: 10 x 10 x (x, y) integers of -8..8

They are coded row by row, x before y. Each has a static table of its step and of its context: how large its
neighbours are that came before (`_Neighbours`), for what deforms one place deforms those around it.
"""

import itertools
from collections.abc import Iterable, Iterator

import constriction
import numpy as np
from numpy.typing import NDArray

from avcall.bitstream.static_model import static_model
from avcall.types import LATTICE_POINTS, F32Array

MAX_LEVEL = 8
LEVELS = 2 * MAX_LEVEL + 1
CONTEXTS = 8
DEAD_ZONE = 0.65  # of a step: with 0.5 the picture is no better, for a sixth more bits
MAX_TOLD = 80  # numbers that are not 0: a hand, or a head far from its keyframe, is mended by no lattice

Levels = NDArray[np.int32]  # (10, 10, 2)


def quantise_lattice(lattices: Iterable[F32Array], step: float) -> Levels:
    """The integers of the mean of a packet's lattices, each (10, 10, 2) in half widths.

    Of more than `MAX_TOLD` that are not 0, the largest stay.
    """
    scaled = np.mean(list(lattices), 0) / step
    size = np.abs(scaled)
    least = np.partition(size, -MAX_TOLD - 1, None)[-MAX_TOLD - 1]  # the largest that goes, if any has to
    kept = size > max(DEAD_ZONE, float(least))
    levels = np.sign(scaled) * np.where(kept, np.floor(size + 1 - DEAD_ZONE), 0)
    return np.asarray(np.clip(levels, -MAX_LEVEL, MAX_LEVEL), np.int32)


def contexts(levels: Levels) -> Iterator[tuple[int, int]]:
    """The context and the level of each number, in the order of coding."""
    coder = _Neighbours()
    for row, column, axis in _ORDER:
        level = int(levels[row, column, axis])
        yield coder.context(row, column, axis), level
        coder.put(row, column, axis, level)


class LatticeCoder:
    """Codes lattices with tables `frequencies` (steps, contexts, levels) uint16, whose rows sum to 65536.

    What lacks goes to the largest.
    """

    def __init__(self, frequencies: NDArray[np.uint16]) -> None:
        self._models = [[static_model(row) for row in rows] for rows in frequencies]

    def encode(self, encoder: "constriction.stream.queue.RangeEncoder", levels: Levels, step: int) -> None:
        """Append a lattice."""
        models = self._models[step]
        for context, level in contexts(levels):
            encoder.encode(level + MAX_LEVEL, models[context])

    def decode(self, decoder: "constriction.stream.queue.RangeDecoder", step: int) -> Levels:
        """The next lattice. Raises AssertionError, as constriction does, for data that no encoder made."""
        models, known = self._models[step], _Neighbours()
        levels = np.zeros((LATTICE_POINTS, LATTICE_POINTS, 2), np.int32)
        for row, column, axis in _ORDER:
            level = int(decoder.decode(models[known.context(row, column, axis)])) - MAX_LEVEL
            known.put(row, column, axis, level)
            levels[row, column, axis] = level
        return levels


_ORDER = list(itertools.product(range(LATTICE_POINTS), range(LATTICE_POINTS), range(2)))


class _Neighbours:
    """The magnitudes that were coded so far, within an edge of zeros."""

    def __init__(self) -> None:
        self._known = [[[0, 0] for _ in range(LATTICE_POINTS + 2)] for _ in range(LATTICE_POINTS + 1)]

    def context(self, row: int, column: int, axis: int) -> int:
        """0..7: the left and the upper neighbour count most, and of the same point x when y is coded."""
        above, here = self._known[row], self._known[row + 1]
        left, up, corner = here[column], above[column + 1], above[column + 2]
        size = 2 * (left[axis] + up[axis]) + corner[axis] + left[1 - axis] + up[1 - axis]
        size += 2 * here[column + 1][0] if axis else 0
        return min(size // 2, CONTEXTS - 1)

    def put(self, row: int, column: int, axis: int, level: int) -> None:
        self._known[row + 1][column + 1][axis] = abs(level)
