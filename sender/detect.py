"""Detect: keypoints of the tracked face."""

from avcall.types import F32Array, FaceCrop, HeldKeyframe, Keypoints, U8Image
from models.runtime import ModelRuntime


class Detector:
    """The keypoint detector as a stage."""

    def __init__(self, runtime: ModelRuntime) -> None:
        self._runtime = runtime

    def keypoints(self, crop: FaceCrop) -> Keypoints:
        """Keypoints of a crop, in its own coordinates."""
        return self._runtime.detect(crop.rgb, crop.priors)

    def hold(self, rgb: U8Image, keypoints: Keypoints, landmarks: F32Array | None) -> HeldKeyframe:
        """A keyframe for `beside`."""
        return self._runtime.hold(rgb, keypoints, landmarks)

    def beside(self, keyframe: HeldKeyframe, crop: FaceCrop) -> Keypoints:
        """Keypoints of a crop, after a second look beside a keyframe of the same person."""
        found = self.keypoints(crop)
        return self._runtime.refine(found, crop.rgb, crop.priors.landmarks, keyframe)
