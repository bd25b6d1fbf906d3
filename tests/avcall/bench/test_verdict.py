"""What points say together, over two clips."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avcall.bench.rd import Bound
from avcall.bench.score import Scored
from avcall.bench.store import Point, Role, Store
from avcall.bench.verdict import averages, verdicts
from models.metrics.frechet import frechet_distance
from models.metrics.measures import Scores
from models.metrics.sets import Features
from tests.bench_fakes import make_point

OURS = ("avcall-coded", "10")


def kept(store: Store, points: list[Point]) -> list[Point]:
    """The points with random features, kept in the store, and both clips' originals."""
    generator = np.random.default_rng(0)
    for point in points:
        features = generator.normal(size=(6, 4)).astype(np.float32)
        store.save(point, "same", b"data", Scored(point.scores, Features(features)))
    for clip in {point.clip for point in points}:
        features = generator.normal(size=(6, 4)).astype(np.float32)
        store.save_original(clip, "same", Features(features, None))
    return points


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def anchor_curve(clip: str, offset: float = 0.0) -> list[Point]:
    """One that gains a decibel for each doubling from 8 kbit/s on, up to 64."""
    return [
        make_point(
            "h266-lowdelay",
            8 * 2**i,
            28 + i + offset,
            clip=clip,
            quality=60 - 6 * i,
            setting=f"q{60 - 6 * i}",
        )
        for i in range(4)
    ]


def our_curve(clip: str) -> list[Point]:
    return [make_point("avcall-coded", kbps, psnr, clip=clip) for kbps, psnr in ((10, 30.0), (20, 30.5))]


def test_an_average_spreads_all_bytes_over_all_time(store: Store) -> None:
    points = kept(store, [*our_curve("a"), *(replace(p, clip="b") for p in our_curve("a"))])
    points[2] = replace(points[2], bill=replace(points[2].bill, motion_bytes=2_000), scores=Scores(psnr=20.0))
    found = averages(points, store)
    first = next(one for one in found if (one.codec, one.setting) == OURS)
    assert first.clips == 2
    motion_bytes = points[0].bill.motion_bytes + 2_000
    assert first.rates.motion.kbps == pytest.approx(motion_bytes * 8 / 2_000)
    assert first.scores.psnr == pytest.approx(25.0)


def test_distances_of_sets_are_pooled_not_averaged(store: Store) -> None:
    points = kept(
        store, [make_point(*OURS[:1], 10, 30, clip=clip, scores=Scores(fd_effnet=99.0)) for clip in "ab"]
    )
    (one,) = averages(points, store)
    mine = np.concatenate([store.features(point).effnet for point in points])
    theirs = np.concatenate([store.original(clip).effnet for clip in "ab"])
    assert one.scores.fd_effnet == pytest.approx(frechet_distance(mine, theirs))


def test_a_sweep_that_ended_early_stays_at_its_end(store: Store) -> None:
    short = anchor_curve("b")[:3]
    found = averages(kept(store, [*anchor_curve("a"), *short]), store)
    last = found[-1]
    assert last.setting == "q42" and last.clips == 2
    assert last.rates.video.kbps == pytest.approx((64 + 32) / 2, rel=0.01)


def test_the_ratio_the_crossover_and_the_bd_rate(store: Store) -> None:
    points = kept(store, [*our_curve("a"), *anchor_curve("a")])
    found = averages(points, store)
    judged = {v.accounting: v for v in verdicts(points, found, OURS, ["h266-lowdelay"], ["psnr"])}
    assert set(judged) == {"motion", "payload", "wire"}
    motion = judged["motion"]  # 30 dB costs the anchor 32 kbit/s and avcall 10
    assert motion.value == 30.0
    assert motion.ratio is not None and motion.ratio.value == pytest.approx(3.2, rel=0.01)
    assert motion.crossover_kbps is not None
    assert motion.crossover_kbps.value == pytest.approx(0.9 * 8 * 2**2.5, rel=0.02)  # where it reaches 30.5
    assert motion.bd_clips == 1 and motion.bd_percent is not None
    assert -75 < motion.bd_percent < -50
    assert judged["payload"].ratio is not None
    assert judged["payload"].ratio.value == pytest.approx((32 + 4) / (10 + 4), rel=0.01)  # speech is in both
    assert judged["wire"].rate_kbps == pytest.approx(2 * 10 + 4 + 10, rel=0.01)


def test_an_anchor_that_never_gets_there_is_said_to_with_a_bound(store: Store) -> None:
    points = kept(store, [*our_curve("a"), *anchor_curve("a", offset=-5)])
    (motion, *_) = verdicts(points, averages(points, store), OURS, ["h266-lowdelay"], ["psnr"])
    assert motion.ratio is not None and motion.ratio.bound is Bound.ABOVE
    assert motion.crossover_kbps is not None and motion.crossover_kbps.bound is Bound.ABOVE
    assert motion.bd_percent is None and motion.bd_clips == 0


def test_losing_is_a_ratio_below_one(store: Store) -> None:
    points = kept(store, [*our_curve("a"), *anchor_curve("a", offset=5)])
    (motion, *_) = verdicts(points, averages(points, store), OURS, ["h266-lowdelay"], ["psnr"])
    assert motion.ratio is not None and motion.ratio.bound is Bound.BELOW and motion.ratio.value < 1
    assert motion.crossover_kbps is not None and motion.crossover_kbps.bound is Bound.BELOW


def test_a_measure_that_was_not_computed_has_no_verdict(store: Store) -> None:
    points = kept(store, our_curve("a"))
    assert verdicts(points, averages(points, store), OURS, ["h266-lowdelay"], ["fid"]) == []
    assert (
        verdicts(points, averages(points, store), ("avcall-coded", "gone"), ["h266-lowdelay"], ["psnr"]) == []
    )


def test_a_still_is_no_part_of_a_curve(store: Store) -> None:
    still = make_point("unmoved-keyframe", 6, 25.0, role=Role.STILL)
    (one,) = averages(kept(store, [still]), store)
    assert one.role is Role.STILL and one.off_target is None
