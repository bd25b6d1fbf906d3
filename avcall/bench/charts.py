"""Rate-distortion curves as pictures."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from avcall.bench.results import Results
from avcall.bench.store import Role
from avcall.bench.verdict import Average
from models.metrics.measures import BY_KEY, DRAWN, Better

PANELS = (("payload", "whole payload, kbit/s"), ("wire", "on the wire, both ways, kbit/s"))
COLOURS = ("#d62728", "#ff7f0e", "#1f77b4", "#17becf", "#2ca02c", "#9467bd", "#8c564b", "#7f7f7f")
MARKERS = ("o", "D", "s", "^", "v", "P", "X", "*")


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture of curves."""

    key: str
    title: str
    png: bytes


def draw_charts(results: Results) -> list[Chart]:
    """A chart for every drawn measure that was computed."""
    charts: list[Chart] = []
    for key in DRAWN:
        known = [one for one in results.averages if getattr(one.scores, key) is not None]
        if known:
            charts.append(Chart(key, BY_KEY[key].title, _draw(known, key)))
    return charts


def _draw(rows: Sequence[Average], key: str) -> bytes:
    """Both accountings side by side, one curve a codec."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    measure = BY_KEY[key]
    axes = figure.subplots(1, 2, sharey=True)
    for panel, (accounting, title) in zip(axes, PANELS, strict=True):
        codecs = dict.fromkeys(row.codec for row in rows if row.role is not Role.MATCHED)
        for number, codec in enumerate(codecs):
            chosen = [row for row in rows if row.codec == codec and row.role is not Role.MATCHED]
            points = sorted((row.rates.named(accounting).kbps, getattr(row.scores, key)) for row in chosen)
            panel.plot(
                [rate for rate, _ in points],
                [value for _, value in points],
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=5,
                linewidth=2.2 if codec.startswith("avcall") else 1.3,
                label=codec.replace("unmoved-keyframe", "the keyframe, unmoved"),
            )
        panel.set_xscale("log")
        panel.set_xlabel(title)
        _tick_plainly(panel)
        panel.grid(visible=True, alpha=0.3)
    better = "higher is better" if measure.better is Better.HIGHER else "lower is better"
    axes[0].set_ylabel(f"{measure.title} ({better})")
    axes[1].legend(fontsize=8)
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=110)
        return file.getvalue()


def _tick_plainly(panel: Axes) -> None:
    """Rates as numbers, not as powers of ten."""
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    panel.xaxis.set_major_formatter(ScalarFormatter())
    panel.xaxis.set_minor_formatter(NullFormatter())
