"""Sets of pictures compared, and what is left out of them."""

import numpy as np
import pytest

from models.metrics.frechet import frechet_distance
from models.metrics.sets import Features, SetJudge, compare_sets, join

A, B = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)


def test_sets_are_compared_by_every_network_that_both_have() -> None:
    expected = frechet_distance(A, B)
    assert compare_sets(Features(A), Features(B, B)) == {"fd_effnet": expected}
    both = compare_sets(Features(A, B), Features(B, A))
    assert both == {"fd_effnet": expected, "fid": pytest.approx(expected)}
    assert compare_sets(Features(A[:1]), Features(B)) == {}


def test_sets_are_joined() -> None:
    whole = join([Features(A, A), Features(B, B)])
    assert whole.effnet.shape == (10, 4)
    assert whole.inception is not None and np.array_equal(whole.inception[5:], B)
    assert join([Features(A), Features(B)]).inception is None


def test_without_syncnet_there_is_no_sync() -> None:
    judge = SetJudge()
    frames = np.zeros((6, 256, 256, 3), np.uint8)
    assert not judge.hears
    assert judge.sync(frames, [np.zeros((478, 2), np.float32)], np.ones(16000, np.int16)) == {}
    assert judge.features(frames[:2]).effnet.shape == (2, 1280)
