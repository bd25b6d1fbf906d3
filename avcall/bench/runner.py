"""`avcall bench`: clips in, report out. Resumes what was done, shows how long the rest takes.

Every point runs on one core, and as many at once as there are cores.
"""

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from avcall.bench.clip import load_clip
from avcall.bench.cross import CrossJudge
from avcall.bench.measure import WHOLE_CLIP, ClipMeasurement, ClipResult, Omission, Workshop
from avcall.bench.plan import BenchConfig, make_plan
from avcall.bench.report import write_report
from avcall.bench.results import Results, make_results
from avcall.bench.score import Judge
from avcall.bench.store import Store, code_digest, fingerprint_of
from avcall.bench.tables import print_tables
from avcall.errors import AvcallError, InputError, RecordingError
from models.runtime import Device, ModelRuntime
from sender.photo import load_photo

EXIT_DONE, EXIT_INCOMPLETE, EXIT_INTERRUPTED = 0, 1, 130
SWEEP_POINTS = 6  # what a sweep usually takes, for the time left
CLIPS_AT_ONCE = 2  # while one is cut or shown, the other keeps the cores busy


class _Runtimes:
    """The networks of each thread, opened when they are first needed."""

    def __init__(self, weights: Path | None) -> None:
        self._weights = weights
        self._local = threading.local()

    def __call__(self) -> ModelRuntime:
        if not hasattr(self._local, "runtime"):
            self._local.runtime = ModelRuntime(device=Device.CPU, threads=1, weights=self._weights)
        runtime: ModelRuntime = self._local.runtime
        return runtime


def run_bench(console: Console, config: BenchConfig) -> int:
    """Measure, print, and write the report to `config.out`.

    Returns 0 when everything that was asked for is in the report, 1 when something was left out, 130 when the
    user interrupted. Raises AvcallError in one line when nothing can be done at all.
    """
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordingError(
            f"--out {config.out} cannot be made ({error.strerror}); choose another"
        ) from None
    work = _prepare(config)
    omissions = [Omission("every clip", name, reason) for name, reason in work.plan.missing]
    done: list[ClipResult] = []
    try:
        # The inner pool ends first: what a clip's thread still waits for is cancelled.
        with _pool(CLIPS_AT_ONCE) as clips, _pool(config.jobs) as pool, _progress(console) as progress:
            clip_run = _ClipRun(config, work, pool, progress)
            futures = [clips.submit(clip_run.measure, number) for number in range(len(config.clips))]
            for outcome in (future.result() for future in futures):
                if isinstance(outcome, Omission):
                    omissions.append(outcome)
                else:
                    done.append(outcome)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here", highlight=False)
        return EXIT_INTERRUPTED
    if not done:
        raise InputError(f"no clip could be used: {omissions[-1].reason}")
    results = make_results(config, work.plan, work.store, done, omissions)
    with console.status("writing the report"):
        write_report(results, work.store, config)
    _print(console, results, config.out)
    return EXIT_INCOMPLETE if results.omissions else EXIT_DONE


def _prepare(config: BenchConfig) -> Workshop:
    photo = load_photo(config.source) if config.source else None
    judge = Judge(config.every, config.inception, config.syncnet)
    plan = make_plan(config, _Runtimes(config.weights), photo)
    scoring = fingerprint_of(
        code=code_digest(),
        every=config.every,
        inception=_file_digest(config.inception),
        syncnet=_file_digest(config.syncnet),
    )
    cross = CrossJudge(judge, photo.rgb) if photo is not None else None
    return Workshop(plan, judge, Store(config.out), scoring, cross)


class _ClipRun:
    """Takes the clips of a run through the codecs; `measure` is called from several threads."""

    def __init__(
        self, config: BenchConfig, work: Workshop, pool: ThreadPoolExecutor, progress: Progress
    ) -> None:
        self._config, self._work, self._pool, self._progress = config, work, pool, progress
        self._expected = len(work.plan.fixed) + (SWEEP_POINTS + 1) * len(work.plan.steered)
        self._lock = threading.Lock()
        self._total = self._expected * len(config.clips)
        self._bar = progress.add_task("", total=self._total)
        self._names = _names(config.clips)

    def measure(self, number: int) -> ClipResult | Omission:
        """The result of the clip of that number, or why it cannot be used."""
        path, points = self._config.clips[number], 0

        def on_point() -> None:
            nonlocal points
            points += 1
            self._progress.advance(self._bar)

        description = f"{path.stem} ({number + 1} of {len(self._config.clips)})"
        self._progress.update(self._bar, description=description)
        try:
            clip = load_clip(path, self._config.seconds, self._names[number])
            return ClipMeasurement(clip, self._work, on_point).run(self._pool)
        except AvcallError as error:
            return Omission(path.name, WHOLE_CLIP, str(error))
        finally:
            with self._lock:
                self._total += points - self._expected
            self._progress.update(self._bar, total=self._total)


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each clip: its file's, with a number behind it where that repeats."""
    counts: dict[str, int] = {}
    names = []
    for path in paths:
        count = counts[path.stem] = counts.get(path.stem, 0) + 1
        names.append(path.stem if count == 1 else f"{path.stem}-{count}")
    return names


@contextmanager
def _pool(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """One thread for each core; after an error or Ctrl-C, what has not begun is not begun."""
    pool = ThreadPoolExecutor(jobs or os.cpu_count() or 1, thread_name_prefix="bench")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=600,
    )


def _print(console: Console, results: Results, out: Path) -> None:
    print_tables(console, results)
    for name, what in (
        ("report.html", "curves, strips, every clip; opens offline"),
        ("results.json", "all numbers and the settings that produced them"),
        ("curves", "the curves as PNG"),
    ):
        console.print(f"  {out / name}  {what}", highlight=False, soft_wrap=True)


def _file_digest(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
