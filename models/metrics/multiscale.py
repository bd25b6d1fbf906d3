"""MS-SSIM (Wang, Simoncelli and Bovik 2003) and temporal flicker."""

import cv2
import numpy as np
from numpy.typing import NDArray

from avcall.types import U8Image

F64 = NDArray[np.float64]
WINDOW_PX, SIGMA_PX = 11, 1.5
K1, K2, PEAK = 0.01, 0.03, 255.0
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # section 3.2 of the paper
MIN_SIDE_PX = (WINDOW_PX - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1


def ms_ssim(a: U8Image, b: U8Image) -> float:
    """MS-SSIM of pictures (H, W, 3) uint8, over colour channels by the mean; 1 for the same picture.

    Contrast terms below 0 count as 0. Raises ValueError for a side under 161 pixels.
    """
    if min(a.shape[:2]) < MIN_SIDE_PX:
        raise ValueError(f"MS-SSIM needs {MIN_SIDE_PX} pixels a side, not {a.shape[:2]}")
    x, y = a.astype(np.float64), b.astype(np.float64)
    product = np.ones(x.shape[2])
    for scale, weight in enumerate(SCALE_WEIGHTS):
        luminance, contrast = _terms(x, y)
        last = scale == len(SCALE_WEIGHTS) - 1
        term = (luminance * contrast if last else contrast).mean((0, 1))
        product *= np.maximum(term, 0.0) ** weight
        if not last:
            x, y = _halved(x), _halved(y)
    return float(product.mean())


def flicker(frames: U8Image, wanted: U8Image) -> float:
    """How differently two clips (frames, H, W, 3) uint8 change from frame to frame, where white is 1.

    Mean absolute difference of their changes: 0 when they differ by anything that stands still.
    """
    change = np.diff(frames.astype(np.float32), axis=0)
    return float(np.abs(change - np.diff(wanted.astype(np.float32), axis=0)).mean() / PEAK)


def _terms(x: F64, y: F64) -> tuple[F64, F64]:
    """Luminance and contrast-structure of SSIM around every pixel whose window is whole."""
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x = _blurred(x * x) - mean_x**2
    var_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * covariance + c2) / (var_x + var_y + c2)


def _blurred(picture: F64) -> F64:
    edge = WINDOW_PX // 2
    blurred = cv2.GaussianBlur(picture, (WINDOW_PX, WINDOW_PX), SIGMA_PX)
    return np.asarray(blurred[edge:-edge, edge:-edge])


def _halved(picture: F64) -> F64:
    """The mean of 2x2 pixels; an odd last row or column is left out."""
    height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    even = picture[:height, :width]
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
