"""Which frames of a clip show what most of its frames do not: closed eyes and wide mouths."""

import numpy as np

from avcall.types import F32Array
from models.priors import NUM_LANDMARKS

# (upper, lower) landmarks in the middle of each lid or lip, and the corners beside them.
EYES = (((159, 145), (33, 133)), ((386, 374), (362, 263)))
MOUTH = ((13, 14), (78, 308))
CLOSED = 0.55  # of the clip's median: eyes narrower than this are closing
WIDE = 0.15  # mouth opening over mouth width beyond the clip's median


def opening(landmarks: F32Array, gap: tuple[int, int], corners: tuple[int, int]) -> F32Array:
    """Height over width of an eye or a mouth in each frame: `landmarks` (T, 478, 2) -> (T,)."""

    def distance(ends: tuple[int, int]) -> F32Array:
        between: F32Array = np.linalg.norm(landmarks[:, ends[0]] - landmarks[:, ends[1]], axis=-1)
        return between

    return distance(gap) / np.maximum(distance(corners), 1e-3)


def telling_frames(landmarks: F32Array) -> list[int]:
    """Frames with a face whose eyes are closing or whose mouth is wide, by the measure of their own clip.

    `landmarks` (T, 478, 2) in any unit, all zero where there is no face.
    """
    if landmarks.shape[1:] != (NUM_LANDMARKS, 2):
        raise ValueError(f"landmarks must be (T, {NUM_LANDMARKS}, 2), not {landmarks.shape}")
    seen = np.flatnonzero(landmarks.any((1, 2)))
    if not len(seen):
        return []
    points = landmarks[seen]
    eyes = np.mean([opening(points, *eye) for eye in EYES], 0)
    mouth = opening(points, *MOUTH)
    telling = (eyes < CLOSED * np.median(eyes)) | (mouth > WIDE + np.median(mouth))
    return [int(index) for index in seen[telling]]
