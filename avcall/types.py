"""The data that crosses a stage border: frozen, slotted, and nothing else.

Media time is `pts_ms`: whole milliseconds of the sender's media clock, which starts at 0 with the call and
is shared by picture and sound.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

FRAME_SIZE_PX = 256  # side of the square picture that a call carries
FRAME_RATE = 25  # frames a second on the wire
FRAME_MS = 1000 // FRAME_RATE
NUM_KEYPOINTS = 10
LATTICE_POINTS = 10  # along each side of a deformation's lattice
SAMPLE_RATE_HZ = 16_000  # mono speech, everywhere but inside the Opus decoder

U8Image = NDArray[np.uint8]
F32Array = NDArray[np.float32]
Pcm = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """A raw picture: `rgb` is (height, width, 3) uint8."""

    rgb: U8Image
    pts_ms: int


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Raw mono speech: `pcm` is (samples,) int16 at `SAMPLE_RATE_HZ`; `pts_ms` is its first sample."""

    pcm: Pcm
    pts_ms: int


@dataclass(frozen=True, slots=True)
class Priors:
    """Structural priors of one crop at 64x64: face-mesh raster and segmentation mask, (64, 64) uint8 each.

    `landmarks` is (478, 2) float32 in pixels of the 256x256 crop, or None when no face was found; then
    `mesh` is all zero.
    """

    mesh: U8Image
    mask: U8Image
    landmarks: F32Array | None


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """The tracked face: `rgb` is (256, 256, 3) uint8."""

    rgb: U8Image
    priors: Priors
    pts_ms: int


@dataclass(frozen=True, slots=True)
class Keypoints:
    """`values` (10, 2) float32, x then y, in [-1, 1] across the picture; `jacobians` (10, 2, 2) float32.

    `lattice` (10, 10, 2) float32, rows of x and y, is a free-form deformation beside the keypoints' motion,
    in half widths of the picture; None says that there is none.
    """

    values: F32Array
    jacobians: F32Array
    lattice: F32Array | None = None


@dataclass(frozen=True, slots=True)
class MotionFrame:
    """The keypoints of one picture on their way to the receiver, naming the keyframe that they animate."""

    keypoints: Keypoints
    pts_ms: int
    keyframe_index: int


@dataclass(frozen=True, slots=True)
class Keyframe:
    """A decoded still: `rgb` (256, 256, 3) uint8, and its keypoints as the sender computed them."""

    index: int
    rgb: U8Image
    keypoints: Keypoints


@dataclass(frozen=True, slots=True)
class HeldKeyframe:
    """What the sender knows of a keyframe that the receiver holds: the decoded still and its keypoints.

    `landmarks` (478, 2) float32 in pixels are of the picture that was coded, or None. `parts`
    (1, K + 1, 64, 64) are the network's part maps of it; None for a network that has none.
    """

    rgb: U8Image
    keypoints: Keypoints
    landmarks: F32Array | None
    parts: F32Array | None = None


class MediaKind(IntEnum):
    """What an access unit holds."""

    MOTION = 1
    AUDIO = 2


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One coded unit of one medium: a motion frame or an Opus frame.

    `duration_ms` is the media time that it covers. `keyframe_index` is meaningful for motion only.
    """

    kind: MediaKind
    pts_ms: int
    duration_ms: int
    payload: bytes
    keyframe_index: int = 0
