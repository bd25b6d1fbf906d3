"""BD-rate against examples and a package of others, and curves in closed form."""

import math

import bjontegaard
import numpy as np
import pytest

from avcall.bench.rd import Bound, Curve, bd_rate, bits_ratio, crossover, curve_of, rate_for
from models.metrics.measures import Better

# The worked example that the reference package publishes (x265 presets), and the classic one that circulates
# with implementations of VCEG-M33.
EXAMPLES = {
    "x265": (
        [9487.76, 4593.60, 2486.44, 1358.24],
        [40.037, 38.615, 36.845, 34.851],
        [9787.80, 4469.00, 2451.52, 1356.24],
        [40.121, 38.651, 36.970, 34.987],
        -4.4175,
    ),
    "VCEG-M33": (
        [686.76, 309.58, 157.11, 85.95],
        [40.28, 37.18, 34.24, 31.42],
        [893.34, 407.8, 204.93, 112.75],
        [40.39, 37.21, 34.17, 31.24],
        31.3799,
    ),
}


def higher(rates: list[float], values: list[float | None]) -> Curve:
    return curve_of(rates, values, Better.HIGHER)


@pytest.mark.parametrize("name", EXAMPLES)
def test_bd_rate_of_worked_examples(name: str) -> None:
    anchor_rates, anchor, test_rates, test, expected = EXAMPLES[name]
    ours = bd_rate(higher(anchor_rates, anchor), higher(test_rates, test))  # type: ignore[arg-type]
    theirs = bjontegaard.bd_rate(anchor_rates, anchor, test_rates, test, method="pchip")
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert ours == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("factor", [0.25, 0.8, 1.0, 3.0])
def test_bd_rate_of_a_scaled_curve_is_the_scale(factor: float) -> None:
    rates = [10.0, 17.0, 30.0, 60.0]
    values: list[float | None] = [28.0, 31.0, 33.0, 34.5]
    scaled = higher([rate * factor for rate in rates], values)
    assert bd_rate(higher(rates, values), scaled) == pytest.approx((factor - 1) * 100)


def test_bd_rate_is_the_same_for_a_metric_that_is_better_when_lower() -> None:
    up = bd_rate(higher([10, 20, 40], [1, 2, 3]), higher([8, 15, 35], [1.1, 2.1, 2.9]))
    down = bd_rate(
        curve_of([10, 20, 40], [-1, -2, -3], Better.LOWER),
        curve_of([8, 15, 35], [-1.1, -2.1, -2.9], Better.LOWER),
    )
    assert up == pytest.approx(down)


def test_bd_rate_does_not_extrapolate() -> None:
    low, high = higher([10, 20], [20, 25]), higher([30, 40], [26, 30])
    assert bd_rate(low, high) is None
    assert bd_rate(low, higher([10], [22])) is None
    assert bd_rate(low, higher([], [])) is None


def test_bd_rate_looks_at_the_overlap_only() -> None:
    # log rate = quality on both, shifted by a factor of two; the test's curve goes on where the anchor ends.
    anchor = higher([math.exp(q) for q in (1, 2, 3)], [1, 2, 3])
    test = higher([2 * math.exp(q) for q in (2, 3, 4, 5)], [2, 3, 4, 5])
    assert bd_rate(anchor, test) == pytest.approx(100.0)


def test_a_curve_keeps_what_is_worth_its_bits() -> None:
    curve = curve_of([30, 10, 20, 40, 15], [33.0, 28.0, 27.0, None, math.nan], Better.HIGHER)
    assert curve.rates.tolist() == [10, 30] and curve.quality.tolist() == [28, 33]
    with pytest.raises(ValueError, match="positive"):
        higher([0.0], [1.0])


def test_the_rate_for_a_quality_on_a_straight_line() -> None:
    curve = higher([math.exp(1), math.exp(2), math.exp(4)], [10, 20, 40])
    found = rate_for(curve, 30.0)
    assert found is not None and found.bound is Bound.EXACT
    assert found.value == pytest.approx(math.exp(3))
    ratio = bits_ratio(curve, 30.0, math.exp(2))
    assert ratio is not None and ratio.value == pytest.approx(math.e)
    assert str(ratio) == "2.72"


def test_a_quality_beyond_the_curve_is_a_bound() -> None:
    curve = curve_of([10, 60], [0.5, 0.2], Better.LOWER)
    never, always = rate_for(curve, 0.1), rate_for(curve, 0.6)
    assert never is not None and (never.value, never.bound) == (60, Bound.ABOVE)
    assert always is not None and (always.value, always.bound) == (10, Bound.BELOW)
    assert str(bits_ratio(curve, 0.1, 12.0)) == "> 5.00"
    assert rate_for(curve_of([], [], Better.LOWER), 0.1) is None


def test_curves_cross_where_they_do() -> None:
    rates = np.geomspace(5, 60, 12).tolist()
    ours = higher([6.0, 12.0], [29.0, 30.0])
    theirs = higher(rates, [20 + 5 * math.log(rate / 5) for rate in rates])
    found = crossover(ours, theirs)
    assert found is not None and found.bound is Bound.EXACT
    assert found.value == pytest.approx(5 * math.exp(2), rel=0.01)  # there theirs reaches our last 30


def test_a_crossover_outside_the_measured_rates_is_a_bound() -> None:
    ours = higher([10, 20], [30, 31])
    always = crossover(ours, higher([5, 60], [32, 40]))
    never = crossover(ours, higher([5, 60], [20, 25]))
    assert always is not None and (always.value, always.bound) == (10, Bound.BELOW)
    assert never is not None and (never.bound, never.value) == (Bound.ABOVE, pytest.approx(60))
    assert crossover(ours, higher([2, 8], [10, 20])) is None  # ends before ours begins
    assert crossover(ours, higher([], [])) is None
