"""Detect: keypoints of the tracked face."""

from avcall.types import FaceCrop, HeldKeyframe, Keypoints
from models.runtime import ModelRuntime


class Detector:
    """The keypoint detector as a stage."""

    def __init__(self, runtime: ModelRuntime) -> None:
        self._runtime = runtime

    def keypoints(self, crop: FaceCrop) -> Keypoints:
        """Keypoints of a crop, in its own coordinates."""
        return self._runtime.detect(crop.rgb, crop.priors)

    def beside(self, keyframe: HeldKeyframe, crop: FaceCrop) -> Keypoints:
        """Keypoints of a crop, after a second look beside a keyframe of the same person."""
        found = self.keypoints(crop)
        return self._runtime.refine(found, crop.rgb, crop.priors.landmarks, keyframe)
