"""Motion between two frames that came."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from avcall.types import F32Array, Keypoints

MIN_DETERMINANT = 1e-3  # in magnitude, as for jacobians in the bitstream
EASED_MS = 120  # between a packet's first frame and the last one of the packet before


def interpolate_motion(earlier: Keypoints, later: Keypoints, share: float) -> Keypoints:
    """The keypoints at `share` 0..1 of the way from `earlier` to `later`, along straight lines.

    A jacobian that would be singular on the way (its ends mirror each other) is that of the nearer frame.
    """
    values: F32Array = (earlier.values + share * (later.values - earlier.values)).astype(np.float32)
    mixed: F32Array = (earlier.jacobians + share * (later.jacobians - earlier.jacobians)).astype(np.float32)
    nearer = earlier.jacobians if share < 0.5 else later.jacobians
    sound = np.abs(np.linalg.det(mixed)) >= MIN_DETERMINANT
    lattice = _between(earlier.lattice, later.lattice, share)
    return Keypoints(values, np.where(sound[:, None, None], mixed, nearer), lattice)


def _between(earlier: F32Array | None, later: F32Array | None, share: float) -> F32Array | None:
    """As for keypoints; where one end has no lattice, the other's fades."""
    if earlier is None and later is None:
        return None
    first, last = (np.float32(0) if end is None else end for end in (earlier, later))
    return np.asarray(first + share * (last - first), np.float32)


class LatticeEasing:
    """A packet tells one lattice: over its frames it changes evenly from that of the packet before."""

    def __init__(self) -> None:
        self._last: tuple[int, int, F32Array] | None = None  # keyframe, pts of the last frame, lattice

    def ease(self, frames: list[Keypoints], times_ms: Sequence[int], keyframe_index: int) -> list[Keypoints]:
        """The frames of a packet, at `times_ms`; as they are where nothing came right before them."""
        lattice, before = frames[-1].lattice, self._last
        self._last = None if lattice is None else (keyframe_index, times_ms[-1], lattice)
        if lattice is None or before is None or before[0] != keyframe_index:
            return frames
        if not 0 < times_ms[0] - before[1] <= EASED_MS:
            return frames
        shares = [(place + 1) / len(frames) for place in range(len(frames))]
        return [
            replace(frame, lattice=_between(before[2], lattice, share))
            for frame, share in zip(frames, shares, strict=True)
        ]
