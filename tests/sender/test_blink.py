"""Keyframes are not taken in a blink, and nobody waits for ever."""

import pytest

from sender.blink import HISTORY, PATIENCE, OpenEyes
from tests.fakes import open_eyed_landmarks


def allowed(eyes: OpenEyes, openness: float) -> bool:
    eyes.see(open_eyed_landmarks(openness))
    return eyes.allow()


def test_open_eyes_are_taken_at_once() -> None:
    assert allowed(OpenEyes(), 0.3)


@pytest.mark.parametrize("openness", [0.05, 0.12])
def test_a_call_that_begins_in_a_blink_waits_for_its_end(openness: float) -> None:
    eyes = OpenEyes()
    assert not allowed(eyes, openness)
    assert allowed(eyes, 0.3)


def test_half_closed_is_measured_by_the_persons_own_eyes() -> None:
    narrow, wide = OpenEyes(), OpenEyes()
    for _ in range(HISTORY):
        narrow.see(open_eyed_landmarks(0.18))
        wide.see(open_eyed_landmarks(0.36))
    assert allowed(narrow, 0.18)
    assert not allowed(wide, 0.18)


def test_who_looks_down_for_long_is_taken_so_and_every_keyframe_waits_anew() -> None:
    eyes = OpenEyes()
    for _ in range(2):
        assert [allowed(eyes, 0.1) for _ in range(PATIENCE + 1)] == [False] * PATIENCE + [True]
