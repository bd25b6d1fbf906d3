"""MS-SSIM against pytorch-msssim, flicker in closed form."""

import cv2
import numpy as np
import pytest
import pytorch_msssim
import torch
from skimage import data

from avcall.types import U8Image
from models.metrics.multiscale import MIN_SIDE_PX, flicker, ms_ssim


@pytest.fixture(scope="module")
def portrait() -> U8Image:
    """A photograph of a face, (256, 256, 3)."""
    return np.ascontiguousarray(data.astronaut()[:256, 100:356])


def theirs(a: U8Image, b: U8Image) -> float:
    x, y = (torch.from_numpy(p).permute(2, 0, 1)[None].double() for p in (a, b))
    return float(pytorch_msssim.ms_ssim(x, y, data_range=255))


def test_ms_ssim_agrees_with_pytorch_msssim(portrait: U8Image) -> None:
    noise = np.random.default_rng(0).normal(0, 20, portrait.shape)
    changed = {
        "noise": np.clip(portrait + noise, 0, 255).astype(np.uint8),
        "blur": cv2.GaussianBlur(portrait, (0, 0), 3),
        "shift": np.roll(portrait, 4, axis=1),
        "darker": (portrait * 0.6).astype(np.uint8),
    }
    for picture in changed.values():
        assert ms_ssim(picture, portrait) == pytest.approx(theirs(picture, portrait), abs=1e-4)


def test_ms_ssim_of_the_same_picture_is_one(portrait: U8Image) -> None:
    assert ms_ssim(portrait, portrait) == pytest.approx(1.0)


def test_ms_ssim_needs_161_pixels() -> None:
    small = np.zeros((MIN_SIDE_PX - 1, 200, 3), np.uint8)
    with pytest.raises(ValueError, match="161"):
        ms_ssim(small, small)


def test_flicker_is_blind_to_what_stands_still_and_sees_what_jumps() -> None:
    wanted = np.tile(np.arange(10, dtype=np.uint8)[:, None, None, None] * 5, (1, 8, 8, 3))
    assert flicker(wanted + 30, wanted) == 0.0
    jumping = wanted.copy()
    jumping[::2] += 51  # every change is off by 51 of 255
    assert flicker(jumping, wanted) == pytest.approx(51 / 255)
