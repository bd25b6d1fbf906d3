"""Access units, keypoints and stills that tests of several packages need."""

import numpy as np

from avcall.bitstream.motion import MotionMode, encode
from avcall.bitstream.packet import MessageType, RtpHeader, rtp_header
from avcall.types import FRAME_MS, NUM_KEYPOINTS, AccessUnit, Keypoints, MediaKind, U8Image

OPUS_40_MS_TOC = 0x50  # config 10 (SILK wideband, 40 ms), mono, one frame


def make_keypoints(seed: int = 0) -> Keypoints:
    """Plausible keypoints: values within the picture, jacobians near the identity."""
    rng = np.random.default_rng(seed)
    return Keypoints(
        values=rng.uniform(-0.9, 0.9, (NUM_KEYPOINTS, 2)).astype(np.float32),
        jacobians=(np.eye(2) + rng.uniform(-0.3, 0.3, (NUM_KEYPOINTS, 2, 2))).astype(np.float32),
    )


_MOTION_PAYLOAD = encode(MotionMode.FP16, make_keypoints())


def motion_unit(pts_ms: int, keyframe_index: int = 0) -> AccessUnit:
    """A motion unit of 40 ms."""
    return AccessUnit(MediaKind.MOTION, pts_ms, FRAME_MS, _MOTION_PAYLOAD, keyframe_index)


def audio_unit(pts_ms: int, size_bytes: int = 50) -> AccessUnit:
    """An audio unit of 40 ms: a valid TOC byte, then filler."""
    return AccessUnit(MediaKind.AUDIO, pts_ms, 40, bytes([OPUS_40_MS_TOC]) + bytes(size_bytes - 1))


def rtp(body: bytes = b"", sequence: int = 0) -> bytes:
    """A media message with any content, which a transport carries and no parser takes."""
    return rtp_header(RtpHeader(MessageType.MEDIA, sequence, 0)) + body


def make_still() -> U8Image:
    """A 256x256 picture with smooth and sharp parts."""
    row = np.arange(256, dtype=np.uint8)
    still = np.stack(np.broadcast_arrays(row, row[:, None], row[::-1]), axis=-1).copy()
    still[96:160, 96:160] = (200, 150, 120)
    return still
