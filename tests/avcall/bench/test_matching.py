"""Sweeps and the search for a rate, on encoders that are formulas."""

import math
from collections.abc import Callable

import pytest

from avcall.bench.matching import TOLERANCE, Tried, is_matched, match_rate, sweep
from avcall.errors import InputError


def halving(every: float) -> Callable[[float], float]:
    """An encoder whose rate halves with `every` steps of quality; 5 kbit/s at 63."""
    return lambda quality: 5.0 * 2 ** ((63 - quality) / every)


def test_a_sweep_starts_at_the_lowest_rate_and_ends_above_60() -> None:
    points = list(sweep((63, 57, 51, 45, 39, 33, 27, 21), halving(6)))
    assert points[0] == Tried(63, 5.0)
    assert [point.quality for point in points[:4]] == [63, 57, 51, 45]
    assert points[-2].kbps < 60 <= points[-1].kbps


def test_a_sweep_does_not_waste_time_far_above_60() -> None:
    points = list(sweep((63, 51, 39, 27, 15), halving(6)))  # 39 gives 80 kbit/s
    assert [point.quality for point in points] == [63, 51, 40]
    assert 60 <= points[-1].kbps < 75


def test_a_sweep_ends_at_the_best_quality() -> None:
    assert [point.quality for point in sweep((63, 57, 51), halving(60))] == [63, 57, 51]


@pytest.mark.parametrize("target_kbps", [5.1, 9.7, 24.0, 47.0, 61.0])
def test_the_rate_is_met_within_three_percent(target_kbps: float) -> None:
    tries: list[float] = []

    def rate_at(quality: float) -> float:
        tries.append(quality)
        return 5.0 * 2 ** ((63 - quality) / (4 + quality / 20))  # not straight in the logarithm

    known = [Tried(quality, rate_at(quality)) for quality in (63, 51, 39)]
    tries.clear()
    found = match_rate(target_kbps, known, 20, rate_at)
    assert abs(found.kbps / target_kbps - 1) <= TOLERANCE
    assert is_matched(found, target_kbps)
    assert len(tries) <= 4


def test_a_known_point_that_matches_costs_no_try() -> None:
    found = match_rate(10.1, [Tried(50, 10.0), Tried(40, 20.0)], 20, lambda quality: pytest.fail("tried"))
    assert found.quality == 50


def test_an_encoder_of_whole_steps_gives_its_nearest() -> None:
    known = [Tried(63, 5.0), Tried(51, 20.0)]
    found = match_rate(10.6, known, 20, lambda quality: halving(6)(math.floor(quality)))
    assert not is_matched(found, 10.6)
    assert found.kbps == pytest.approx(10.0, rel=0.13)


def test_a_rate_out_of_reach_is_said_in_one_line() -> None:
    known = [Tried(63, 8.0), Tried(50, 30.0)]
    with pytest.raises(InputError, match=r"cannot go down to 5\.0 kbit/s: its lowest rate is 8\.0"):
        match_rate(5.0, known, 20, halving(6))
    with pytest.raises(InputError, match=r"cannot go up to 90\.0 kbit/s: its best quality takes 40\.0"):
        match_rate(90.0, known, 20, lambda quality: 40.0)
