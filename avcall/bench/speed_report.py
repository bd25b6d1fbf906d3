"""How a measurement of speed reads: medians, ratios, and whether the budget of a call holds."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from avcall.bench.machine import Machine
from avcall.errors import RecordingError
from models.metrics.tables import Table, print_table

SCHEMA = 1
SHIPPED = "live"
REFERENCE = "synthesize"  # of the shipped weights, as a call on a CPU runs them: the ratios' 1


@dataclass(frozen=True, slots=True)
class Budget:
    """What a graph may take on two CPU threads, in ms."""

    graph: str
    median_ms: float
    p95_ms: float | None

    @property
    def words(self) -> str:
        """As it is printed."""
        return f"{self.median_ms:.0f}" + ("" if self.p95_ms is None else f"/{self.p95_ms:.0f}")


# A frame has 40 ms, and the rest of the call needs its share of two cores.
BUDGETS = {budget.graph: budget for budget in (Budget(REFERENCE, 20.0, 30.0), Budget("detect", 5.0, None))}


@dataclass(frozen=True, slots=True)
class Row:
    """One graph of one network on one engine; a time for each run."""

    network: str
    engine: str
    graph: str
    times_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """Of all runs."""
        return float(np.median(self.times_ms))

    @property
    def p95_ms(self) -> float:
        """The time that 19 of 20 runs stay under."""
        return float(np.percentile(self.times_ms, 95))

    def within(self, budget: Budget) -> bool:
        """Whether the budget holds."""
        return self.median_ms <= budget.median_ms and (budget.p95_ms is None or self.p95_ms <= budget.p95_ms)


@dataclass(frozen=True, slots=True)
class SpeedReport:
    """The rows of one run. The first row of the shipped weights' synthesize is the engine of a call."""

    machine: Machine
    threads: int
    rounds: int
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]

    @property
    def reference(self) -> Row:
        """The 1 of the ratios."""
        return next(row for row in self.rows if (row.network, row.graph) == (SHIPPED, REFERENCE))

    @property
    def judged(self) -> tuple[tuple[Row, Budget], ...]:
        """The rows that have a budget: the shipped graphs on the engine of a call."""
        ours = [r for r in self.rows if (r.network, r.engine) == (SHIPPED, self.reference.engine)]
        return tuple((row, BUDGETS[row.graph]) for row in ours if row.graph in BUDGETS)


def speed_table(report: SpeedReport) -> Table:
    """A line a row, slowest network last."""
    budgets = {id(row): _verdict(row, budget) for row, budget in report.judged}
    cells = tuple(
        (
            f"{row.network} {row.engine}",
            row.graph,
            f"{row.median_ms:.1f}",
            f"{row.p95_ms:.1f}",
            f"{row.median_ms / report.reference.median_ms:.2f}",
            budgets.get(id(row), ""),
        )
        for row in report.rows
    )
    columns = ("network, engine", "graph", "median ms", "p95 ms", "ratio", "budget ms")
    note = (
        f"{report.threads} threads, batch 1, 256x256, {report.rounds} rounds in turns. Ratio: to the shipped "
        "weights' synthesize. Budget: median/p95. paper-size: dense motion and generator of the paper preset "
        "(FOMM's size) with random weights, as ONNX."
    )
    bold = frozenset(i for i, row in enumerate(report.rows) if row is report.reference)
    return Table("Speed", columns, cells, note, bold)


def summary(report: SpeedReport) -> str:
    """Whether the budget holds, in one line."""
    over = [(row, budget) for row, budget in report.judged if not row.within(budget)]
    if not over:
        return "Within the budget of a call."
    parts = [
        f"{row.graph} takes {row.median_ms:.1f} ms (p95 {row.p95_ms:.1f}), the budget is {budget.words}"
        for row, budget in over
    ]
    return f"Over the budget of a call: {'; '.join(parts)}."


def print_speed(console: Console, report: SpeedReport) -> None:
    """The machine, the table, the verdict, and what was left out."""
    machine = report.machine
    load = "" if machine.load is None else f", load {machine.load:.1f}"
    console.print(f"{machine.cpu}, {machine.cores} cores{load}; {machine.system}", highlight=False)
    console.print(", ".join(f"{name} {v}" for name, v in machine.versions.items()), highlight=False)
    print_table(console, speed_table(report))
    console.print(summary(report), highlight=False, style="bold")
    for what in report.left_out:
        console.print(f"left out: {what}", highlight=False, markup=False)


def write_speed(out: Path, report: SpeedReport) -> None:
    """speed.json in the folder `out`. Raises RecordingError."""
    rows = [
        dataclasses.asdict(row)
        | {
            "median_ms": row.median_ms,
            "p95_ms": row.p95_ms,
            "ratio": row.median_ms / report.reference.median_ms,
        }
        for row in report.rows
    ]
    budgets = [
        dataclasses.asdict(budget) | {"engine": row.engine, "met": row.within(budget)}
        for row, budget in report.judged
    ]
    whole = dataclasses.asdict(report) | {"schema": SCHEMA, "rows": rows, "budgets": budgets}
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "speed.json").write_text(json.dumps(whole, indent=1) + "\n")
    except OSError as error:
        raise RecordingError(f"--out {out} cannot be written ({error.strerror}); choose another") from None


def _verdict(row: Row, budget: Budget) -> str:
    return f"{'met' if row.within(budget) else 'missed'}: {budget.words}"
