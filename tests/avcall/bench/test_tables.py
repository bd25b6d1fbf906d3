"""How results read: losing is printed as plainly as winning."""

import pytest

from avcall.bench.measure import Omission
from avcall.bench.rates import rates_of
from avcall.bench.rd import Bound, Reading
from avcall.bench.results import Results, matched
from avcall.bench.store import Role
from avcall.bench.tables import all_tables, crossing, headline, label, times
from avcall.bench.verdict import Average, Verdict
from models.metrics.measures import Scores
from tests.bench_fakes import make_point

OURS = ("avcall-coded", "keyframe6000")


def average(codec: str, setting: str, role: Role, off_target: float | None = None) -> Average:
    point = make_point(codec, 20.0, 30.0)
    scores = Scores(psnr=30.0, st_lpips_vgg=0.1, lmd=1.5)
    return Average(codec, setting, role, rates_of(point.bill), scores, 25.0, 0, 1, off_target)


def verdict(ratio: Reading | None, crossover: Reading | None, bd_percent: float | None = None) -> Verdict:
    return Verdict(
        codec=OURS[0],
        anchor="h266-lowdelay",
        measure="lmd",
        accounting="payload",
        value=1.5,
        rate_kbps=24.0,
        ratio=ratio,
        crossover_kbps=crossover,
        bd_percent=bd_percent,
        bd_clips=0 if bd_percent is None else 3,
    )


def results(*verdicts: Verdict) -> Results:
    payload = list(verdicts)
    every = [
        Verdict(**{f: getattr(v, f) for f in v.__dataclass_fields__} | {"accounting": accounting})
        for v in payload
        for accounting in ("motion", "payload", "wire")
    ]
    rows = (
        average("unmoved-keyframe", "avif-6000", Role.STILL),
        average(OURS[0], "keyframe2000", Role.CURVE),
        average(*OURS, Role.CURVE),
        average("avcall-fp16", OURS[1], Role.CURVE),
        average("h266-lowdelay", "q45", Role.CURVE),
        average("h266-lowdelay", "matched", Role.MATCHED, -0.021),
    )
    return Results(
        settings={},
        clips=(),
        averages=rows,
        cross=(),
        verdicts=tuple(every),
        omissions=(Omission("b", "all of it", "no face"),),
        default=OURS,
        anchors=("h266-lowdelay",),
        not_computed=(),
    )


def cells(title: str, found: Results) -> list[tuple[str, ...]]:
    return list(next(table for table in all_tables(found) if table.title.startswith(title)).rows)


def test_the_rows_are_the_still_avcall_and_what_has_its_bits() -> None:
    rows = matched(results())
    assert [label(row) for row in rows] == [
        "the keyframe, unmoved",
        "avcall-coded keyframe6000",
        "avcall-fp16 keyframe6000",
        "h266-lowdelay (-2.1 %)",
    ]
    table = all_tables(results())[0]
    assert table.bold == {1}


def test_losing_reads_as_losing() -> None:
    found = results(verdict(Reading(0.4), Reading(10.0, Bound.BELOW), 35.0))
    assert cells("Bits that the others need", found)[0][2] == "0.40 x"
    assert cells("Crossover", found)[0][2] == "better everywhere (10 on)"
    assert cells("BD-rate", found)[0][2] == "+35.0 % (3)"
    assert headline(found).endswith("0.40 x for its LMD %.")


def test_winning_beyond_what_was_measured_is_a_bound() -> None:
    found = results(verdict(Reading(3.1, Bound.ABOVE), Reading(60.0, Bound.ABOVE)))
    assert cells("Bits that the others need", found)[0] == ("h266-lowdelay: LMD % 1.50", *["> 3.10 x"] * 3)
    assert cells("Crossover", found)[0][2] == "nowhere up to 60"
    assert cells("BD-rate", found)[0][2] == "no overlap"


def test_what_was_left_out_is_in_the_tables() -> None:
    assert cells("Left out", results()) == [("b", "all of it", "no face")]


def test_without_the_anchor_there_is_no_headline() -> None:
    assert headline(results()) == ""


@pytest.mark.parametrize(
    ("reading", "words"),
    [(None, "no common rate"), (Reading(23.45), "23.4"), (Reading(7.0, Bound.BELOW), "better")],
)
def test_crossings_in_words(reading: Reading | None, words: str) -> None:
    assert crossing(reading).startswith(words)
    assert times(None) == "-"
