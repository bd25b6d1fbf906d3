"""Concealment: what is made up must go on from what was real, and then let go."""

from itertools import pairwise

import numpy as np
import pytest

from avcall.bitstream.motion import MotionMode, decode, encode
from avcall.types import Keypoints
from receiver.conceal import FADE_SAMPLES, HOLD_SAMPLES, conceal_audio, conceal_motion, crossfade
from tests.clips import tone
from tests.units import make_keypoints


@pytest.mark.parametrize("hz", [90, 125, 200, 310])
def test_a_steady_voice_goes_on(hz: int) -> None:
    whole = tone(hz, 120)
    history, expected = whole[:1600], whole[1600:1760]
    made_up = conceal_audio(history, 160)
    assert np.abs(made_up.astype(int) - expected).max() < 0.2 * 8000


def test_a_long_gap_fades_once_whatever_its_pieces() -> None:
    history = tone(150, 100)
    whole = conceal_audio(history, 1920)
    pieces = [conceal_audio(history, 640, concealed) for concealed in (0, 640, 1280)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert np.abs(whole[:HOLD_SAMPLES]).max() > 7000
    assert not whole[HOLD_SAMPLES + FADE_SAMPLES :].any()


@pytest.mark.parametrize("samples", [0, 1, 10, 100, 400])
def test_a_short_history_is_enough(samples: int) -> None:
    history = tone(150, 100)[:samples]
    made_up = conceal_audio(history, 640)
    assert made_up.shape == (640,)
    assert made_up.dtype == np.int16


def test_silence_stays_silent() -> None:
    assert not conceal_audio(np.zeros(1600, np.int16), 640).any()


def test_crossfade_moves_from_one_to_the_other() -> None:
    mixed = crossfade(np.full(80, 1000, np.int16), np.full(640, -1000, np.int16))
    assert mixed.shape == (640,)
    assert mixed[0] > 950
    assert mixed[79] < -950
    assert (np.diff(mixed[:80].astype(int)) < 0).all()
    assert (mixed[80:] == -1000).all()


def shifted(keypoints: Keypoints, by: float) -> Keypoints:
    return Keypoints(values=keypoints.values + np.float32(by), jacobians=keypoints.jacobians)


def test_motion_without_a_past_is_held() -> None:
    last = make_keypoints()
    assert conceal_motion(last, None, 3) is last


def test_motion_goes_on_ever_slower_and_stops_within_a_step() -> None:
    before = make_keypoints()
    last = shifted(before, 0.04)
    moves = [float((conceal_motion(last, before, n).values - last.values).mean()) for n in range(30)]
    assert moves[0] == pytest.approx(0)
    assert moves[1] == pytest.approx(0.02, rel=1e-3)
    assert all(0 < late - early < 0.0201 for early, late in pairwise(moves[:9]))
    assert moves[-1] < 0.0401


def test_concealed_motion_is_motion_that_the_wire_allows() -> None:
    before = make_keypoints(1)
    edge = Keypoints(values=np.full((10, 2), 1.49, np.float32), jacobians=before.jacobians)
    concealed = conceal_motion(edge, before, 5)
    assert np.array_equal(concealed.jacobians, edge.jacobians)
    assert np.abs(concealed.values).max() <= 1.5
    decode(MotionMode.FP16, encode(MotionMode.FP16, concealed))
