"""Coded motion: the keypoints of the frames of one packet, transformed, quantised and range coded together.

A packet decodes by itself, given the keypoints of its keyframe:

    x   = 60 numbers of a frame (20 values, then 40 jacobian entries times `JACOBIAN_WEIGHT`)
    c   with c @ basis = x - x of the keyframe       a trained transform, see below
    q   = round(c / step)                            60 integers
    first frame of the packet: q itself              every later one: q minus the q before

Where the packet says so, the lattice of a deformation comes first (`lattice_coded`), one for all its frames.

Prediction happens among integers, so nothing drifts and a lost packet costs that packet only. Each integer
is split into a high part, coded with a static table of integer frequencies, and `shift` low bits coded flat.
The basis is that of a Karhunen-Loeve transform in a metric in which an error is what it does to the picture.
Tables and basis are trained (`MotionTables`) and belong to the weights: both ends must hold the same.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import constriction
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from avcall.bitstream import lattice_coded
from avcall.bitstream.lattice_coded import LatticeCoder, Levels
from avcall.bitstream.motion import KEYPOINT_NUMBERS, MAX_DEFORMATION, keypoints_from
from avcall.bitstream.static_model import FREQUENCY_SUM, static_model
from avcall.errors import MotionError, WeightsError
from avcall.types import NUM_KEYPOINTS, F32Array, Keypoints

NUMBERS = KEYPOINT_NUMBERS
VALUES = NUM_KEYPOINTS * 2
JACOBIAN_WEIGHT = (
    0.1  # a keypoint moves the picture around it up to about 0.1 away, so that far a jacobian acts
)
STEPS = 8  # quantiser steps that a packet can choose from
CONTEXTS = 2  # first frame of a packet, later frame
MAX_HIGH = 15  # a high part beyond this is escaped
SYMBOLS = 2 * MAX_HIGH + 2  # -15..15 and the escape
ESCAPE_BITS = 16
MAX_PAYLOAD_BYTES = 600
HOLD = (
    0.6  # of a step: a later frame keeps its integer while it strays less than this, which calms the picture
)
HASH_BYTES = 8
MAX_CONDITION = 1e6  # of the basis: float32 inverts it well

IntArray = NDArray[np.int32]
_uniform = constriction.stream.model.Uniform
SCALES = np.concatenate([np.ones(VALUES), np.full(NUMBERS - VALUES, JACOBIAN_WEIGHT)]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class MotionTables:
    """Trained constants of the codec.

    `basis` (60, 60) float32 can be inverted, its rows are components by falling variance; `steps` (8,)
    float32, rising; `classes` (8, 2, 60) uint8 names for each step, context and component a row of `shifts`
    (C,) uint8 and `frequencies` (C, 32) uint16, whose rows sum to 65536 (what lacks goes to the largest).
    `lattice_steps` (8,) float32 are those of a lattice beside each step, in half widths, and
    `lattice_frequencies` (8, 8, 17) uint16 are for `lattice_coded`.
    """

    basis: F32Array
    steps: F32Array
    classes: NDArray[np.uint8]
    shifts: NDArray[np.uint8]
    frequencies: NDArray[np.uint16]
    lattice_steps: F32Array
    lattice_frequencies: NDArray[np.uint16]

    def to_bytes(self, metadata: dict[str, str]) -> bytes:
        """As a safetensors file."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in self.__slots__}
        data: bytes = safetensors.numpy.save(arrays, metadata)
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "MotionTables":
        """Raises WeightsError when the tables are damaged or of another layout."""
        try:
            arrays = safetensors.numpy.load(data)
            if lacking := [name for name in cls.__slots__ if name not in arrays]:
                raise WeightsError(
                    f"the motion tables have no {lacking[0]}: another avcall made them; "
                    "export the weights again"
                )
            tables = cls(**arrays)
            tables._validate()
        except (safetensors.SafetensorError, TypeError, ValueError) as error:
            raise WeightsError(f"the motion tables are damaged ({error}); reinstall avcall") from None
        return tables

    def digest(self) -> str:
        """What both ends compare: 16 hexadecimal digits."""
        hasher = hashlib.sha256()
        for name in self.__slots__:
            hasher.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return hasher.digest()[:HASH_BYTES].hex()

    def _validate(self) -> None:
        rows = len(self.shifts)
        wanted = {
            "basis": ((NUMBERS, NUMBERS), np.float32),
            "steps": ((STEPS,), np.float32),
            "classes": ((STEPS, CONTEXTS, NUMBERS), np.uint8),
            "shifts": ((rows,), np.uint8),
            "frequencies": ((rows, SYMBOLS), np.uint16),
            "lattice_steps": ((STEPS,), np.float32),
            "lattice_frequencies": ((STEPS, lattice_coded.CONTEXTS, lattice_coded.LEVELS), np.uint16),
        }
        for name, (shape, kind) in wanted.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != kind:
                raise ValueError(f"{name} is {array.dtype}{array.shape}")
        if not rows or self.classes.max() >= rows or self.shifts.max() > ESCAPE_BITS:
            raise ValueError("a class that does not exist")
        for table in (self.frequencies, self.lattice_frequencies):
            if not (table > 0).all() or (table.astype(np.int64).sum(-1) > FREQUENCY_SUM).any():
                raise ValueError("frequencies that do not sum to one")
        steps = np.concatenate([self.steps, self.lattice_steps])
        if not np.isfinite(self.basis).all() or not (steps > 0).all() or not np.isfinite(steps).all():
            raise ValueError("numbers out of range")
        if np.linalg.cond(self.basis.astype(np.float64)) > MAX_CONDITION:
            raise ValueError("a basis that cannot be inverted")


class _Alphabet:
    """How one integer is coded: a table for its high part, flat low bits, an escape."""

    def __init__(self, shift: int, frequencies: NDArray[np.uint16]) -> None:
        self._high = static_model(frequencies)
        self._low = _uniform(1 << shift) if shift else None
        self._shift = shift

    def encode(self, encoder: "constriction.stream.queue.RangeEncoder", number: int) -> None:
        high = number >> self._shift
        if abs(high) <= MAX_HIGH:
            encoder.encode(high + MAX_HIGH, self._high)
        else:
            encoder.encode(SYMBOLS - 1, self._high)
            encoder.encode(high + (1 << ESCAPE_BITS - 1), _ESCAPE)
        if self._low is not None:
            encoder.encode(number & ((1 << self._shift) - 1), self._low)

    def decode(self, decoder: "constriction.stream.queue.RangeDecoder") -> int:
        symbol = int(decoder.decode(self._high))
        if symbol == SYMBOLS - 1:
            high = int(decoder.decode(_ESCAPE)) - (1 << ESCAPE_BITS - 1)
        else:
            high = symbol - MAX_HIGH
        low = int(decoder.decode(self._low)) if self._low is not None else 0
        return (high << self._shift) + low


_ESCAPE = _uniform(1 << ESCAPE_BITS)


class MotionCoder:
    """Codes the motion of one packet; the same object serves either direction."""

    def __init__(self, tables: MotionTables) -> None:
        self._tables = tables
        self._analysis = np.linalg.inv(tables.basis.astype(np.float64))
        self._alphabets = [
            _Alphabet(int(shift), row) for shift, row in zip(tables.shifts, tables.frequencies, strict=True)
        ]
        self._lattices = LatticeCoder(tables.lattice_frequencies)

    @property
    def digest(self) -> str:
        """Of the tables; peers whose digests differ cannot understand each other's motion."""
        return self._tables.digest()

    def lattice(self, frames: Sequence[Keypoints], step: int) -> Levels | None:
        """The lattice that a packet of `frames` tells, or None if nothing is left of it at this step."""
        known = [frame.lattice for frame in frames if frame.lattice is not None]
        if not known:
            return None
        levels = lattice_coded.quantise_lattice(known, float(self._tables.lattice_steps[step]))
        return levels if levels.any() else None

    def encode(
        self, frames: Sequence[Keypoints], source: Keypoints, step: int, lattice: Levels | None = None
    ) -> bytes:
        """The payload for `frames` against the keyframe's keypoints, with step 0 (finest) to 7.

        What it decodes to always passes the checks of the receiver: a frame that would not is replaced by the
        one before it. `lattice` is one of this step; the receiver has to be told whether there is one.
        """
        encoder = constriction.stream.queue.RangeEncoder()
        if lattice is not None:
            self._lattices.encode(encoder, lattice, step)
        before = np.zeros(NUMBERS, np.int32)
        for position, frame in enumerate(frames):
            numbers = self._quantise(frame, source, step, before if position else None)
            if not self._decodable(numbers, source, step):
                numbers = before
            for number, alphabet in zip(numbers - before, self._row(step, position), strict=True):
                alphabet.encode(encoder, int(number))
            before = numbers
        return _trim(encoder.get_compressed())

    def decode(
        self, payload: bytes, count: int, source: Keypoints, step: int, *, deformed: bool = False
    ) -> list[Keypoints]:
        """`count` frames of a payload, `deformed` or not. Raises MotionError naming what is wrong."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise MotionError(f"coded motion: {len(payload)} bytes, at most {MAX_PAYLOAD_BYTES} are allowed")
        if not 0 <= step < STEPS:
            raise MotionError(f"coded motion: step {step} is outside 0..{STEPS - 1}")
        decoder = constriction.stream.queue.RangeDecoder(_words(payload))
        before = np.zeros(NUMBERS, np.int64)
        frames = []
        try:
            lattice = self._decoded_lattice(decoder, step) if deformed else None
            for position in range(count):
                change = [alphabet.decode(decoder) for alphabet in self._row(step, position)]
                before = before + np.array(change, np.int64)
                frames.append(replace(self._reconstruct(before, source, step), lattice=lattice))
        except AssertionError:  # what constriction raises for data that no encoder made
            raise MotionError("coded motion: not a range coded payload") from None
        return frames

    def _decoded_lattice(self, decoder: "constriction.stream.queue.RangeDecoder", step: int) -> F32Array:
        levels = self._lattices.decode(decoder, step).astype(np.float32)
        lattice = np.clip(levels * self._tables.lattice_steps[step], -MAX_DEFORMATION, MAX_DEFORMATION)
        return np.asarray(lattice, np.float32)

    def _row(self, step: int, position: int) -> list[_Alphabet]:
        return [self._alphabets[i] for i in self._tables.classes[step, min(position, 1)]]

    def _quantise(self, frame: Keypoints, source: Keypoints, step: int, before: IntArray | None) -> IntArray:
        coefficients = (flatten(frame) - flatten(source)) @ self._analysis / self._tables.steps[step]
        limit = (1 << ESCAPE_BITS - 1) - 1
        numbers = np.clip(np.rint(coefficients), -limit // 2, limit // 2).astype(np.int32)
        if before is not None:
            numbers = np.where(np.abs(coefficients - before) < HOLD, before, numbers).astype(np.int32)
        return np.asarray(numbers, np.int32)

    def _decodable(self, numbers: IntArray, source: Keypoints, step: int) -> bool:
        try:
            self._reconstruct(numbers.astype(np.int64), source, step)
        except MotionError:
            return False
        return True

    def _reconstruct(self, numbers: NDArray[np.int64], source: Keypoints, step: int) -> Keypoints:
        coefficients = numbers.astype(np.float32) * self._tables.steps[step]
        flat = flatten(source) + coefficients @ self._tables.basis
        return keypoints_from((flat / SCALES).astype(np.float32))


def flatten(keypoints: Keypoints) -> F32Array:
    """(60,) float32, jacobians weighted."""
    numbers = np.concatenate([keypoints.values.ravel(), keypoints.jacobians.ravel()])
    return np.asarray(numbers * SCALES, np.float32)


def _trim(words: NDArray[np.uint32]) -> bytes:
    """Big-endian bytes without the zeros at the end, which the decoder supplies."""
    return words.astype(">u4").tobytes().rstrip(b"\0")


def _words(payload: bytes) -> NDArray[np.uint32]:
    padded = payload + b"\0" * (-len(payload) % 4)
    return np.frombuffer(padded, ">u4").astype(np.uint32)
