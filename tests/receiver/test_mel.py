import numpy as np
import pytest

from avcall.types import Pcm
from models.mel import mel_window
from receiver.mel import KEPT_SAMPLES, MelWindows
from tests.clips import tone


def speech(seed: int, duration_ms: int) -> Pcm:
    samples = duration_ms * 16
    return np.random.default_rng(seed).integers(-8000, 8000, samples).astype(np.int16)


def expected(pcm: Pcm, pts_ms: int) -> np.ndarray:
    return mel_window(pcm, (pts_ms + 20) * 16)


def test_before_any_speech_there_is_nothing_to_go_by() -> None:
    window, known = MelWindows().window(0)
    assert window.shape == (80, 16) and not window.any() and not known


def test_the_window_is_centred_on_the_middle_of_the_picture() -> None:
    windows, pcm = MelWindows(), speech(1, 1000)
    for start_ms in range(0, 1000, 20):
        windows.push(pcm[start_ms * 16 : start_ms * 16 + 320], start_ms)
    for pts_ms in (0, 40, 500, 960):
        window, known = windows.window(pts_ms)
        assert known and np.allclose(window, expected(pcm, pts_ms))


def test_a_gap_is_silence() -> None:
    windows, pcm = MelWindows(), speech(1, 600)
    pcm[200 * 16 : 400 * 16] = 0
    windows.push(pcm[: 200 * 16], 0)
    windows.push(pcm[400 * 16 :], 400)
    assert np.allclose(windows.window(280)[0], expected(pcm, 280))


def test_what_is_pushed_again_replaces_what_was_there() -> None:
    windows, old, new = MelWindows(), speech(1, 600), speech(2, 400)
    windows.push(old, 0)
    windows.push(new, 200)
    whole = np.concatenate([old[: 200 * 16], new])
    for pts_ms in (100, 200, 400):
        assert np.allclose(windows.window(pts_ms)[0], expected(whole, pts_ms))


def test_only_the_last_seconds_are_kept() -> None:
    windows = MelWindows()
    for start_ms in range(0, 10_000, 40):
        windows.push(tone(440, 40), start_ms)
    assert len(windows._pcm) == KEPT_SAMPLES
    assert windows.window(9000)[0].any()
    assert not windows.window(2000)[0].any()


@pytest.mark.parametrize("pts_ms", [3_600_000, 0])
def test_another_timeline_starts_anew(pts_ms: int) -> None:
    windows, pcm = MelWindows(), speech(3, 400)
    windows.push(speech(1, 400), 100_000)
    windows.push(pcm, pts_ms)
    quiet = np.concatenate([np.zeros(pts_ms and 400 * 16, np.int16), pcm])
    assert np.allclose(windows.window(pts_ms + 100)[0], expected(quiet, 100 + (400 if pts_ms else 0)))
    assert len(windows._pcm) == 400 * 16


def test_a_window_past_the_end_of_speech_is_partly_silent() -> None:
    windows, pcm = MelWindows(), speech(1, 400)
    windows.push(pcm, 0)
    assert np.allclose(windows.window(380)[0], expected(pcm, 380))
    assert not windows.window(5000)[0].any()
