"""Motion between two frames that came: pure maths."""

import numpy as np

from avcall.types import F32Array, Keypoints

MIN_DETERMINANT = 1e-3  # in magnitude, as for jacobians in the bitstream


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
