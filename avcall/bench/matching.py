"""Rates of an encoder that is steered by a quality: a sweep for the curve, a bisection for one rate."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from avcall.errors import InputError

TOLERANCE = 0.03
MAX_TRIES = 8
MAX_SWEEP_KBPS = 60.0
AIM = 1.1  # of that, for the last point of a sweep


@dataclass(frozen=True, slots=True)
class Tried:
    """A quality and the rate that it gave. A higher quality number is a lower rate, as QP and CRF are."""

    quality: float
    kbps: float


def sweep(qualities: Sequence[float], rate_at: Callable[[float], float]) -> Iterator[Tried]:
    """From the lowest rate that there is up to the first above 60 kbit/s, quality by quality.

    `qualities` fall. Where the next one would go far beyond, one in between is tried that should not: high
    rates take the longest to make.
    """
    tried: list[Tried] = []
    for planned in qualities:
        quality = _not_beyond(planned, tried)
        tried.append(Tried(quality, rate_at(quality)))
        yield tried[-1]
        if tried[-1].kbps >= MAX_SWEEP_KBPS:
            return


def match_rate(
    target_kbps: float, known: Iterable[Tried], best: float, rate_at: Callable[[float], float]
) -> Tried:
    """A quality whose rate is within 3 % of the target; the nearest of eight tries when there is none.

    A bisection that guesses by the logarithm of the rate, between the `known` neighbours of the target.
    Raises InputError when the lowest rate is above the target, or the best quality below it.
    """
    tried = sorted(known, key=lambda one: one.kbps)
    if tried[0].kbps > target_kbps * (1 + TOLERANCE):
        raise InputError(
            f"cannot go down to {target_kbps:.1f} kbit/s: its lowest rate is {tried[0].kbps:.1f} kbit/s"
        )
    if tried[-1].kbps < target_kbps:
        tried.append(Tried(best, rate_at(best)))
    if tried[-1].kbps < target_kbps * (1 - TOLERANCE):
        raise InputError(
            f"cannot go up to {target_kbps:.1f} kbit/s: its best quality takes {tried[-1].kbps:.1f} kbit/s"
        )
    for _ in range(MAX_TRIES):
        nearest = min(tried, key=lambda one: abs(math.log(one.kbps / target_kbps)))
        if abs(nearest.kbps / target_kbps - 1) <= TOLERANCE:
            return nearest
        guess = _between(tried, target_kbps)
        if any(math.isclose(guess, one.quality) for one in tried):
            return nearest
        tried.append(Tried(guess, rate_at(guess)))
        tried.sort(key=lambda one: one.kbps)
    return min(tried, key=lambda one: abs(math.log(one.kbps / target_kbps)))


def is_matched(tried: Tried, target_kbps: float) -> bool:
    """Whether the rate is within the tolerance."""
    return abs(tried.kbps / target_kbps - 1) <= TOLERANCE


def _not_beyond(planned: float, tried: list[Tried]) -> float:
    """The planned quality, or a whole one that should give `AIM` of the sweep's end where it gives more."""
    if len(tried) < 2:
        return planned
    before, last = tried[-2:]
    slope = math.log(last.kbps / before.kbps) / (before.quality - last.quality)
    if slope <= 0:
        return planned
    aimed = last.quality - math.log(MAX_SWEEP_KBPS * AIM / last.kbps) / slope
    return min(max(planned, float(math.floor(aimed))), last.quality - 1)


def _between(tried: list[Tried], target_kbps: float) -> float:
    """The quality that should give the target, by its neighbours in rate; kept off both ends."""
    below = [one for one in tried if one.kbps <= target_kbps]
    above = [one for one in tried if one.kbps > target_kbps]
    if not below or not above:  # within the tolerance of one end, which `match_rate` has found already
        return (below or above)[0].quality
    low, high = below[-1], above[0]
    share = math.log(target_kbps / low.kbps) / math.log(high.kbps / low.kbps)
    share = min(max(share, 0.05), 0.95)
    return low.quality + (high.quality - low.quality) * share
