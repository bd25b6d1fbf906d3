import numpy as np

from sender.detect import Detector
from tests.fakes import FakeRuntime, make_crop


def test_the_detector_looks_at_the_crop() -> None:
    keypoints = Detector(FakeRuntime()).keypoints(make_crop(grey=255))  # type: ignore[arg-type]
    assert np.allclose(keypoints.values[:, 0], 1.0)
