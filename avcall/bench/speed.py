"""`avcall bench --speed`: how long a frame takes, beside what it might have been drawn with.

The shipped weights run as a call runs them, through plain ONNX Runtime, and beside a network of the paper's
size (which has FOMM's detector and dense motion, and a generator of FOMM's cost). All take turns in one
process, so that whatever else the machine does hits them alike; so the ratios hold where milliseconds do not.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from avcall.bench.machine import this_machine
from avcall.bench.speed_report import SHIPPED, Row, SpeedReport, print_speed, write_speed
from avcall.errors import ConfigError, InputError
from avcall.types import FRAME_SIZE_PX, NUM_KEYPOINTS, Keypoints, Priors
from models.config import MEL_BANDS, MEL_STEPS
from models.priors import NUM_LANDMARKS, PRIOR_SIZE_PX
from models.runtime import Device, Graph, ModelRuntime, graphs_in, weights_folder

PAPER_SIZE = "paper-size"
ENGINES = {Device.CPU: "OpenVINO", Device.PLAIN: "plain ORT", Device.CUDA: "CUDA"}
WARM_UP_RUNS = 3
PAPER_SIZE_EVERY = 10  # rounds: it takes a second or more
NO_TORCH = (
    "the network of the paper's size: it is made with torch and onnx; "
    "install them with: pip install 'avcall[train]'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedConfig:
    """What a user sets. Raises ConfigError for a value out of range."""

    threads: int = 2
    rounds: int = 100
    weights: Path | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= 64:
            raise ConfigError(f"--threads is {self.threads}; it goes from 1 to 64")
        if self.rounds < 1:
            raise ConfigError(f"--rounds is {self.rounds}; it goes from 1 up")


@dataclass(frozen=True, slots=True)
class Contestant:
    """One graph of one network on one engine; it runs in every `every`-th round."""

    network: str
    engine: str
    graph: Graph
    run: Callable[[], object]
    every: int = 1


def run_speed(console: Console, config: SpeedConfig) -> SpeedReport:
    """Measure, print, and write speed.json to `config.out`. Raises AvcallError in one line."""
    machine = this_machine()
    left_out: list[str] = []
    with tempfile.TemporaryDirectory(prefix="avcall-speed-") as folder:
        contestants = shipped(config, left_out)
        with console.status("making a network of the paper's size"):
            contestants += paper_size(config, Path(folder), left_out)
        with _ticks(console, config.rounds) as tick:
            times = take_turns(contestants, config.rounds, time.perf_counter, tick)
    rows = tuple(
        Row(one.network, one.engine, one.graph.value, tuple(found))
        for one, found in zip(contestants, times, strict=True)
    )
    report = SpeedReport(machine, config.threads, config.rounds, rows, tuple(left_out))
    print_speed(console, report)
    if config.out is not None:
        write_speed(config.out, report)
    return report


def shipped(config: SpeedConfig, left_out: list[str]) -> list[Contestant]:
    """All graphs of the shipped weights on every engine that is here."""
    contestants: list[Contestant] = []
    for device, engine in ENGINES.items():
        try:
            runtime = ModelRuntime(device=device, threads=config.threads, weights=config.weights)
        except InputError:  # only CUDA can be absent
            left_out.append("CUDA: ONNX Runtime has none here")
            continue
        if device is Device.CPU and "OpenVINO" not in runtime.provider:
            left_out.append("OpenVINO: ONNX Runtime has none here; a call runs on plain ONNX Runtime")
            continue
        graphs = graphs_in(weights_folder(config.weights))
        contestants += [Contestant(SHIPPED, engine, graph, work(runtime, graph)) for graph in graphs]
    return contestants


def paper_size(config: SpeedConfig, folder: Path, left_out: list[str]) -> list[Contestant]:
    """Dense motion and generator of the `paper` preset with random weights, as ONNX in `folder`."""
    try:
        from models.config import PAPER
        from models.network import Network
        from models.training.export import export_weights
    except ImportError:
        left_out.append(NO_TORCH)
        return []
    export_weights(Network(PAPER).eval(), folder, {"steps": 0})
    contestants: list[Contestant] = []
    for device in (Device.CPU, Device.PLAIN):
        runtime = ModelRuntime(
            (Graph.ENCODE_KEYFRAME, Graph.SYNTHESIZE), device=device, threads=config.threads, weights=folder
        )
        if device is Device.CPU and "OpenVINO" not in runtime.provider:
            continue
        run = work(runtime, Graph.SYNTHESIZE)
        contestants.append(Contestant(PAPER_SIZE, ENGINES[device], Graph.SYNTHESIZE, run, PAPER_SIZE_EVERY))
    return contestants


def work(runtime: ModelRuntime, graph: Graph) -> Callable[[], object]:
    """One frame's run of a graph, on input that is as busy as a picture can be."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (FRAME_SIZE_PX, FRAME_SIZE_PX, 3), np.uint8)
    small = rng.integers(0, 255, (PRIOR_SIZE_PX, PRIOR_SIZE_PX, 3), np.uint8)
    priors = Priors(small[..., 0].copy(), small[..., 1].copy(), None)
    mel = rng.random((MEL_BANDS, MEL_STEPS), np.float32)
    upright, turned = np.eye(2, dtype=np.float32), np.array([[0.98, -0.17], [0.17, 0.98]], np.float32)
    source, driving = (
        Keypoints(
            rng.uniform(-0.8, 0.8, (NUM_KEYPOINTS, 2)).astype(np.float32),
            np.tile(jacobian, (NUM_KEYPOINTS, 1, 1)),
        )
        for jacobian in (upright, turned)
    )
    landmarks = rng.uniform(0, FRAME_SIZE_PX, (NUM_LANDMARKS, 2)).astype(np.float32)
    held = runtime.hold(rgb, source, landmarks)
    if graph is Graph.SYNTHESIZE:
        runtime.set_keyframe(0, rgb, source)
    last = runtime.refine(driving, rgb, landmarks, held) if graph is Graph.REFINE else None
    runs: dict[Graph, Callable[[], object]] = {
        Graph.DETECT: lambda: runtime.detect(rgb, priors),
        Graph.PART_MAPS: lambda: runtime.hold(rgb, source, landmarks),
        Graph.REFINE: lambda: runtime.refine(driving, rgb, landmarks, held, last),
        Graph.PREVIEW: lambda: runtime.preview(held, driving, rgb),
        Graph.ENCODE_KEYFRAME: lambda: runtime.set_keyframe(0, rgb, source),
        Graph.SYNTHESIZE: lambda: runtime.synthesize(0, driving, mel),
    }
    return runs[graph]


def take_turns(
    contestants: Sequence[Contestant],
    rounds: int,
    clock_s: Callable[[], float],
    on_round: Callable[[], object] = lambda: None,
) -> list[list[float]]:
    """Milliseconds of every run, contestant by contestant.

    Each round begins with another one, so that none always follows the same.
    """
    for one in contestants:
        for _ in range(WARM_UP_RUNS if one.every == 1 else 1):
            one.run()
    times: list[list[float]] = [[] for _ in contestants]
    for number in range(rounds):
        for place in range(len(contestants)):
            index = (number + place) % len(contestants)
            if number % contestants[index].every == 0:
                began_s = clock_s()
                contestants[index].run()
                times[index].append((clock_s() - began_s) * 1000)
        on_round()
    return times


@contextmanager
def _ticks(console: Console, rounds: int) -> Iterator[Callable[[], None]]:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=rounds)
        yield lambda: progress.advance(task)
