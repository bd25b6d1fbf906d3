"""What the points say together: averages, BD-rates, the number that people quote, crossovers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from avcall.bench.rates import ACCOUNTINGS, Rates, rates_of
from avcall.bench.rd import Curve, Reading, bd_rate, bits_ratio, crossover, curve_of
from avcall.bench.store import Point, Role, Store
from avcall.stats import Bill
from models.metrics.measures import BY_KEY, Scores, mean_scores
from models.metrics.sets import compare_sets, join


@dataclass(frozen=True, slots=True)
class Average:
    """One codec at one setting, over all clips: rates and scores are means, distances of sets are pooled.

    `off_target` is the worst of the clips, `held` their sum.
    """

    codec: str
    setting: str
    role: Role
    rates: Rates
    scores: Scores
    encode_fps: float
    held: int
    clips: int
    off_target: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """avcall beside one anchor by one measure in one accounting.

    `ratio` says how many times avcall's bits the anchor needs for avcall's value, `crossover_kbps` from which
    rate on the anchor is at least as good, `bd_percent` the mean of the `bd_clips` clips whose curves overlap
    (below 0: avcall needs less).
    """

    codec: str
    anchor: str
    measure: str
    accounting: str
    value: float | None
    rate_kbps: float
    ratio: Reading | None
    crossover_kbps: Reading | None
    bd_percent: float | None
    bd_clips: int


@dataclass(frozen=True, slots=True)
class _Question:
    """By which measure, in which accounting."""

    key: str
    accounting: str


def averages(points: Sequence[Point], store: Store) -> list[Average]:
    """Every codec and setting over the clips that have it; a sweep that ended on a clip stays at its end."""
    clips = sorted({point.clip for point in points})
    found: list[Average] = []
    for codec in dict.fromkeys(point.codec for point in points):
        of_codec = [point for point in points if point.codec == codec]
        for role in Role:
            chosen = [point for point in of_codec if point.role is role]
            found += [_average(group, store) for group in _groups(chosen, clips)]
    return found


def clip_curve(points: Iterable[Point], codec: str, accounting: str, key: str) -> Curve:
    """The curve of one codec on one clip."""
    chosen = [point for point in points if point.codec == codec and point.role is Role.CURVE]
    return curve_of(
        [point.rates.named(accounting).kbps for point in chosen],
        [getattr(point.scores, key) for point in chosen],
        BY_KEY[key].better,
    )


def mean_curve(found: Iterable[Average], codec: str, accounting: str, key: str) -> Curve:
    """The curve of one codec over all clips."""
    chosen = [one for one in found if one.codec == codec and one.role is Role.CURVE]
    return curve_of(
        [one.rates.named(accounting).kbps for one in chosen],
        [getattr(one.scores, key) for one in chosen],
        BY_KEY[key].better,
    )


def verdicts(
    points: Sequence[Point],
    found: Sequence[Average],
    default: tuple[str, str],
    anchors: Sequence[str],
    keys: Sequence[str],
) -> list[Verdict]:
    """avcall's `default` codec and setting beside every anchor, measure by measure, in every accounting."""
    codec, setting = default
    ours = next((a for a in found if (a.codec, a.setting) == default), None)
    if ours is None:
        return []
    return [
        _verdict(points, found, ours, anchor, _Question(key, accounting))
        for anchor in anchors
        for key in keys
        for accounting in ACCOUNTINGS
        if getattr(ours.scores, key) is not None and (codec, setting) == default
    ]


def _verdict(
    points: Sequence[Point],
    found: Sequence[Average],
    ours: Average,
    anchor: str,
    question: _Question,
) -> Verdict:
    key, accounting = question.key, question.accounting
    value = getattr(ours.scores, key)
    rate_kbps = ours.rates.named(accounting).kbps
    theirs = mean_curve(found, anchor, accounting, key)
    mine = mean_curve(found, ours.codec, accounting, key)
    rates = [
        rate
        for clip in sorted({point.clip for point in points})
        if (rate := _clip_bd([p for p in points if p.clip == clip], ours.codec, anchor, question)) is not None
    ]
    return Verdict(
        codec=ours.codec,
        anchor=anchor,
        measure=key,
        accounting=accounting,
        value=value,
        rate_kbps=rate_kbps,
        ratio=bits_ratio(theirs, value, rate_kbps) if rate_kbps > 0 else None,
        crossover_kbps=crossover(mine, theirs),
        bd_percent=float(np.mean(rates)) if rates else None,
        bd_clips=len(rates),
    )


def _clip_bd(points: Sequence[Point], codec: str, anchor: str, question: _Question) -> float | None:
    """The BD-rate on the points of one clip."""
    key, accounting = question.key, question.accounting
    return bd_rate(clip_curve(points, anchor, accounting, key), clip_curve(points, codec, accounting, key))


def _groups(points: Sequence[Point], clips: Sequence[str]) -> list[list[Point]]:
    """Points that belong together, one for each clip that has the codec at all.

    A sweep ends at 60 kbit/s, on some clips sooner than on others; there its last point stands for the rest,
    as a sender that may not spend more would send.
    """
    settings = list(dict.fromkeys(point.setting for point in points))
    by_clip = {clip: {p.setting: p for p in points if p.clip == clip} for clip in clips}
    swept = all(point.quality is not None and point.role is Role.CURVE for point in points)
    if swept:
        worth = {p.setting: p.quality or 0.0 for p in points}
        settings.sort(key=lambda setting: -worth[setting])
    groups: list[list[Point]] = []
    for setting in settings:
        group = []
        for have in by_clip.values():
            point = have.get(setting)
            if point is None and swept and have:
                point = replace(list(have.values())[-1], setting=setting)
            if point is not None:
                group.append(point)
        groups.append(group)
    return [group for group in groups if group]


def _average(group: Sequence[Point], store: Store) -> Average:
    first = group[0]
    scores = mean_scores([point.scores for point in group])
    seconds = sum(point.encode_s for point in group)
    off = [point.off_target for point in group if point.off_target is not None]
    return Average(
        codec=first.codec,
        setting=first.setting,
        role=first.role,
        rates=rates_of(_sum(point.bill for point in group)),
        scores=_pooled(group, scores, store),
        encode_fps=sum(point.frames for point in group) / seconds if seconds else 0.0,
        held=sum(point.held for point in group),
        clips=len(group),
        off_target=max(off, key=abs) if off else None,
    )


def _sum(bills: Iterable[Bill]) -> Bill:
    """One bill for all clips: their bytes over their whole length."""
    all_bills = list(bills)

    def total(name: str) -> int:
        return sum(getattr(bill, name) for bill in all_bills)

    return Bill(
        elapsed_ms=math.fsum(bill.elapsed_ms for bill in all_bills),
        frames=total("frames"),
        motion_bytes=total("motion_bytes"),
        audio_bytes=total("audio_bytes"),
        keyframe_bytes=total("keyframe_bytes"),
        control_bytes=total("control_bytes"),
        wire_bytes=total("wire_bytes"),
        back_bytes=total("back_bytes"),
    )


def _pooled(group: Sequence[Point], scores: Scores, store: Store) -> Scores:
    """Scores with the Frechet distances of all clips' pictures together in place of the clips' mean."""
    if len(group) < 2:
        return scores
    mine = [store.features(_stored(point)) for point in group]
    originals = [store.original(point.clip) for point in group]
    return replace(scores, **compare_sets(join(mine), join(originals)))


def _stored(point: Point) -> Point:
    """The point under whose name the features lie: one that stands for a cheaper setting has its own."""
    if point.quality is None or point.role is not Role.CURVE:
        return point
    return replace(point, setting=f"q{point.quality:g}")
