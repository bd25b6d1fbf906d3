"""The arithmetic of the measures, on inputs whose value is known."""

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from models.metrics.picture import (
    FACE_SIDES,
    LIPS,
    MAX_PSNR_DB,
    Box,
    box_around,
    l1,
    landmark_distance,
    mouth_box,
    psnr,
    ssim_map,
)
from tests.models.tiny import landmarks

NOISE = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)


def flat(level: int) -> np.ndarray:
    return np.full((32, 32, 3), level, np.uint8)


def test_l1_has_white_at_one() -> None:
    assert l1(flat(255), flat(0)) == pytest.approx(1)
    assert l1(flat(0), flat(51)) == pytest.approx(0.2)  # and uint8 does not wrap


def test_psnr_of_a_known_error() -> None:
    assert psnr(flat(100), flat(110)) == pytest.approx(20 * math.log10(255 / 10))
    assert psnr(flat(110), flat(100)) == psnr(flat(100), flat(110))
    assert psnr(NOISE, NOISE) == MAX_PSNR_DB


def test_ssim_is_one_for_the_same_picture_and_agrees_with_its_library() -> None:
    assert ssim_map(NOISE, NOISE).mean() == pytest.approx(1)
    other = np.clip(NOISE.astype(int) + 30, 0, 255).astype(np.uint8)
    whole = structural_similarity(
        NOISE, other, channel_axis=2, data_range=255, gaussian_weights=True, use_sample_covariance=False
    )
    inner = ssim_map(NOISE, other)[5:-5, 5:-5]  # the library leaves out half a window at the border
    assert inner.mean() == pytest.approx(whole, abs=1e-5)


def test_a_box_holds_its_points_with_a_margin_inside_the_picture() -> None:
    points = np.array([[10.0, 20.0], [30.0, 24.0]], np.float32)
    assert box_around(points, 0, 64) == Box(10, 20, 30, 24)
    assert box_around(points, 0.5, 64) == Box(0, 18, 40, 26)
    assert box_around(points - 500, 0, 64) == Box(0, 0, 1, 1)
    assert box_around(points + 500, 0, 64) == Box(63, 63, 64, 64)
    assert Box(1, 2, 4, 6).cut(np.zeros((10, 10, 3))).shape == (4, 3, 3)


def test_the_mouth_box_follows_the_lips() -> None:
    points = landmarks()
    points[LIPS] = np.linspace((100, 160), (150, 190), len(LIPS))
    assert mouth_box(points, 256) == Box(80, 148, 170, 202)


def test_landmark_distance_is_in_percent_of_the_face() -> None:
    wanted = landmarks()
    wanted[list(FACE_SIDES)] = (50, 128), (200, 128)  # 150 pixels wide
    found = wanted + np.float32([3, 4])  # 5 pixels off
    assert landmark_distance(found, wanted) == pytest.approx(100 * 5 / 150, rel=1e-4)
    found = wanted.copy()
    found[LIPS] += np.float32([0, 1.5])
    assert landmark_distance(found, wanted, LIPS) == pytest.approx(1, rel=1e-4)
    assert landmark_distance(found, wanted) == pytest.approx(len(LIPS) / 478, rel=1e-4)
