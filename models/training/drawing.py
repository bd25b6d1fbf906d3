"""Prepared clips through the runtime as a call uses it: a keyframe, moved by a clip."""

from dataclasses import dataclass

import numpy as np

from avcall.types import F32Array, Keypoints, Priors, U8Image
from models.priors import draw_mesh
from models.retarget import Retarget
from models.runtime import ModelRuntime
from models.training.data import Clip

KEYFRAME = 0


@dataclass(frozen=True, slots=True)
class Still:
    """A picture (256, 256, 3) that is to be moved, its keypoints, and whose it is."""

    name: str
    rgb: U8Image
    keypoints: Keypoints


def first_face(clip: Clip) -> int | None:
    """The first frame that shows a face."""
    return next((i for i in range(len(clip)) if clip.landmarks(i).any()), None)


def priors_of(clip: Clip, index: int) -> Priors:
    """The priors that were prepared with a frame."""
    landmarks, mask = clip.landmarks(index), clip.mask(index)
    if not landmarks.any():
        return Priors(np.zeros_like(mask), mask, None)
    return Priors(draw_mesh(landmarks), mask, landmarks)


def detect(runtime: ModelRuntime, clip: Clip, index: int) -> Keypoints:
    """Keypoints of a prepared frame."""
    return runtime.detect(clip.picture(index), priors_of(clip, index))


def detect_beside(runtime: ModelRuntime, clip: Clip, index: int, still: Still) -> Keypoints:
    """Keypoints of a prepared frame for a receiver that holds `still`, of the same person."""
    found, priors = detect(runtime, clip, index), priors_of(clip, index)
    return runtime.refine(found, still.rgb, still.keypoints, clip.picture(index), priors)


def still_of(runtime: ModelRuntime, clip: Clip) -> Still | None:
    """The first frame that shows a face; None when none does."""
    first = first_face(clip)
    return None if first is None else Still(clip.name, clip.picture(first), detect(runtime, clip, first))


class Puppet:
    """A still that moves. One at a time in a runtime: it holds its keyframe."""

    def __init__(self, runtime: ModelRuntime, still: Still, *, other_person: bool) -> None:
        """With `other_person` the driver's motion since its first frame is carried over, as in a call."""
        runtime.set_keyframe(KEYFRAME, still.rgb, still.keypoints)
        self._runtime = runtime
        self._still = still
        self._retarget = Retarget(still.keypoints) if other_person else None

    def pose(self, rgb: U8Image, priors: Priors) -> Keypoints:
        """The keypoints to draw for a frame; once for each frame of the driver, from the first on."""
        found = self._runtime.detect(rgb, priors)
        if self._retarget is not None:
            return self._retarget.apply(found)
        return self._runtime.refine(found, self._still.rgb, self._still.keypoints, rgb, priors)

    def draw(self, pose: Keypoints, mel: F32Array, *, speech: bool) -> U8Image:
        """(256, 256, 3)."""
        return self._runtime.synthesize(KEYFRAME, pose, mel, speech=speech)
