"""One clip through fake codecs: curves, matching, resume, and what fails."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from avcall.bench.clip import Clip
from avcall.bench.measure import MATCHED, ClipMeasurement, ClipResult, Workshop
from avcall.bench.plan import Plan
from avcall.bench.score import Judge
from avcall.bench.store import Role, Store
from tests.bench_fakes import FakeCodec, FakeJudge, fake_anchor, fake_plan, make_clip


@pytest.fixture(autouse=True)
def _fresh() -> None:
    FakeCodec.encoded = 0


def measured(out: Path, plan: Plan, clip: Clip | None = None, scoring: str = "scored so") -> ClipResult:
    work = Workshop(plan, cast(Judge, FakeJudge()), Store(out), scoring)
    with ThreadPoolExecutor(2) as pool:
        return ClipMeasurement(clip or make_clip(), work, lambda: None).run(pool)


def test_a_curve_and_a_point_at_the_defaults_rate(tmp_path: Path) -> None:
    default = FakeCodec("avcall-fake", 37.0)  # 27 kbit/s, between two points of the sweep
    result = measured(tmp_path, fake_plan(default, steered=[fake_anchor()]))
    curve = [p for p in result.points if p.codec == "h266-lowdelay" and p.role is Role.CURVE]
    assert [p.quality for p in curve] == [100, 80, 60, 40, 20]
    assert [round(p.rates.video.kbps) for p in curve] == [10, 12, 17, 25, 50]
    (matched,) = [p for p in result.points if p.role is Role.MATCHED]
    assert matched.setting == MATCHED and matched.quality is not None
    assert matched.rates.video.kbps == pytest.approx(1000 / 37, rel=0.03)
    assert matched.off_target is not None and abs(matched.off_target) <= 0.03
    assert result.omissions == ()
    assert matched.scores.l1 == pytest.approx(round(matched.quality) / 255)


def test_a_second_run_encodes_nothing_and_says_the_same(tmp_path: Path) -> None:
    plan = fake_plan(FakeCodec("avcall-fake", 37.0), steered=[fake_anchor()])
    first = measured(tmp_path, plan)
    assert FakeCodec.encoded > 0
    FakeCodec.encoded = 0
    assert measured(tmp_path, plan) == first
    assert FakeCodec.encoded == 0


def test_an_interrupted_run_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    plan = fake_plan(FakeCodec("avcall-fake", 37.0), FakeCodec("avcall-fake", 50.0))
    first = measured(tmp_path, plan)
    (tmp_path / "points" / "clip" / "avcall-fake-q50.json").unlink()
    (tmp_path / "points" / "clip" / "avcall-fake-q37.json").write_text("{ cut short")
    FakeCodec.encoded = 0
    assert measured(tmp_path, plan) == first
    assert FakeCodec.encoded == 2


@pytest.mark.parametrize("change", ["clip", "scoring", "codec"])
def test_what_decides_a_result_makes_it_anew(tmp_path: Path, change: str) -> None:
    measured(tmp_path, fake_plan(FakeCodec("avcall-fake", 37.0)))
    FakeCodec.encoded = 0
    clip, scoring = make_clip(), "scored so"
    codec = FakeCodec("avcall-fake", 37.0)
    if change == "clip":
        clip = Clip(clip.name, clip.crops, clip.pcm, "another digest")
    elif change == "scoring":
        scoring = "scored otherwise"
    else:
        type(codec).identity = property(lambda self: "a newer version")  # type: ignore[assignment]
    try:
        measured(tmp_path, fake_plan(codec), clip, scoring)
    finally:
        FakeCodec.identity = property(lambda self: f"fake codec at {self.quality:g}")  # type: ignore[assignment]
    assert FakeCodec.encoded == 1


def test_what_fails_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    plan = fake_plan(FakeCodec("avcall-fake", 37.0), FakeCodec("avcall-broken", 20.0, fails=True))
    result = measured(tmp_path, plan)
    assert [p.codec for p in result.points] == ["avcall-fake"]
    (omission,) = result.omissions
    assert (omission.clip, omission.what) == ("clip", "avcall-broken q20")
    assert omission.reason == "avcall-broken does not work"


def test_a_rate_that_an_encoder_cannot_reach_is_named(tmp_path: Path) -> None:
    low = FakeCodec("avcall-fake", 200.0)  # 5 kbit/s, where the anchor ends at 10
    result = measured(tmp_path, fake_plan(low, steered=[fake_anchor()]))
    (omission,) = result.omissions
    assert omission.what == "h266-lowdelay at avcall's rate"
    assert "cannot go down to 5.0 kbit/s: its lowest rate is 10.0" in omission.reason
    assert [p.role for p in result.points if p.codec == "h266-lowdelay"] == [Role.CURVE] * 5


def test_without_avcall_nothing_is_matched(tmp_path: Path) -> None:
    result = measured(tmp_path, fake_plan(steered=[fake_anchor()]))
    assert {p.role for p in result.points} == {Role.CURVE}
    assert result.omissions == ()


def test_strip_and_film_are_written(tmp_path: Path) -> None:
    measured(tmp_path, fake_plan(FakeCodec("avcall-fake", 37.0), steered=[fake_anchor()]))
    assert (tmp_path / "strips" / "clip.jpg").stat().st_size > 0
    assert (tmp_path / "films" / "clip.mp4").stat().st_size > 0
