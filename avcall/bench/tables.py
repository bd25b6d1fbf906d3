"""The tables of the report, as plain rows; printed by rich in the terminal and as HTML in the report."""

from collections.abc import Sequence

from rich.console import Console

from avcall.bench.rates import ACCOUNTINGS, Rate
from avcall.bench.rd import Bound, Reading
from avcall.bench.results import VERDICT_MEASURES, Results, matched
from avcall.bench.store import Point, Role
from avcall.bench.verdict import Average, Verdict
from models.metrics.measures import BY_KEY, CROSS_IDENTITY, QUOTED, SAME_IDENTITY, shown
from models.metrics.tables import Table, at_width, print_table, scores_table

WHOLE = ("psnr", "ssim", "ms_ssim", "l1", "st_lpips_vgg", "st_lpips_alex", "fd_effnet", "fid")
FACES = ("lmd", "lmd_lips", "lmd_eyelids", "aed", "flicker", "lse_d", "lse_c", "face_lost")
REGIONS = tuple(f"{part}_{name}" for part in ("face", "mouth") for name in ("l1", "psnr", "ssim", "lpips"))
CALL_ANCHOR = "h266-lowdelay"
ACCOUNTING_TITLES = {"motion": "motion alone", "payload": "whole payload", "wire": "on the wire, both ways"}


def all_tables(results: Results) -> list[Table]:
    """The tables over all clips, in the order of the report."""
    rows = matched(results)
    tables = [
        rates_table("Rates", rows, results),
        points_table("Pictures at the same bits", rows, WHOLE, results),
        points_table("Faces and motion at the same bits", rows, FACES, results),
        points_table("Within the face and the mouth", rows, REGIONS, results),
        quoted_table(results, VERDICT_MEASURES),
        crossover_table(results, VERDICT_MEASURES),
        bd_table(results),
        points_table("Same identity (first frame is the keyframe)", rows, SAME_IDENTITY, results),
        cross_table(results),
        omissions_table(results),
    ]
    return [table for table in tables if table.rows]


def brief_tables(results: Results) -> list[Table]:
    """What a terminal shows of them."""
    rows = matched(results)
    tables = [
        rates_table("Rates", rows, results),
        points_table("Pictures at the same bits", rows, WHOLE, results),
        points_table("Faces and motion at the same bits", rows, FACES, results),
        quoted_table(results, QUOTED),
        crossover_table(results, (*QUOTED, "psnr")),
        cross_table(results),
        omissions_table(results),
    ]
    return [table for table in tables if table.rows]


def headline(results: Results) -> str:
    """The number that people quote, in a sentence; empty where the anchor of a call was not measured."""
    found = {
        verdict.measure: verdict.ratio
        for verdict in results.verdicts
        if verdict.anchor == CALL_ANCHOR and verdict.accounting == "payload"
    }
    parts = [f"{times(found[key])} for its {BY_KEY[key].title}" for key in QUOTED if found.get(key)]
    if not parts:
        return ""
    return f"H.266 as a call could use it needs, of avcall's payload bits: {', '.join(parts)}."


def rates_table(title: str, rows: Sequence[Average | Point], results: Results) -> Table:
    """The three accountings of every row, in kbit/s and BPP."""
    cells = [
        (
            label(row),
            *_both(row.rates.motion),
            *_both(row.rates.payload),
            f"{row.rates.up.kbps:.1f}",
            f"{row.rates.down.kbps:.1f}",
            *_both(row.rates.wire),
        )
        for row in rows
    ]
    columns = ("", "motion", "BPP", "payload", "BPP", "up", "down", "wire", "BPP")
    note = (
        "kbit/s. motion: without the keyframe (a conventional codec: without its first picture) and without "
        "speech. payload: with keyframe and speech. up, down, wire: every header, control message and "
        "acknowledgement. In brackets: how far an anchor's pictures are from the bits of avcall's."
    )
    return Table(title, columns, tuple(cells), note, _bold(rows, results))


def points_table(
    title: str, rows: Sequence[Average | Point], keys: Sequence[str], results: Results, note: str = ""
) -> Table:
    """The measures `keys` of every row; those that no row has are left out."""
    scores = [(label(row), row.scores) for row in rows]
    return scores_table(title, scores, keys, note, _bold(rows, results))


def quoted_table(results: Results, keys: Sequence[str]) -> Table:
    """How many times avcall's bits each anchor needs for avcall's value."""
    rows = [
        (
            f"{anchor}: {BY_KEY[key].title} {shown(key, found['payload'].value)}",
            *(times(found[accounting].ratio) for accounting in ACCOUNTINGS),
        )
        for anchor, key, found in _by_measure(results, keys)
    ]
    columns = ("", *(ACCOUNTING_TITLES[accounting] for accounting in ACCOUNTINGS))
    note = (
        "how many times avcall's bits the other needs to reach avcall's value. > it never gets there up to "
        "the end of its curve; < it is better at its lowest rate already. Below 1, avcall loses."
    )
    return Table("Bits that the others need for avcall's quality", columns, tuple(rows), note)


def crossover_table(results: Results, keys: Sequence[str]) -> Table:
    """From which rate on each anchor is better."""
    rows = [
        (
            f"{anchor}: {BY_KEY[key].title}",
            *(crossing(found[accounting].crossover_kbps) for accounting in ACCOUNTINGS),
        )
        for anchor, key, found in _by_measure(results, keys)
    ]
    columns = ("", *(ACCOUNTING_TITLES[accounting] for accounting in ACCOUNTINGS))
    note = "kbit/s from which on the other is at least as good as avcall. Above it, use the other."
    return Table("Crossover", columns, tuple(rows), note)


def bd_table(results: Results) -> Table:
    """BD-rates, averaged over the clips whose curves overlap."""
    rows = [
        (
            f"{anchor}: {BY_KEY[key].title}",
            *(_percent(found[accounting]) for accounting in ACCOUNTINGS),
        )
        for anchor, key, found in _by_measure(results, VERDICT_MEASURES)
    ]
    columns = ("", *(ACCOUNTING_TITLES[accounting] for accounting in ACCOUNTINGS))
    note = (
        "bits of avcall at equal quality, against the other's; below 0 avcall needs fewer. In brackets, the "
        "clips whose curves overlap: nothing is extrapolated, so a win or a loss without overlap is not here."
    )
    return Table("BD-rate", columns, tuple(rows), note)


def cross_table(results: Results) -> Table:
    """The photo's rows."""
    note = (
        "FD-EffNet and FID against the driver's own pictures, AED against the photo, LMD of the way that the "
        "landmarks went since the first frame."
    )
    return points_table("Cross-identity (--source)", results.cross, CROSS_IDENTITY, results, note)


def omissions_table(results: Results) -> Table:
    """What was asked for and is not there."""
    rows = tuple((one.clip, one.what, one.reason) for one in results.omissions)
    return Table("Left out", ("clip", "what", "why"), rows, words=True)


def label(row: Average | Point) -> str:
    """Codec and setting."""
    if row.role is Role.MATCHED:
        return f"{row.codec} ({(row.off_target or 0.0) * 100:+.1f} %)"
    if row.role is Role.STILL:
        return "the keyframe, unmoved"
    return f"{row.codec} {row.setting}"


def times(reading: Reading | None) -> str:
    """'3.2 x', '> 4.1 x', or a dash."""
    return "-" if reading is None else f"{reading} x"


def crossing(reading: Reading | None) -> str:
    """A crossover in words."""
    if reading is None:
        return "no common rate"
    if reading.bound is Bound.BELOW:
        return f"better everywhere ({reading.value:.0f} on)"
    if reading.bound is Bound.ABOVE:
        return f"nowhere up to {reading.value:.0f}"
    return f"{reading.value:.1f}"


def print_tables(console: Console, results: Results) -> None:
    """All tables, in the terminal; a file gets them at full width."""
    console = at_width(console)
    for table in brief_tables(results):
        print_table(console, table)
    if headline(results):
        console.print(headline(results), highlight=False, style="bold")
    for missing in results.not_computed:
        console.print(f"not computed: {missing}", highlight=False)


def _by_measure(results: Results, keys: Sequence[str]) -> list[tuple[str, str, dict[str, Verdict]]]:
    """Anchor, measure, and its verdict by accounting."""
    grouped: dict[tuple[str, str], dict[str, Verdict]] = {}
    for verdict in (one for one in results.verdicts if one.measure in keys):
        grouped.setdefault((verdict.anchor, verdict.measure), {})[verdict.accounting] = verdict
    return [(anchor, key, found) for (anchor, key), found in grouped.items()]


def _bold(rows: Sequence[Average | Point], results: Results) -> frozenset[int]:
    return frozenset(i for i, row in enumerate(rows) if (row.codec, row.setting) == results.default)


def _both(rate: Rate) -> tuple[str, str]:
    return f"{rate.kbps:.1f}", f"{rate.bpp:.4f}"


def _percent(verdict: Verdict) -> str:
    if verdict.bd_percent is None:
        return "no overlap"
    return f"{verdict.bd_percent:+.1f} % ({verdict.bd_clips})"
