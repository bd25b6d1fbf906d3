"""Relative transfer of motion: what the driver does, the photo does, from where it is."""

import numpy as np

from avcall.bitstream.motion import check
from avcall.types import Keypoints
from models.retarget import Retarget
from tests.fakes import still_keypoints
from tests.units import make_keypoints


def test_the_first_pose_of_the_driver_is_the_pose_of_the_photo() -> None:
    photo, driver = make_keypoints(1), make_keypoints(2)
    posed = Retarget(photo).apply(driver)
    assert np.allclose(posed.values, photo.values, atol=1e-6)
    assert np.allclose(posed.jacobians, photo.jacobians, atol=1e-5)


def test_a_movement_of_the_driver_is_carried_over() -> None:
    retarget = Retarget(make_keypoints(1))
    start = still_keypoints(0.1)
    retarget.apply(start)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]], np.float32)
    moved = Keypoints(start.values + np.float32(0.2), turn @ start.jacobians)
    posed = retarget.apply(moved)
    assert np.allclose(posed.values, make_keypoints(1).values + 0.2, atol=1e-6)
    assert np.allclose(posed.jacobians, turn @ make_keypoints(1).jacobians, atol=1e-5)


def test_a_singular_first_pose_does_not_end_the_call() -> None:
    retarget = Retarget(make_keypoints(1))
    singular = Keypoints(np.zeros((10, 2), np.float32), np.zeros((10, 2, 2), np.float32))
    retarget.apply(singular)
    posed = retarget.apply(still_keypoints(0.1))
    assert np.isfinite(posed.values).all() and np.isfinite(posed.jacobians).all()


def test_a_first_pose_that_is_not_finite_does_not_last() -> None:
    retarget = Retarget(still_keypoints())
    retarget.apply(Keypoints(np.full((10, 2), np.nan, np.float32), np.full((10, 2, 2), np.nan, np.float32)))
    check(retarget.apply(still_keypoints(0.1)))
