"""The report: one HTML file that opens offline, the curves as PNG, the numbers as JSON."""

import base64
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from avcall.bench.charts import Chart, draw_charts
from avcall.bench.gallery import film_path, row_titles, strip_path
from avcall.bench.measure import ClipResult
from avcall.bench.plan import BenchConfig
from avcall.bench.results import Results, results_json
from avcall.bench.store import Point, Role, Store
from avcall.bench.tables import FACES, WHOLE, all_tables, headline, points_table, rates_table
from avcall.errors import RecordingError
from models.metrics.tables import Table

PAPER_NOTE = (
    "The paper (Agarwal et al., WACV 2023) counts 960 bits of motion a frame: 0.0146 BPP, 24.0 kbit/s at 25 "
    "frames a second, with neither keyframe, speech nor headers. Its figures of quality were measured by its "
    "authors on VoxCeleb, with other networks; they compare with nothing here."
)


def write_report(results: Results, store: Store, config: BenchConfig) -> None:
    """Write report.html, results.json and curves/*.png to the run's folder. Raises RecordingError."""
    charts = draw_charts(results)
    out = config.out
    try:
        curves = out / "curves"
        curves.mkdir(parents=True, exist_ok=True)
        for chart in charts:
            (curves / f"{chart.key}.png").write_bytes(chart.png)
        (out / "results.json").write_text(json.dumps(results_json(results), indent=1) + "\n")
        (out / "report.html").write_text(page(results, charts, out))
    except OSError as error:
        raise RecordingError(f"{out} cannot be written ({error.strerror}); free some space") from None


def page(results: Results, charts: Sequence[Chart], out: Path) -> str:
    """The whole page."""
    template = Template((files("avcall.bench") / "report.html").read_text())
    seconds = sum(clip.frames for clip in results.clips) / 25
    return template.substitute(
        summary=html.escape(_summary(results, seconds)),
        headline=html.escape(headline(results)),
        paper=html.escape(PAPER_NOTE),
        tables="\n".join(_table(table) for table in all_tables(results)),
        missing="".join(f"<li>not computed: {html.escape(one)}</li>" for one in results.not_computed),
        charts="\n".join(_chart(chart) for chart in charts),
        clips="\n".join(_clip(clip, results, out) for clip in results.clips),
        commands=_table(_commands(results)),
        settings=html.escape(json.dumps(results_json(results)["settings"], indent=1)),
    )


def _summary(results: Results, seconds: float) -> str:
    names = ", ".join(dict.fromkeys(one.codec for one in results.averages if one.role is Role.CURVE))
    left_out = f"; {len(results.omissions)} left out" if results.omissions else ""
    clips = "one clip" if len(results.clips) == 1 else f"{len(results.clips)} clips"
    return (
        f"{clips}, {seconds:.0f} s, 256x256 at 25 frames a second; {names}{left_out}. "
        f"Every codec got exactly the frames that avcall's own tracker cut."
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
    body = "".join(
        f"<tr{' class=ours' if number in table.bold else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for number, row in enumerate(table.rows)
    )
    text = " class=text" if table.title in ("Left out", "How each was run") else ""
    note = f"<p class=note>{html.escape(table.note)}</p>" if table.note else ""
    return (
        f"<h3>{html.escape(table.title)}</h3><div class=wide><table{text}><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>{note}"
    )


def _chart(chart: Chart) -> str:
    return f'<figure><img alt="{html.escape(chart.title)}" src="{_embedded(chart.png, "png")}"></figure>'


def _clip(clip: ClipResult, results: Results, out: Path) -> str:
    """One clip: its strip, a link to its film, its tables."""
    rows = _rows(clip, results)
    parts = [f'<h3 id="{html.escape(clip.clip)}">{html.escape(clip.clip)}</h3>']
    if clip.remark:
        parts.append(f"<p class=note>{html.escape(clip.remark)}</p>")
    strip, film = strip_path(out, clip.clip), film_path(out, clip.clip)
    if strip.is_file():
        titles = row_titles(clip.points, results.default, cross=bool(clip.cross))
        legend = "".join(f"<li>{html.escape(title)}</li>" for title in titles)
        picture = _embedded(strip.read_bytes(), "jpeg")
        parts.append(f'<div class=strip><ol>{legend}</ol><img alt="strip" src="{picture}"></div>')
    if film.is_file():
        link = html.escape(film.relative_to(out).as_posix())
        parts.append(f'<p><a href="{link}">side by side, with sound ({link})</a></p>')
    for table in (
        rates_table("Rates", rows, results),
        points_table("Pictures at the same bits", rows, (*WHOLE, *FACES), results),
        points_table("Every point", clip.points, (*WHOLE[:-1], "lmd", "aed", "flicker"), results),
    ):
        folded = table.title == "Every point"
        parts.append(
            f"<details><summary>every point</summary>{_table(table)}</details>" if folded else _table(table)
        )
    return "\n".join(parts)


def _rows(clip: ClipResult, results: Results) -> list[Point]:
    """Still, avcall's default, and what was matched to it."""
    chosen = [point for point in clip.points if point.role is Role.STILL]
    chosen += [point for point in clip.points if (point.codec, point.setting) == results.default]
    return chosen + [point for point in clip.points if point.role is Role.MATCHED]


def _commands(results: Results) -> Table:
    """One command of every codec, as it was run."""
    found: dict[str, Point] = {}
    for point in results.points:
        found.setdefault(f"{point.codec}", point)
        if point.role is Role.MATCHED:
            found[point.codec] = point
    rows = [(codec, f"{point.encode_fps:.0f}", point.command) for codec, point in found.items()]
    versions = "; ".join(results.settings["encoders"].values())
    return Table("How each was run", ("codec", "frames a second", "command"), tuple(rows), versions)


def _embedded(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
