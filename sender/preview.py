"""Preview: the sender's own estimate of the picture that the receiver sees, at 64x64."""

import itertools
from collections.abc import Sequence

import cv2
import numpy as np

from avcall.types import Keypoints, U8Image
from models.priors import PRIOR_SIZE_PX
from models.runtime import ModelRuntime
from sender.encode import EncodedKeyframe
from sender.references import Estimate, distance


def thumbnail(rgb: U8Image) -> U8Image:
    """(256, 256, 3) -> (64, 64, 3), by area as the network does it."""
    small = cv2.resize(rgb, (PRIOR_SIZE_PX, PRIOR_SIZE_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


class Previewer:
    """The preview graph as a stage."""

    def __init__(self, runtime: ModelRuntime) -> None:
        self._runtime = runtime
        self._turns = itertools.count()

    def estimate(
        self, rgb: U8Image, keypoints: Keypoints, references: Sequence[EncodedKeyframe]
    ) -> tuple[Estimate, ...]:
        """How far the references, warped into this pose, are from the camera's crop (256, 256, 3).

        The first of them, which is in use, is looked at every time; the others take turns. Takes about 4 ms a
        reference.
        """
        looked_at = list(references[:1])
        if len(references) > 1:
            looked_at.append(references[1 + next(self._turns) % (len(references) - 1)])
        camera = thumbnail(rgb)
        return tuple(self._one(reference, keypoints, camera) for reference in looked_at)

    def _one(self, reference: EncodedKeyframe, keypoints: Keypoints, camera: U8Image) -> Estimate:
        _, error = self._runtime.preview(thumbnail(reference.rgb), reference.keypoints, keypoints, camera)
        return Estimate(reference.index, error, distance(reference.keypoints, keypoints))
