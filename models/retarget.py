"""The motion of one face transferred onto another one (`--source PHOTO`)."""

import numpy as np

from avcall.bitstream.motion import sanitise
from avcall.types import Keypoints


class Retarget:
    """Relative transfer (FOMM section 3.4): the driver's change since its first frame, applied to the photo.

    The photo keeps its own proportions; only motion is carried over.
    """

    def __init__(self, photo: Keypoints) -> None:
        self.photo = photo  # its keypoints; they may change with a better picture of it
        self._start: Keypoints | None = None

    def apply(self, driving: Keypoints) -> Keypoints:
        """The photo's keypoints moved as the driver's moved since the first call."""
        if self._start is None:
            self._start = sanitise(driving)  # its jacobians are inverted below
        start = self._start
        values = self.photo.values + driving.values - start.values
        change = driving.jacobians @ np.linalg.inv(start.jacobians)
        return Keypoints(values.astype(np.float32), (change @ self.photo.jacobians).astype(np.float32))
