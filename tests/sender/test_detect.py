import numpy as np
import pytest

from sender.detect import LONGEST_GAP_MS, Detector
from tests.fakes import FakeRuntime, grey_picture, make_crop, still_keypoints


def test_the_detector_looks_at_the_crop() -> None:
    keypoints = Detector(FakeRuntime()).keypoints(make_crop(grey=255))  # type: ignore[arg-type]
    assert np.allclose(keypoints.values[:, 0], 1.0)


def test_each_look_goes_on_from_the_one_before_beside_the_same_keyframe_and_after_no_gap() -> None:
    runtime = FakeRuntime()
    detector = Detector(runtime)  # type: ignore[arg-type]
    one, other = (detector.hold(grey_picture(grey), still_keypoints(), None) for grey in (50, 60))
    detector.beside(one, make_crop(0, 100))
    detector.beside(one, make_crop(40, 110))
    detector.beside(other, make_crop(80, 120))
    detector.beside(other, make_crop(80 + LONGEST_GAP_MS, 130))
    detector.beside(other, make_crop(81 + 2 * LONGEST_GAP_MS, 140))
    begun = [None if last is None else float(last.keypoints.values[0, 0]) for last in runtime.went_on_from]
    assert begun == [None, pytest.approx(100 / 127.5 - 1), None, pytest.approx(120 / 127.5 - 1), None]
