"""The priors of a crop: what is drawn, and what a picture without a face gives."""

from collections.abc import Iterator

import numpy as np
import pytest

from avcall.types import F32Array
from models.priors import (
    FACE_OVAL,
    LEFT_EYE,
    LIPS_INNER,
    LIPS_OUTER,
    NUM_LANDMARKS,
    REGIONS,
    RIGHT_EYE,
    PriorExtractor,
    draw_mesh,
)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], count: int) -> F32Array:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([centre[0] + radii[0] * np.cos(angle), centre[1] + radii[1] * np.sin(angle)], 1)


def make_face(mouth_px: float = 12.0, eye_px: float = 8.0) -> F32Array:
    """Landmarks of a schematic face; every other point sits at its centre."""
    points = np.full((NUM_LANDMARKS, 2), 128.0, np.float32)
    points[FACE_OVAL] = ellipse((128, 128), (70, 90), len(FACE_OVAL))
    points[LIPS_OUTER] = ellipse((128, 180), (30, mouth_px + 8), len(LIPS_OUTER))
    points[LIPS_INNER] = ellipse((128, 180), (24, mouth_px), len(LIPS_INNER))
    points[LEFT_EYE] = ellipse((160, 100), (14, eye_px), len(LEFT_EYE))
    points[RIGHT_EYE] = ellipse((96, 100), (14, eye_px), len(RIGHT_EYE))
    return points


def test_every_region_is_one_outline_that_names_each_landmark_once() -> None:
    for ring, brightness in REGIONS:
        assert len(set(ring)) == len(ring) >= 4
        assert all(0 <= index < NUM_LANDMARKS for index in ring)
        assert 0 < brightness <= 255


def test_the_face_is_drawn_where_the_landmarks_are() -> None:
    mesh = draw_mesh(make_face())
    assert mesh.shape == (64, 64)
    assert mesh.dtype == np.uint8
    assert mesh[180 // 4, 128 // 4] == 255  # inside the mouth
    assert mesh[100 // 4, 160 // 4] > 180  # an eye
    assert 60 <= mesh[140 // 4, 80 // 4] <= 80  # a cheek
    assert mesh[0, 0] == mesh[63, 63] == 0


def brightness(mesh: np.ndarray, rows: slice, columns: slice) -> float:
    return float(mesh[rows, columns].astype(float).sum())


def test_an_opening_that_grows_by_half_a_raster_pixel_shows_as_brightness() -> None:
    mouth = slice(38, 53), slice(22, 42)
    eye = slice(20, 31), slice(34, 46)
    levels = [brightness(draw_mesh(make_face(mouth_px=h)), *mouth) for h in (1.0, 2.0, 4.0, 6.0)]
    assert all(np.diff(levels) > 100)
    levels = [brightness(draw_mesh(make_face(eye_px=h)), *eye) for h in (1.0, 2.0, 4.0, 6.0)]
    assert all(np.diff(levels) > 100)


def test_half_a_picture_pixel_of_motion_moves_the_raster() -> None:
    assert not np.array_equal(draw_mesh(make_face()), draw_mesh(make_face() + np.float32(0.5)))


@pytest.mark.parametrize("shift", [1e4, -1e4, 1e8])
def test_landmarks_far_outside_draw_nothing(shift: float) -> None:
    assert not draw_mesh(make_face() + np.float32(shift)).any()


@pytest.fixture(scope="module")
def extractor() -> Iterator[PriorExtractor]:
    with PriorExtractor(tracking=False) as made:
        yield made


def test_a_blank_picture_has_no_landmarks_and_an_empty_mesh(extractor: PriorExtractor) -> None:
    priors = extractor.extract(np.full((256, 256, 3), 128, np.uint8))
    assert priors.landmarks is None
    assert not priors.mesh.any()
    assert priors.mask.shape == (64, 64)
    assert priors.mask.dtype == np.uint8
    assert extractor.faces(np.zeros((120, 200, 3), np.uint8)) == []
