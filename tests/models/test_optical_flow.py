"""Classical correspondences: a known movement is found, and what one frame alone shows is not trusted."""

import cv2
import numpy as np
import torch

from avcall.types import U8Image
from models.layers import pixel_grid
from models.optical_flow import FLOW_SIZE_PX, optical_flow


def texture() -> U8Image:
    """(256, 256, 3): blurred noise, which has something to hold on to everywhere."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 6)
    return cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def test_a_shift_is_found_in_both_directions() -> None:
    source = texture()
    shift_px = np.array(
        [12.0, -8.0], np.float32
    )  # the driving frame shows at z what the source has at z + shift
    driving = cv2.warpAffine(
        source,
        np.float32([[1, 0, -shift_px[0]], [0, 1, -shift_px[1]]]),
        (256, 256),
        borderMode=cv2.BORDER_REFLECT,
    )
    flow, sure = optical_flow(driving, source)
    grid = pixel_grid(FLOW_SIZE_PX, FLOW_SIZE_PX, torch.zeros(1)).numpy()
    inner = (slice(8, -8), slice(8, -8))
    moved_px = (flow - grid)[inner] * 128
    assert np.abs(np.median(moved_px, (0, 1)) - shift_px).max() < 0.5
    assert sure[inner].mean() > 0.7


def test_what_the_source_does_not_show_is_unsure() -> None:
    source = texture()
    driving = source.copy()
    driving[96:160, 96:160] = (255, 0, 255)
    _, sure = optical_flow(driving, source)
    assert sure[26:38, 26:38].max() < 0.1
    assert sure[:16].min() > 0.5
