"""Prepared clips through the runtime as a call uses it: a keyframe, moved by a clip."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avcall.bitstream.keyframe import StillCodec, decode_still, encode_still
from avcall.bitstream.motion import sanitise
from avcall.bitstream.motion_coded import MotionCoder
from avcall.types import F32Array, HeldKeyframe, Keypoints, Priors, U8Image
from models.priors import draw_mesh
from models.retarget import Retarget
from models.runtime import ModelRuntime
from models.sight import SecondLook, Sight, look
from models.training.data import Clip

KEYFRAME = 0


@dataclass(frozen=True, slots=True)
class Still:
    """A picture that is to be moved, and whose it is."""

    name: str
    held: HeldKeyframe

    @property
    def rgb(self) -> U8Image:
        """(256, 256, 3)."""
        return self.held.rgb

    @property
    def keypoints(self) -> Keypoints:
        """The picture's."""
        return self.held.keypoints


def first_face(clip: Clip) -> int | None:
    """The first frame that shows a face."""
    return next((i for i in range(len(clip)) if clip.landmarks(i).any()), None)


def priors_of(clip: Clip, index: int) -> Priors:
    """The priors that were prepared with a frame."""
    landmarks, mask = clip.landmarks(index), clip.mask(index)
    if not landmarks.any():
        return Priors(np.zeros_like(mask), mask, None)
    return Priors(draw_mesh(landmarks), mask, landmarks)


def prior_channels(clip: Clip, index: int) -> U8Image:
    """Mesh and mask of a frame as the network gets them: (2, 64, 64)."""
    priors = priors_of(clip, index)
    return np.stack([priors.mesh, priors.mask])


def detect(runtime: ModelRuntime, clip: Clip, index: int) -> Keypoints:
    """Keypoints of a prepared frame."""
    return runtime.detect(clip.picture(index), priors_of(clip, index))


def sight_of(clip: Clip, index: int, keyframe: int) -> Sight:
    """What a sender sees of a prepared frame beside another one, as arrays."""
    frames = [(clip.picture(i), priors_of(clip, i).landmarks) for i in (index, keyframe)]
    return look(*frames[0], *frames[1])


def followed(runtime: ModelRuntime, clip: Clip, keyframe: HeldKeyframe) -> list[Keypoints]:
    """Keypoints of every frame of a prepared clip, one after another beside a keyframe, as in a call."""
    looks: list[SecondLook] = []
    for index in range(len(clip)):
        found, landmarks = detect(runtime, clip, index), priors_of(clip, index).landmarks
        last = looks[-1] if looks else None
        looks.append(runtime.refine(found, clip.picture(index), landmarks, keyframe, last))
    return [found.keypoints for found in looks]


def held_frame(
    runtime: ModelRuntime, clip: Clip, index: int, keyframe_bytes: int | None = None
) -> HeldKeyframe:
    """A prepared frame as a keyframe: coded in at most so many bytes, or one that coding does no harm to.

    Raises KeyframeError when no quality fits the size.
    """
    rgb, priors = clip.picture(index), priors_of(clip, index)
    if keyframe_bytes is not None:
        rgb = decode_still(StillCodec.AVIF, encode_still(rgb, keyframe_bytes))
    return runtime.hold(rgb, runtime.detect(rgb, priors), priors.landmarks)


def still_of(runtime: ModelRuntime, clip: Clip, keyframe_bytes: int | None = None) -> Still | None:
    """The first frame that shows a face, as `held_frame` makes it; None when none does."""
    first = first_face(clip)
    return None if first is None else Still(clip.name, held_frame(runtime, clip, first, keyframe_bytes))


def received_packet(
    coder: MotionCoder, frames: Sequence[Keypoints], source: Keypoints, step: int
) -> tuple[list[Keypoints], int]:
    """The frames of a packet as a receiver has them, lattice included, and the bytes of its payload."""
    halved = [sanitise(frame, np.float16) for frame in frames]
    lattice = coder.lattice(halved, step)
    payload = coder.encode(halved, source, step, lattice)
    return coder.decode(payload, len(frames), source, step, deformed=lattice is not None), len(payload)


class Puppet:
    """A still that moves. One at a time in a runtime: it holds its keyframe."""

    def __init__(
        self, runtime: ModelRuntime, still: Still, *, other_person: bool, motion_step: int | None = None
    ) -> None:
        """With `other_person` the driver's motion since its first frame is carried over, as in a call.

        With `motion_step`, a quantiser's, motion is drawn as a receiver has it, else as it was found. Raises
        WeightsError for weights that have no tables for it.
        """
        runtime.set_keyframe(KEYFRAME, still.rgb, still.keypoints)
        self._runtime = runtime
        self._still = still
        self._retarget = Retarget(still.keypoints) if other_person else None
        self._step = motion_step
        self._coder = None if motion_step is None else runtime.motion_coder()

    def pose(self, rgb: U8Image, priors: Priors) -> Keypoints:
        """The keypoints to draw for a frame; once for each frame of the driver, from the first on."""
        found = self._runtime.detect(rgb, priors)
        if self._retarget is not None:
            return self._received(self._retarget.apply(found))
        return self._received(self._runtime.refine(found, rgb, priors.landmarks, self._still.held).keypoints)

    def _received(self, pose: Keypoints) -> Keypoints:
        """The pose after its way through a packet of its own."""
        if self._coder is None or self._step is None:
            return pose
        return received_packet(self._coder, [pose], self._still.keypoints, self._step)[0][0]

    def draw(self, pose: Keypoints, mel: F32Array, *, speech: bool) -> U8Image:
        """(256, 256, 3)."""
        return self._runtime.synthesize(KEYFRAME, pose, mel, speech=speech)
