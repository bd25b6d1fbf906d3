"""Motion units: the keypoints of one picture as bytes.

Mode FP16 is what the paper spends (AVFR section 4: 10 keypoints with jacobians, 960 bits a frame):

    offset  size  field
    0       40    values     10 x (x, y)            big-endian IEEE 754 half floats
    40      80    jacobians  10 x (xx, xy, yx, yy)  big-endian IEEE 754 half floats, row by row

Keypoints are refused when a number is not finite, |value| > 1.5, |jacobian| > 16 or |det J| < 1e-3: the
receiver divides by the determinant, and no face leaves the picture that far.

Between the stages of one end, 400 bytes may follow: the lattice of a deformation, 10 x 10 x (x, y) as half
floats, |number| <= 0.5. On the wire only coded motion tells it.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from avcall.errors import MotionError
from avcall.types import LATTICE_POINTS, NUM_KEYPOINTS, F32Array, Keypoints

MAX_VALUE = 1.5  # in half widths of the picture, which spans [-1, 1]
MAX_JACOBIAN = 16.0
MIN_DETERMINANT = 1e-3
MAX_DEFORMATION = 0.5  # in half widths
PAPER_BITS_PER_FRAME = 960

_VALUE_COUNT = NUM_KEYPOINTS * 2
_SHAPE_VALUES = (NUM_KEYPOINTS, 2)
_SHAPE_JACOBIANS = (NUM_KEYPOINTS, 2, 2)
_SHAPE_LATTICE = (LATTICE_POINTS, LATTICE_POINTS, 2)
KEYPOINT_NUMBERS = NUM_KEYPOINTS * 6
LATTICE_NUMBERS = LATTICE_POINTS**2 * 2
_Precision = type[np.float16] | type[np.float32]
_HALF = np.dtype(">f2")
_MIN_SINGULAR_VALUE = 0.05  # 0.05 squared is 2.5 times MIN_DETERMINANT: room for rounding to half floats


class MotionMode(IntEnum):
    """How motion is coded: each frame alone in half floats, or a packet's frames together (`motion_coded`).

    DEFORMED is CODED with the lattice of a deformation before it.

    The wire has room for 4 modes.
    """

    FP16 = 0
    CODED = 1
    DEFORMED = 2


UNIT_BYTES = {MotionMode.FP16: PAPER_BITS_PER_FRAME // 8}  # modes whose size is fixed, on the wire
DEFORMED_BYTES = UNIT_BYTES[MotionMode.FP16] + LATTICE_NUMBERS * 2  # of a unit with a lattice


def encode(mode: MotionMode, keypoints: Keypoints) -> bytes:
    """Code `keypoints` in `mode`; in FP16 120 bytes, or 520 where they have a lattice.

    Whatever the detector says, the result decodes: numbers are first brought into range (see `sanitise`).
    Raises ValueError when an array has the wrong shape or the mode is unknown.
    """
    if mode is not MotionMode.FP16:
        raise ValueError(f"motion mode {mode!r} is unknown")
    safe = sanitise(keypoints, np.float16)
    parts = [safe.values, safe.jacobians, *([] if safe.lattice is None else [safe.lattice])]
    return b"".join(part.astype(_HALF).tobytes() for part in parts)


def decode(mode: MotionMode, payload: bytes) -> Keypoints:
    """Keypoints of a motion unit. Raises MotionError naming the field and the keypoint that is wrong."""
    size_bytes = UNIT_BYTES.get(mode)
    if size_bytes is None:
        raise MotionError(f"motion unit: mode {mode!r} is unknown")
    if len(payload) not in (size_bytes, DEFORMED_BYTES):
        raise MotionError(f"motion unit: {len(payload)} bytes, mode {mode.name} takes {size_bytes}")
    numbers = np.frombuffer(payload, dtype=_HALF).astype(np.float32)
    return keypoints_from(numbers)


def keypoints_from(numbers: F32Array) -> Keypoints:
    """Checked keypoints from (60,) or (260,) float32: 20 values, 40 jacobian entries, perhaps a lattice.

    Raises MotionError.
    """
    lattice = numbers[KEYPOINT_NUMBERS:]
    keypoints = Keypoints(
        values=numbers[:_VALUE_COUNT].reshape(_SHAPE_VALUES),
        jacobians=numbers[_VALUE_COUNT:KEYPOINT_NUMBERS].reshape(_SHAPE_JACOBIANS),
        lattice=lattice.reshape(_SHAPE_LATTICE) if len(lattice) else None,
    )
    check(keypoints)
    return keypoints


def check(keypoints: Keypoints) -> None:
    """Raise MotionError, naming the field and the index, unless `keypoints` may go on the wire."""
    _check_range("value", keypoints.values, MAX_VALUE)
    _check_range("jacobian", keypoints.jacobians, MAX_JACOBIAN)
    singular = np.abs(_determinants(keypoints.jacobians)) < MIN_DETERMINANT
    if singular.any():
        raise MotionError(f"keypoint jacobian {int(np.argmax(singular))} is singular")
    if keypoints.lattice is not None:
        _check_range("lattice row", keypoints.lattice, MAX_DEFORMATION)


def sanitise(keypoints: Keypoints, precision: _Precision = np.float32) -> Keypoints:
    """The nearest keypoints that `check` accepts, rounded to `precision`, as float32.

    Values and jacobian entries are clamped to their limits. A value that is not finite becomes 0, the centre.
    A singular jacobian gets its singular values raised to 0.05, which keeps its directions; one that is
    not finite becomes the identity. A lattice is clamped, too. Raises ValueError on a wrong shape.
    """
    if keypoints.values.shape != _SHAPE_VALUES or keypoints.jacobians.shape != _SHAPE_JACOBIANS:
        raise ValueError(f"keypoints of shape {keypoints.values.shape} and {keypoints.jacobians.shape}")
    finite_values = np.where(np.isfinite(keypoints.values), keypoints.values, 0.0)
    values = _rounded(np.clip(finite_values, -MAX_VALUE, MAX_VALUE), precision)
    finite = np.isfinite(keypoints.jacobians).all(axis=(1, 2))
    raw = np.where(finite[:, None, None], keypoints.jacobians, np.eye(2))
    jacobians = _rounded(np.clip(raw, -MAX_JACOBIAN, MAX_JACOBIAN), precision)
    for index in np.flatnonzero(np.abs(_determinants(jacobians)) < MIN_DETERMINANT):
        jacobians[index] = _invertible(jacobians[index], precision)
    return Keypoints(values, jacobians, _safe_lattice(keypoints.lattice, precision))


def _safe_lattice(lattice: F32Array | None, precision: _Precision) -> F32Array | None:
    if lattice is None:
        return None
    if lattice.shape != _SHAPE_LATTICE:
        raise ValueError(f"a lattice of shape {lattice.shape}")
    finite = np.where(np.isfinite(lattice), lattice, 0.0)
    return _rounded(np.clip(finite, -MAX_DEFORMATION, MAX_DEFORMATION), precision)


def _check_range(name: str, array: F32Array, limit: float) -> None:
    flat = np.abs(array.reshape(len(array), -1)).max(axis=1)
    wrong = ~(flat <= limit)  # also true for NaN
    if wrong.any():
        index = int(np.argmax(wrong))
        what = f"beyond {limit}" if np.isfinite(array[index]).all() else "not finite"
        raise MotionError(f"keypoint {name} {index} is {what}")


def _determinants(jacobians: F32Array) -> NDArray[np.float64]:
    """(10,) determinants; in float64 so that both ends get the same answer."""
    wide = jacobians.astype(np.float64)
    result: NDArray[np.float64] = wide[:, 0, 0] * wide[:, 1, 1] - wide[:, 0, 1] * wide[:, 1, 0]
    return result


def _rounded(array: NDArray[np.float32] | NDArray[np.float64], precision: _Precision) -> F32Array:
    return array.astype(precision).astype(np.float32)


def _invertible(jacobian: F32Array, precision: _Precision) -> F32Array:
    """`jacobian` (2, 2) with its singular values raised to `_MIN_SINGULAR_VALUE`.

    With s <= 32 the larger one, the determinant becomes 0.05 s at least; rounding to half floats moves it by
    less than s * s / 1024, and the clamp by less than half of it: it stays invertible.
    """
    left, singular_values, right = np.linalg.svd(jacobian.astype(np.float64))
    lifted = (left * np.maximum(singular_values, _MIN_SINGULAR_VALUE)) @ right
    return _rounded(np.clip(lifted, -MAX_JACOBIAN, MAX_JACOBIAN), precision)
