"""The offline commands: prepare, train, export, evaluate (extra `train`) and bench (extra `bench`).

A call needs neither.
"""

import dataclasses
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, track

from avcall import train_options as options
from avcall.errors import InputError

PLAIN_EVERY = 25  # videos: without a terminal, progress is a line now and then

Data = Annotated[Path, typer.Option(help="Folder that `avcall prepare` filled.")]


def add_commands(app: typer.Typer) -> None:
    """Register the offline commands."""
    panel = "Training"
    app.command(rich_help_panel=panel)(prepare)
    app.command(rich_help_panel=panel)(train)
    app.command(rich_help_panel=panel)(export)
    app.command(rich_help_panel=panel)(evaluate)
    app.command(rich_help_panel="Comparison")(bench)


def prepare(
    sources: Annotated[list[Path], typer.Argument(help="Videos of faces, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for the prepared clips.")],
    workers: Annotated[int, typer.Option(help="Processes that work side by side.", min=1)] = 2,
) -> None:
    """Turn videos of faces into training data: pictures, landmarks, masks and speech.

    Finds faces and cuts, and cuts out each stretch of one face. What is done already, or was refused, is
    skipped, so an interrupted run goes on. manifest.tsv lists the clips, refused.tsv what was refused.
    """
    from models.training.prepare import Preparation

    console, preparation = Console(), Preparation(sources, out)
    todo, taken, reasons = len(preparation.todo), 0, Counter[str]()
    if preparation.done:
        console.print(f"{preparation.done} videos were done before", highlight=False)
    results = track(
        preparation.run(workers),
        "preparing",
        todo,
        console=console,
        disable=not (todo and console.is_terminal),
    )
    try:
        for number, done in enumerate(results, 1):
            taken += len(done.clips)
            reasons.update(row.reason for row in done.refused)
            if number % PLAIN_EVERY == 0 and not console.is_terminal:
                console.print(f"{number} of {todo} videos, {taken} clips", highlight=False)
    except KeyboardInterrupt:
        raise InputError("interrupted; the same command goes on where it was") from None
    console.print(f"{taken} clips from {todo} videos, in {out}", highlight=False, markup=False)
    for reason, count in reasons.most_common():
        console.print(f"  refused {count}: {reason}", highlight=False)
    if not preparation.manifest.clips:
        raise InputError(f"none of the videos gave a clip; {out / 'refused.tsv'} says why for each")


def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, scalars, sample pictures.")],
    preset: Annotated[str, typer.Option(help="live or paper.")] = "live",
    hours: options.Hours = 1.0,
    steps: options.Steps = None,
    resume: options.Resume = False,
    grow_at: options.GrowAt = 2500,
    start: options.Start = None,
    validate: options.Validate = None,
    batch: options.Batch = 8,
    learning_rate: options.LearningRate = 5e-4,
    decay_from: options.DecayFrom = None,
    decay_to: options.DecayTo = None,
    ema: options.Ema = 0.998,
    seed: options.Seed = 0,
    adversarial_from: options.AdversarialFrom = None,
    perceptual_every: options.PerceptualEvery = 2,
    judged_px: options.JudgedPx = 128,
    hold_keypoints: options.HoldKeypoints = None,
    motion_only: options.MotionOnly = False,
    picture_only: options.PictureOnly = False,
    loss: options.Loss = None,
    accelerator: options.Accelerator = "auto",
    devices: options.Devices = 1,
    precision: options.Precision = "32-true",
    workers: options.Workers = None,
    without: options.Without = "",
    no_guided_flow: options.NoGuidedFlow = False,
    no_optical_flow: options.NoOpticalFlow = False,
    plain_regions: options.PlainRegions = False,
    no_telling_frames: options.NoTellingFrames = False,
    no_dropout: options.NoDropout = False,
) -> None:
    """Train the network. Writes a checkpoint every ten minutes; `--resume` goes on exactly there.

    A run that is interrupted (Ctrl-C) saves first. Say the same options again when it is resumed.
    """
    from models.training.session import Session, launch
    from models.training.settings import TrainConfig, data_config, decay_span, loss_config, weighted

    losses = loss_config(
        guided_flow=not no_guided_flow, optical_flow=not no_optical_flow, regions=not plain_regions
    )
    config = TrainConfig(
        batch=batch,
        learning_rate=learning_rate,
        ema=ema,
        seed=seed,
        sizes=((128, 0), (256, grow_at)),
        losses=dataclasses.replace(
            weighted(losses, loss or ()),
            perceptual_every=perceptual_every,
            judged_px=judged_px,
            seeded_until=hold_keypoints,
            motion_only=motion_only,
            picture_only=picture_only,
        ),
        data=data_config(regions=not plain_regions, telling=not no_telling_frames, dropout=not no_dropout),
        decay=decay_span(decay_from, decay_to),
        adversarial_from=adversarial_from,
        workers=workers,
    )
    session = Session(preset, tuple(filter(None, without.split(","))), config, data, out, validate)
    session.check(resume=resume)
    fabric = launch(accelerator, devices, precision)
    if not session.run(fabric, hours, steps, resume=resume, start=start):
        raise typer.Exit(130)


def export(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint.pt or best.pt of a run.")],
    out: Annotated[Path, typer.Option(help="Weights folder to write.")],
    data: Data,
    every: Annotated[
        int, typer.Option(help="Use every n-th clip for the tables of coded motion and for int8.", min=1)
    ] = 10,
    floating: Annotated[
        bool, typer.Option("--float", help="Draw in float32: slower, and 46 dB from int8.")
    ] = False,
) -> None:
    """Export the averaged weights of a run: ONNX graphs, safetensors, and the tables of coded motion."""
    from models.config import ModelConfig
    from models.network import Network
    from models.runtime import Graph, ModelRuntime
    from models.training.checkpoint import read_checkpoint
    from models.training.data import Clip
    from models.training.export import export_weights
    from models.training.level import level_jacobians
    from models.training.motion_metric import motion_metric
    from models.training.motion_tables import clip_motion, tables_of, write_tables
    from models.training.quantise import calibrate

    state = read_checkpoint(checkpoint)
    network = Network(ModelConfig.from_dict(state["model"])).eval()
    network.load_state_dict(state["ema"])
    paths = sorted(data.glob("*.npz"))[::every]
    if not paths:
        raise InputError(f"no prepared clip in {data}; make some with: avcall prepare VIDEOS --out {data}")
    clips = [Clip(path) for path in paths]
    record = {"steps": state["step"], "hours": round(state["seconds"] / 3600, 2)}
    record["arithmetic"] = "float32" if floating else "int8"
    level_jacobians(network, clips)
    export_weights(network, out, record, None if floating else calibrate(network, clips))
    runtime = ModelRuntime((Graph.DETECT, Graph.REFINE), weights=out)
    motion = [clip_motion(clip, runtime) for clip in track(clips, "motion tables")]
    tables = tables_of(motion, motion_metric(network, clips))
    write_tables(tables, out)
    Console().print(
        f"weights of step {state['step']} in {out}, motion tables {tables.digest()}", highlight=False
    )


def evaluate(
    data: Data,
    weights: Annotated[
        list[Path] | None,
        typer.Option(help="Weights folder; default: the shipped one. Several make the table of an ablation."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.json, table.md and picture strips.")
    ] = None,
    every: Annotated[int, typer.Option(help="Judge every n-th frame.")] = 5,
    seconds: Annotated[
        float | None, typer.Option(help="Judge this much of each clip, from its beginning; default: all.")
    ] = None,
    perceptual: Annotated[
        bool, typer.Option(help="Compute ST-LPIPS too, which takes most of the time.")
    ] = True,
    cross: Annotated[
        bool, typer.Option("--cross", help="Cross-identity too: each clip moves the next person's picture.")
    ] = False,
    source: Annotated[Path | None, typer.Option(help="Cross-identity too, with this photo.")] = None,
    inception: Annotated[Path | None, typer.Option(help="Inception weights, for FID proper.")] = None,
    syncnet: Annotated[Path | None, typer.Option(help="SyncNet weights, for Sync.")] = None,
    device: Annotated[str, typer.Option(help="Where the network runs: auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads of the network.")] = 2,
    motion_step: Annotated[int, typer.Option(help="Code motion with this quantiser step, 0 to 7.")] = 2,
    uncoded: Annotated[bool, typer.Option("--uncoded", help="Draw motion as found: not coded.")] = False,
    keyframe_bytes: Annotated[
        int | None, typer.Option(help="Code keyframes in at most so many bytes; default: not coded.")
    ] = None,
) -> None:
    """Measure weights on clips of people they never saw, drawn by the graphs that a call runs.

    Same identity: the first frame of a clip is its keyframe. Every table has the keyframe shown unmoved.
    """
    from models.metrics.tables import at_width, print_table
    from models.runtime import weights_folder
    from models.training.evaluate import EvaluateConfig
    from models.training.evaluate import evaluate as run
    from models.training.evaluation import all_tables
    from sender.photo import load_photo

    config = EvaluateConfig(
        weights=tuple(weights or [weights_folder()]),
        data=data,
        out=out,
        every=every,
        seconds=seconds,
        perceptual=perceptual,
        cross=cross,
        source=None if source is None else load_photo(source),
        inception=inception,
        syncnet=syncnet,
        device=device,
        threads=threads,
        motion_step=None if uncoded else motion_step,
        keyframe_bytes=keyframe_bytes,
    )
    console = Console()
    with Progress(console=console) as progress:
        task = progress.add_task("", total=config.steps)
        reports = run(config, lambda name: progress.update(task, description=name, advance=1))
    for table in all_tables(reports):
        print_table(at_width(console), table)
    for reason in reports[0].not_computed:
        console.print(f"not computed: {reason}", highlight=False)


def bench(
    clips: Annotated[list[Path] | None, typer.Argument(help="Video files of one face each.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; a run there goes on. Default: bench-out.")
    ] = None,
    codecs: Annotated[str, typer.Option(help="Of avcall,h266,hevc,av1.")] = "avcall,h266,hevc,av1",
    seconds: Annotated[float | None, typer.Option(help="Only the first seconds of each clip.")] = None,
    source: Annotated[Path | None, typer.Option(help="Photo of one face: cross-identity as well.")] = None,
    preset: Annotated[str, typer.Option(help="Of H.266: medium or slower.")] = "medium",
    tick_ms: Annotated[int, typer.Option(help="Of avcall: 40, 80 or 120.")] = 80,
    every: Annotated[int, typer.Option(help="Measure every n-th frame with the slow metrics.")] = 10,
    inception: Annotated[Path | None, typer.Option(help="Inception weights, for FID proper.")] = None,
    syncnet: Annotated[Path | None, typer.Option(help="SyncNet weights, for Sync.")] = None,
    jobs: Annotated[int, typer.Option(help="Encodes at a time; 0: one a core.")] = 0,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of other weights than the shipped ones.")
    ] = None,
    speed: Annotated[
        bool, typer.Option("--speed", help="Measure milliseconds a frame instead; needs no clip.")
    ] = False,
    threads: Annotated[int, typer.Option(help="With --speed: CPU threads.")] = 2,
    rounds: Annotated[int, typer.Option(help="With --speed: how often each graph runs.")] = 100,
) -> None:
    """Compare the picture with H.266, HEVC and AV1 at the bits that a slow link has.

    Runs avcall's own sender and receiver, through the bitstream, and real encoders on the same frames. Writes
    report.html, results.json and plots to --out. Exit code 1: something was left out; the table says what.
    """
    if speed:
        from avcall.bench.speed import SpeedConfig, run_speed

        run_speed(Console(), SpeedConfig(threads=threads, rounds=rounds, weights=weights, out=out))
        return
    from avcall.bench.plan import BenchConfig
    from avcall.bench.runner import run_bench

    config = BenchConfig(
        clips=tuple(clips or ()),
        out=out or Path("bench-out"),
        codecs=tuple(codecs.split(",")),
        seconds=seconds,
        source=source,
        inception=inception,
        syncnet=syncnet,
        weights=weights,
        preset=preset,
        tick_ms=tick_ms,
        every=every,
        jobs=jobs,
    )
    sys.exit(run_bench(Console(), config))
