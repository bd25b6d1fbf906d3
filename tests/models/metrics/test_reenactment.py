"""Motion of a photo against its driver's, and whose face it is."""

import numpy as np
import pytest

from models.metrics.judge import Face
from models.metrics.reenactment import compare_driven, motion_distance

POINTS = np.random.default_rng(0).uniform(0, 100, (478, 2)).astype(np.float32)


def face(shift: float, identity: float) -> Face:
    return Face(POINTS + np.float32(shift), np.full(128, identity))


def test_motion_is_measured_in_widths_of_its_own_face() -> None:
    face = POINTS
    larger = face * 2
    assert motion_distance([larger, larger + 20], [face, face + 10]) == pytest.approx(0.0, abs=1e-4)
    width = float(np.linalg.norm(face[234] - face[454]))
    still = motion_distance([face, face, None], [face, face + np.array([3, 4]), face])
    assert still == pytest.approx(100 * 5 / width, rel=1e-4)
    assert motion_distance([None, face], [face, face]) is None
    assert motion_distance([face], [face]) is None


def test_a_driven_photo_is_compared_with_itself_and_with_the_drivers_motion() -> None:
    driving: list[Face | None] = [face(0, 5), face(10, 5), face(0, 5)]
    values = compare_driven([face(0, 0), face(10, 1), None], driving, face(0, 0))
    assert values["lmd"] == pytest.approx(0.0, abs=1e-4)
    assert values["aed"] == pytest.approx((0 + 128**0.5) / 2)
    assert values["face_lost"] == pytest.approx(1 / 3)
    assert compare_driven([None, None], driving[:2], face(0, 0)) == {"face_lost": 1.0}
