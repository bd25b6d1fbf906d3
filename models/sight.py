"""What a sender sees of a frame beside its keyframe: where each place of the frame lies in the keyframe."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from avcall.types import FRAME_SIZE_PX, F32Array, Keypoints, U8Image
from models.optical_flow import optical_flow
from models.priors import LEFT_EYE, LIPS_INNER, LIPS_OUTER, NUM_LANDMARKS, RIGHT_EYE

# Keypoints that stay with their landmarks: inner lips and upper eyelids. Who follows their whole region
# misses a blink.
PINNED_KEYPOINTS = (3, 4, 5, 6)
PIN_LANDMARKS = (13, 14, 159, 386)
FITS = 2  # of a second look that begins with what the detector found
LIPS_AND_EYES_TRUST = 16.0  # that of another landmark is 1; at 8 the picture loses 0.04 dB


class Sight(NamedTuple):
    """Correspondences of N frames with their keyframes, as arrays or tensors of one kind.

    `optical` (N, 64, 64, 2) says where each place of the frame lies in the keyframe, `sure` (N, 64, 64) how
    far that is trusted; `landmarks` (N, 2, 478, 2) are the keyframe's and the frame's, and `trust` (N, 478)
    weighs them, 0 for what is not seen. `pins` (N, 2, 4, 2), the keyframe's and the frame's, are those that
    `PINNED_KEYPOINTS` are held to, as far as `pinned` (N, 4). Positions are in [-1, 1].
    """

    optical: Any
    sure: Any
    landmarks: Any
    trust: Any
    pins: Any
    pinned: Any


@dataclass(frozen=True, slots=True)
class SecondLook:
    """What a second look found in a frame, and what the next one begins with.

    `masks` (1, K + 1, 64, 64) and `bend` (1, 64, 64, 2) are of the dense motion to the `keypoints`, `misfit`
    is how far it is from what the sender sees.
    """

    keypoints: Keypoints
    masks: F32Array
    bend: F32Array
    misfit: float


def landmark_emphasis(lips_and_eyes: float) -> F32Array:
    """(478,) weights of the landmarks: 1, and `lips_and_eyes` for those."""
    emphasis = np.ones(NUM_LANDMARKS, np.float32)
    emphasis[[*LIPS_OUTER, *LIPS_INNER, *LEFT_EYE, *RIGHT_EYE]] = lips_and_eyes
    return emphasis


TRUST = landmark_emphasis(LIPS_AND_EYES_TRUST)


def look(
    frame: U8Image, landmarks: F32Array | None, keyframe: U8Image, keyframe_landmarks: F32Array | None
) -> Sight:
    """One frame and its keyframe, both (256, 256, 3), with landmarks (478, 2) in pixels or without."""
    optical, sure = optical_flow(frame, keyframe)
    pair = np.zeros((1, 2, NUM_LANDMARKS, 2), np.float32)
    trust = np.zeros((1, NUM_LANDMARKS), np.float32)
    pinned = np.zeros((1, len(PIN_LANDMARKS)), np.float32)
    if landmarks is not None and keyframe_landmarks is not None:
        pair[0] = np.stack([keyframe_landmarks, landmarks]) * (2 / FRAME_SIZE_PX) - 1
        trust[0], pinned[0] = TRUST, 1.0
    return Sight(optical[None], sure[None], pair, trust, pair[:, :, list(PIN_LANDMARKS)], pinned)
