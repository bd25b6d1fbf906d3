"""Detect: keypoints of the tracked face."""

from avcall.types import F32Array, FaceCrop, HeldKeyframe, Keypoints, U8Image
from models.runtime import ModelRuntime
from models.sight import SecondLook

LONGEST_GAP_MS = 200  # between two frames of which the second look at one begins where the other's ended


class Detector:
    """The keypoint detector as a stage; `beside` is for one thread."""

    def __init__(self, runtime: ModelRuntime) -> None:
        self._runtime = runtime
        self._last: tuple[HeldKeyframe, int, SecondLook] | None = None  # and the pts of its frame

    def keypoints(self, crop: FaceCrop) -> Keypoints:
        """Keypoints of a crop, in its own coordinates."""
        return self._runtime.detect(crop.rgb, crop.priors)

    def hold(self, rgb: U8Image, keypoints: Keypoints, landmarks: F32Array | None) -> HeldKeyframe:
        """A keyframe for `beside`."""
        return self._runtime.hold(rgb, keypoints, landmarks)

    def beside(self, keyframe: HeldKeyframe, crop: FaceCrop) -> Keypoints:
        """Keypoints of a crop, after a second look beside a keyframe of the same person.

        From frame to frame beside one keyframe, each look goes on from the one before.
        """
        found = self.keypoints(crop)
        last = self._known(keyframe, crop.pts_ms)
        look = self._runtime.refine(found, crop.rgb, crop.priors.landmarks, keyframe, last)
        self._last = (keyframe, crop.pts_ms, look)
        return look.keypoints

    def _known(self, keyframe: HeldKeyframe, pts_ms: int) -> SecondLook | None:
        if self._last is None:
            return None
        beside, last_ms, look = self._last
        near = 0 <= pts_ms - last_ms <= LONGEST_GAP_MS
        return look if beside is keyframe and near else None
