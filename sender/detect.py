"""Detect: keypoints of the tracked face."""

from avcall.types import FaceCrop, Keypoints, U8Image
from models.runtime import ModelRuntime


class Detector:
    """The keypoint detector as a stage."""

    def __init__(self, runtime: ModelRuntime) -> None:
        self._runtime = runtime

    def keypoints(self, crop: FaceCrop) -> Keypoints:
        """Keypoints of a crop, in its own coordinates."""
        return self._runtime.detect(crop.rgb, crop.priors)

    def refined(self, found: Keypoints, crop: FaceCrop, keyframe: U8Image, source: Keypoints) -> Keypoints:
        """What `keypoints` found in a crop, corrected by what it draws from the receiver's keyframe.

        `keyframe` (256, 256, 3) with its keypoints `source` is the decoded one, of the same person.
        """
        return self._runtime.refine(found, keyframe, source, crop.rgb, crop.priors)
