"""Rate-distortion curves: BD-rate, the rate that reaches a quality, and where two curves cross.

BD-rate follows Bjontegaard (VCEG-M33, 2001) with the piecewise cubic (PCHIP) interpolation that JVET's common
test conditions use (JCTVC-L1100): log rate as a function of quality, integrated over the qualities that both
curves reach. Nothing is extrapolated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from models.metrics.measures import Better

F64 = NDArray[np.float64]
MIN_CURVE_POINTS = 2  # with two, the interpolation is a straight line


class Bound(Enum):
    """What a number stands for: itself, or only a bound of it because the curve ends there."""

    EXACT = "="
    ABOVE = ">"
    BELOW = "<"


@dataclass(frozen=True, slots=True)
class Reading:
    """A number read off a curve."""

    value: float
    bound: Bound = Bound.EXACT

    def __str__(self) -> str:
        sign = "" if self.bound is Bound.EXACT else f"{self.bound.value} "
        return f"{sign}{self.value:.2f}" if self.value < 100 else f"{sign}{self.value:.0f}"


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of one codec that are worth having: by rising rate, each better than all cheaper ones.

    `rates` in kbit/s and `quality` (higher is better, whatever the metric's sense was) are (points,).
    """

    rates: F64
    quality: F64
    better: Better

    @property
    def enough(self) -> bool:
        """Whether there is anything to interpolate."""
        return len(self.rates) >= MIN_CURVE_POINTS


def curve_of(rates: Sequence[float], values: Sequence[float | None], better: Better) -> Curve:
    """The curve through measured points; a point that costs more and is no better than another is dropped.

    `values` that are None or NaN were not measured. Raises ValueError for a rate that is not positive.
    """
    pairs = [
        (rate, value * better.value)
        for rate, value in zip(rates, values, strict=True)
        if value is not None and not math.isnan(value)
    ]
    if any(rate <= 0 for rate, _ in pairs):
        raise ValueError("a rate must be positive")
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(pairs, key=lambda pair: (pair[0], -pair[1])):
        if not kept or quality > kept[-1][1]:
            kept.append((rate, quality))
    return Curve(np.array([r for r, _ in kept]), np.array([q for _, q in kept]), better)


def bd_rate(anchor: Curve, test: Curve) -> float | None:
    """Average difference of rate at equal quality, in percent of the anchor; below 0, `test` needs less.

    None when the curves share no range of quality, or one has a single point: that is not extrapolated.
    """
    if not (anchor.enough and test.enough):
        return None
    low = max(anchor.quality[0], test.quality[0])
    high = min(anchor.quality[-1], test.quality[-1])
    if high <= low:
        return None
    areas = [_log_rate(curve).integrate(low, high) for curve in (anchor, test)]
    return float((math.exp((areas[1] - areas[0]) / (high - low)) - 1) * 100)


def rate_for(curve: Curve, value: float) -> Reading | None:
    """The rate in kbit/s at which the curve reaches the metric `value`.

    A bound where the curve ends before: ABOVE its last rate when it never gets there, BELOW its first when it
    is better from the start. None for an empty curve.
    """
    if not len(curve.rates):
        return None
    quality = value * curve.better.value
    if quality > curve.quality[-1]:
        return Reading(float(curve.rates[-1]), Bound.ABOVE)
    if quality < curve.quality[0]:
        return Reading(float(curve.rates[0]), Bound.BELOW)
    if not curve.enough:
        return Reading(float(curve.rates[0]))
    return Reading(float(np.exp(_log_rate(curve)(quality))))


def bits_ratio(curve: Curve, value: float, rate_kbps: float) -> Reading | None:
    """How many times `rate_kbps` the curve needs to reach the metric `value`."""
    needed = rate_for(curve, value)
    return None if needed is None else Reading(needed.value / rate_kbps, needed.bound)


def crossover(ours: Curve, theirs: Curve) -> Reading | None:
    """The rate in kbit/s from which `theirs` is at least as good as `ours`.

    Ours may always spend fewer bits than there are, so above its last point its quality stays. BELOW the
    first common rate when theirs is better from there on; ABOVE its last when it never is. None when one of
    them is empty, or theirs ends before ours begins.
    """
    if not len(ours.rates) or not len(theirs.rates):
        return None
    start = max(ours.rates[0], theirs.rates[0])
    if theirs.rates[-1] < start:
        return None
    rates = np.geomspace(start, theirs.rates[-1], 2_000)
    behind = np.flatnonzero(_quality_at(theirs, rates) < _quality_at(ours, rates))
    if not len(behind):
        return Reading(float(start), Bound.BELOW)
    if behind[-1] == len(rates) - 1:
        return Reading(float(rates[-1]), Bound.ABOVE)
    return Reading(float(rates[behind[-1] + 1]))


def _log_rate(curve: Curve) -> PchipInterpolator:
    """Log rate by quality."""
    return PchipInterpolator(curve.quality, np.log(curve.rates), extrapolate=False)


def _quality_at(curve: Curve, rates: F64) -> F64:
    """Quality of the best point or blend at most at each of `rates`, all from the curve's first on."""
    if not curve.enough:
        return np.full(len(rates), curve.quality[0])
    clamped = np.log(np.clip(rates, curve.rates[0], curve.rates[-1]))
    result: F64 = PchipInterpolator(np.log(curve.rates), curve.quality)(clamped)
    return result
