"""Turns, ratios and the budget; and one real run of tiny networks."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import models.config
from avcall.bench import speed
from avcall.bench.machine import Machine
from avcall.bench.speed import NO_TORCH, Contestant, SpeedConfig, paper_size, run_speed, take_turns
from avcall.bench.speed_report import BUDGETS, Row, SpeedReport, print_speed, summary, write_speed
from avcall.errors import ConfigError, RecordingError
from models.runtime import Graph
from models.training.export import export_weights
from tests.models.tiny import TINY_LIVE, TINY_PAPER, random_network

MACHINE = Machine("Fast CPU", 2, "Linux", 0.5, {"avcall": "1"})


def report(synthesize_ms: tuple[float, ...] = (18.0, 19.0, 20.0), detect_ms: float = 4.0) -> SpeedReport:
    rows = (
        Row("live", "OpenVINO", "detect", (detect_ms,)),
        Row("live", "OpenVINO", "synthesize", synthesize_ms),
        Row("live", "plain ORT", "synthesize", (38.0,)),
        Row("paper-size", "OpenVINO", "synthesize", (1900.0,)),
    )
    return SpeedReport(MACHINE, 2, 3, rows, ("CUDA: none",))


def test_all_take_turns_and_the_slow_ones_fewer() -> None:
    order: list[str] = []
    now_s = 0.0

    def runner(name: str, takes_s: float) -> Callable[[], None]:
        def run() -> None:
            nonlocal now_s
            now_s += takes_s
            order.append(name)

        return run

    contestants = [
        Contestant("live", "x", Graph.DETECT, runner("a", 0.001)),
        Contestant("live", "x", Graph.SYNTHESIZE, runner("b", 0.002)),
        Contestant("paper-size", "x", Graph.SYNTHESIZE, runner("c", 1.0), every=2),
    ]
    rounds: list[int] = []
    times = take_turns(contestants, 4, lambda: now_s, lambda: rounds.append(1))
    assert [len(found) for found in times] == [4, 4, 2]
    assert [found[0] for found in times] == pytest.approx([1.0, 2.0, 1000.0])
    assert order[7:] == ["a", "b", "c", "b", "a", "c", "a", "b", "a", "b"]  # behind 3 + 3 + 1 to warm up
    assert len(rounds) == 4


def test_ratios_are_to_the_shipped_synthesize() -> None:
    console = Console(file=io.StringIO(), width=80)
    print_speed(console, report())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    lines = [line for line in text.splitlines() if " synthesize " in line]
    assert [line.split()[-1] for line in lines] == ["20/30", "2.00", "100.00"]
    assert lines[0].split()[-2] == "met:"
    assert "Within the budget of a call." in text
    assert "left out: CUDA: none" in text


@pytest.mark.parametrize(
    ("slow", "said"),
    [
        (report((21.0, 21.0, 21.0)), "synthesize takes 21.0 ms (p95 21.0), the budget is 20/30"),
        (report((10.0, 10.0, 60.0)), "synthesize takes 10.0 ms (p95 55.0), the budget is 20/30"),
        (report(detect_ms=5.5), "detect takes 5.5 ms (p95 5.5), the budget is 5."),
    ],
)
def test_over_budget_is_said_plainly(slow: SpeedReport, said: str) -> None:
    assert summary(slow).startswith("Over the budget of a call: ")
    assert said in summary(slow)


def test_the_budget_is_that_of_the_design() -> None:
    assert (BUDGETS["synthesize"].median_ms, BUDGETS["synthesize"].p95_ms) == (20.0, 30.0)
    assert BUDGETS["detect"].median_ms == 5.0


def test_the_file_holds_every_time(tmp_path: Path) -> None:
    write_speed(tmp_path / "new", report())
    stored = json.loads((tmp_path / "new" / "speed.json").read_text())
    assert stored["rows"][1] == {
        "network": "live",
        "engine": "OpenVINO",
        "graph": "synthesize",
        "times_ms": [18.0, 19.0, 20.0],
        "median_ms": 19.0,
        "p95_ms": pytest.approx(19.9),
        "ratio": 1.0,
    }
    assert [(one["graph"], one["met"]) for one in stored["budgets"]] == [
        ("detect", True),
        ("synthesize", True),
    ]
    (tmp_path / "file").touch()
    with pytest.raises(RecordingError, match="choose another"):
        write_speed(tmp_path / "file", report())


def test_a_real_run_times_every_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.config, "PAPER", TINY_PAPER)
    export_weights(random_network(TINY_LIVE), tmp_path / "weights", {})
    console = Console(file=io.StringIO(), width=80)
    config = SpeedConfig(threads=1, rounds=2, weights=tmp_path / "weights", out=tmp_path / "out")
    found = run_speed(console, config)
    plain = [row.graph for row in found.rows if (row.network, row.engine) == ("live", "plain ORT")]
    assert plain == [graph.value for graph in Graph]
    assert {row.graph for row in found.rows if row.network == "paper-size"} == {"synthesize"}
    assert all(ms > 0 for row in found.rows for ms in row.times_ms)
    assert (tmp_path / "out" / "speed.json").is_file()


def test_without_torch_the_made_network_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "models.training.export", None)  # importing it fails
    left_out: list[str] = []
    assert paper_size(SpeedConfig(), tmp_path, left_out) == []
    assert left_out == [NO_TORCH]
    assert "pip install" in speed.NO_TORCH


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": 65}, {"rounds": 0}])
def test_settings_out_of_range_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(wrong))}"):
        SpeedConfig(**wrong)  # type: ignore[arg-type]
