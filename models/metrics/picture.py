"""Measures of one picture against the one that it should be."""

import math
from dataclasses import dataclass

import numpy as np
from skimage.metrics import structural_similarity

from avcall.types import F32Array, U8Image
from models.priors import LEFT_EYE, LIPS_INNER, LIPS_OUTER, RIGHT_EYE

MAX_PSNR_DB = 100.0  # of two pictures that are the same
SSIM_SIGMA_PX = 1.5  # Wang et al. 2004
FACE_SIDES = (234, 454)  # landmarks before the ears: the width of the face lies between
LIPS = [*LIPS_OUTER, *LIPS_INNER]
EYELIDS = [*LEFT_EYE, *RIGHT_EYE]
MOUTH_MARGIN = 0.4  # of the lips' size, on every side


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of whole pixels; `right` and `bottom` are outside."""

    left: int
    top: int
    right: int
    bottom: int

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """The part of (H, W, ...) inside."""
        return picture[self.top : self.bottom, self.left : self.right]


def box_around(points: F32Array, margin: float, size_px: int) -> Box:
    """The box of `points` (n, 2), widened by `margin` of its size, within a square picture; never empty."""
    low, high = points.min(0), points.max(0)
    room = (high - low) * margin
    left, top = np.clip(np.floor(low - room), 0, size_px - 1).astype(int).tolist()
    right, bottom = np.clip(np.ceil(high + room), [left + 1, top + 1], size_px).astype(int).tolist()
    return Box(left, top, right, bottom)


def mouth_box(landmarks: F32Array, size_px: int) -> Box:
    """Lips and their surroundings."""
    return box_around(landmarks[LIPS], MOUTH_MARGIN, size_px)


def l1(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of uint8 pictures, where white is 1."""
    return float(np.abs(a.astype(np.float32) - b).mean()) / 255


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 pictures in dB, at most `MAX_PSNR_DB`."""
    error = float(np.square(a.astype(np.float32) - b).mean())
    return min(MAX_PSNR_DB, 10 * math.log10(255**2 / error)) if error else MAX_PSNR_DB


def ssim_map(a: U8Image, b: U8Image) -> F32Array:
    """Structural similarity around every pixel, (H, W) float32, with the window of Wang et al."""
    _, full = structural_similarity(
        a,
        b,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=SSIM_SIGMA_PX,
        use_sample_covariance=False,
        full=True,
    )
    return np.asarray(full.mean(2), np.float32)


def face_width(landmarks: F32Array) -> float:
    """How far both sides of the face are apart, in the unit of the landmarks (478, 2)."""
    return float(np.linalg.norm(landmarks[FACE_SIDES[0]] - landmarks[FACE_SIDES[1]]))


def landmark_distance(found: F32Array, wanted: F32Array, chosen: list[int] | None = None) -> float:
    """LMD: mean distance of landmarks (478, 2), or of the `chosen` ones, in % of the wanted face's width."""
    distance = np.linalg.norm(found - wanted, axis=1)
    return 100 * float(distance[chosen].mean() if chosen else distance.mean()) / face_width(wanted)
