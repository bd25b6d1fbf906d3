"""Encode: keypoints to motion units, and the keyframe to the slices that carry it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avcall.bitstream import keyframe as still
from avcall.bitstream import motion
from avcall.bitstream.keyframe import CodedKeyframe, StillCodec
from avcall.bitstream.live import LiveKeyframes
from avcall.bitstream.motion import UNIT_BYTES, MotionMode
from avcall.bitstream.motion_coded import MAX_PAYLOAD_BYTES, STEPS, MotionCoder
from avcall.bitstream.packet import KEYFRAME_INDICES, CodedMotion
from avcall.types import FRAME_MS, AccessUnit, FaceCrop, HeldKeyframe, Keypoints, MediaKind, U8Image
from sender.detect import Detector

WORTH_IT = 1.5  # times the bits: a plain picture is whole with few, and more of them show nothing


@dataclass(frozen=True, slots=True)
class EncodedKeyframe:
    """A keyframe ready to be sent: its slices, and what the receiver will hold of it.

    `held` is what the receiver will have. A `preliminary` one is small and is followed by a better one. One
    that came `instead_of` another shows the same picture with less taken away by its coding.
    """

    index: int
    slices: tuple[bytes, ...]
    image_bytes: int
    held: HeldKeyframe
    preliminary: bool = False
    instead_of: int | None = None

    @property
    def keypoints(self) -> Keypoints:
        """Those of the decoded picture."""
        return self.held.keypoints

    @property
    def rgb(self) -> U8Image:
        """The decoded picture, (256, 256, 3)."""
        return self.held.rgb


def encode_motion(keypoints: Keypoints, pts_ms: int) -> AccessUnit:
    """One motion unit in half floats; the index of the keyframe that it animates is set when it is sent."""
    return AccessUnit(MediaKind.MOTION, pts_ms, FRAME_MS, motion.encode(MotionMode.FP16, keypoints))


class MotionGroupEncoder:
    """Codes the motion units of one packet together, against the keyframe that they animate.

    `step` 0 (finest) to 7 is the knob of the rate; it may change from packet to packet. A packet that has no
    room for what it makes gets the next coarser step that it has room for. `deforms` says whether lattices
    are told.
    """

    def __init__(self, coder: MotionCoder, step: int) -> None:
        self._coder = coder
        self.step = step
        self.deforms = True
        self._sources: LiveKeyframes[Keypoints] = LiveKeyframes()

    def add_source(self, keyframe: "EncodedKeyframe") -> None:
        """Remember a keyframe's keypoints; see LiveKeyframes for which gives way."""
        self._sources.put(keyframe.index, keyframe.keypoints)

    def encode(self, units: Sequence[AccessUnit]) -> CodedMotion | None:
        """Units in half floats, all of one keyframe; None when half floats are the better choice."""
        index = units[0].keyframe_index
        source = self._sources.get(index)
        if source is None:
            return None
        frames = [motion.decode(MotionMode.FP16, unit.payload) for unit in units]
        room_bytes = min(MAX_PAYLOAD_BYTES, len(units) * UNIT_BYTES[MotionMode.FP16] - 1)
        for step in range(self.step, STEPS):
            lattice = self._coder.lattice(frames, step) if self.deforms else None
            payload = self._coder.encode(frames, source, step, lattice)
            if len(payload) <= room_bytes:
                times = tuple(unit.pts_ms for unit in units)
                return CodedMotion(times, index, step, payload, lattice is not None)
        return None


class KeyframeEncoder:
    """Numbers, codes and slices keyframes.

    The keypoints that travel are those of the decoded still, not of the camera's picture: the receiver
    animates what it has.
    """

    def __init__(
        self,
        detector: Detector,
        max_size_bytes: int,
        preliminary_bytes: int = 0,
        codec: StillCodec = StillCodec.AVIF,
        *,
        sharp_bytes: int = 0,
    ) -> None:
        """`preliminary_bytes` bounds the picture that is sent first; 0: there is none.

        `sharp_bytes` bounds what `sharpen` makes.
        """
        self._detector = detector
        self._max_size_bytes = max_size_bytes
        self._preliminary_bytes = preliminary_bytes
        self._codec = codec
        self._sharp_bytes = sharp_bytes
        self._next_index = 0

    @property
    def progressive(self) -> bool:
        """Whether the first picture is to be a preliminary one: it would be much smaller."""
        return 0 < self._preliminary_bytes < self._max_size_bytes

    def encode(
        self, crop: FaceCrop, index: int | None = None, *, preliminary: bool = False
    ) -> EncodedKeyframe:
        """The crop (256, 256, 3) as keyframe `index`, by default the next number; takes about 60 ms.

        Raises KeyframeError when no quality fits the size.
        """
        size_bytes = self._preliminary_bytes if preliminary else self._max_size_bytes
        return self._encode(crop, index, size_bytes, preliminary=preliminary)

    def sharpen(self, crop: FaceCrop, index: int, coarse: EncodedKeyframe) -> EncodedKeyframe | None:
        """The crop that `coarse` was made of, as keyframe `index` and with more bits; None if it needs none.

        Raises KeyframeError when no quality fits the size.
        """
        made = self._encode(crop, index, self._sharp_bytes, instead_of=coarse.index)
        return made if made.image_bytes >= WORTH_IT * coarse.image_bytes else None

    def _encode(
        self,
        crop: FaceCrop,
        index: int | None,
        size_bytes: int,
        *,
        preliminary: bool = False,
        instead_of: int | None = None,
    ) -> EncodedKeyframe:
        image = still.encode_still(crop.rgb, size_bytes, self._codec)
        decoded: U8Image = still.decode_still(self._codec, image)
        found = self._detector.keypoints(FaceCrop(decoded, crop.priors, crop.pts_ms))
        keypoints = motion.sanitise(found, np.float16)  # as they travel
        number = self._next_index if index is None else index
        self._next_index = (number + 1) % KEYFRAME_INDICES
        data = still.serialize(CodedKeyframe(number, self._codec, image, keypoints))
        slices = tuple(still.slice_keyframe(data, number))
        held = self._detector.hold(decoded, keypoints, crop.priors.landmarks)
        return EncodedKeyframe(number, slices, len(image), held, preliminary, instead_of)
