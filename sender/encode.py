"""Encode: keypoints to motion units, and the keyframe to the slices that carry it."""

from dataclasses import dataclass

from avcall.bitstream import keyframe as still
from avcall.bitstream import motion
from avcall.bitstream.keyframe import CodedKeyframe, StillCodec
from avcall.bitstream.motion import MotionMode
from avcall.types import FRAME_MS, AccessUnit, FaceCrop, Keypoints, MediaKind, U8Image
from sender.detect import Detector

KEYFRAME_INDICES = 256


@dataclass(frozen=True, slots=True)
class EncodedKeyframe:
    """A keyframe ready to be sent: its slices, and the keypoints of the picture that the receiver decodes."""

    index: int
    slices: tuple[bytes, ...]
    keypoints: Keypoints
    image_bytes: int


def encode_motion(mode: MotionMode, keypoints: Keypoints, pts_ms: int) -> AccessUnit:
    """One motion unit; the index of the keyframe that it animates is set when it is sent."""
    return AccessUnit(MediaKind.MOTION, pts_ms, FRAME_MS, motion.encode(mode, keypoints))


class KeyframeEncoder:
    """Numbers, codes and slices keyframes.

    The keypoints that travel are those of the decoded still, not of the camera's picture: the receiver
    animates what it has.
    """

    def __init__(self, detector: Detector, max_size_bytes: int, codec: StillCodec = StillCodec.AVIF) -> None:
        self._detector = detector
        self._max_size_bytes = max_size_bytes
        self._codec = codec
        self._next_index = 0

    def encode(self, crop: FaceCrop) -> EncodedKeyframe:
        """The crop (256, 256, 3) as the next keyframe; takes about 50 ms.

        Raises KeyframeError when no quality fits the size.
        """
        image = still.encode_still(crop.rgb, self._max_size_bytes, self._codec)
        decoded: U8Image = still.decode_still(self._codec, image)
        found = self._detector.keypoints(FaceCrop(decoded, crop.priors, crop.pts_ms))
        keypoints = motion.sanitise(found)
        index = self._next_index
        self._next_index = (index + 1) % KEYFRAME_INDICES
        data = still.serialize(CodedKeyframe(index, self._codec, image, keypoints))
        return EncodedKeyframe(index, tuple(still.slice_keyframe(data, index)), keypoints, len(image))
