"""The results of a run as one value, and as JSON whose layout docs/benchmark.md describes."""

import dataclasses
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from avcall.bench.ffmpeg import find_ffmpeg
from avcall.bench.measure import ClipResult, Omission
from avcall.bench.plan import BenchConfig, Plan
from avcall.bench.rates import PAPER_MOTION_BITS
from avcall.bench.store import Point, Role, Store
from avcall.bench.verdict import Average, Verdict, averages, verdicts
from avcall.types import FRAME_RATE
from models.metrics.measures import MEASURES, QUOTED
from models.runtime import load_manifest, weights_folder

SCHEMA = 1
VERDICT_MEASURES = (*QUOTED, "psnr", "ssim", "aed", "mouth_psnr")
PACKAGES = ("imageio-ffmpeg", "mediapipe", "numpy", "onnxruntime-openvino", "stlpips-pytorch", "torch")


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that a report shows. `default` is codec and setting of a call without options."""

    settings: dict[str, Any]
    clips: tuple[ClipResult, ...]
    averages: tuple[Average, ...]
    cross: tuple[Average, ...]
    verdicts: tuple[Verdict, ...]
    omissions: tuple[Omission, ...]
    default: tuple[str, str] | None
    anchors: tuple[str, ...]
    not_computed: tuple[str, ...]

    @property
    def points(self) -> list[Point]:
        """The points of all clips."""
        return [point for clip in self.clips for point in clip.points]


def make_results(
    config: BenchConfig, plan: Plan, store: Store, clips: Sequence[ClipResult], omissions: Sequence[Omission]
) -> Results:
    """Averages and verdicts of what was measured."""
    points = [point for clip in clips for point in clip.points]
    found = averages(points, store)
    default = (plan.default.name, plan.default.setting) if plan.default else None
    anchors = tuple(dict.fromkeys(one.anchor.name for one in plan.steered))
    judged = verdicts(points, found, default, anchors, VERDICT_MEASURES) if default else []
    missing = [
        *(("FID: no --inception file",) if config.inception is None else ()),
        *(("Sync: no --syncnet file",) if config.syncnet is None else ()),
    ]
    return Results(
        settings=_settings(config) | {"encoders": _encoders(plan)},
        clips=tuple(clips),
        averages=tuple(found),
        cross=tuple(averages([point for clip in clips for point in clip.cross], store)),
        verdicts=tuple(judged),
        omissions=(*omissions, *(one for clip in clips for one in clip.omissions)),
        default=default,
        anchors=anchors,
        not_computed=tuple(missing),
    )


def _settings(config: BenchConfig) -> dict[str, Any]:
    """Every setting that produced the results, and the versions of what did the work."""
    manifest = load_manifest(weights_folder(config.weights))
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return values | {
        "avcall": _version("avcall"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: _version(name) for name in PACKAGES},
        "weights_sha256": manifest.get("sha256"),
        "measures": {m.key: {"title": m.title, "better": m.better.name.lower()} for m in MEASURES},
        "paper": {
            "motion_bits_a_frame": PAPER_MOTION_BITS,
            "motion_kbps": PAPER_MOTION_BITS * FRAME_RATE / 1000,
        },
    }


def _encoders(plan: Plan) -> dict[str, str]:
    """Version of FFmpeg and of each of its encoders that was used."""
    if not plan.steered:
        return {}
    ffmpeg = find_ffmpeg()
    names = dict.fromkeys(one.anchor.encoder for one in plan.steered)
    return {"ffmpeg": ffmpeg.version} | {name: ffmpeg.encoder_version(name) for name in names}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def results_json(results: Results) -> dict[str, Any]:
    """Plain values for `results.json`."""
    return {
        "schema": SCHEMA,
        "settings": _plain(results.settings),
        "default": results.default,
        "clips": [
            {
                "name": clip.clip,
                "frames": clip.frames,
                "digest": clip.digest,
                "remark": clip.remark,
                "points": [_point(point) for point in clip.points],
                "cross": [_point(point) for point in clip.cross],
            }
            for clip in results.clips
        ],
        "averages": [_plain(one) for one in results.averages],
        "cross": [_plain(one) for one in results.cross],
        "verdicts": [_plain(one) for one in results.verdicts],
        "left_out": [_plain(one) for one in results.omissions],
        "not_computed": list(results.not_computed),
    }


def _point(point: Point) -> dict[str, Any]:
    plain: dict[str, Any] = _plain(point)
    return plain | {"rates": _plain(point.rates), "encode_fps": point.encode_fps}


def _plain(value: Any) -> Any:
    """Dataclasses, enums and paths as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def matched(results: Results) -> list[Average]:
    """The rows of the comparison at equal bits: still, avcall's defaults, every anchor at that rate."""
    rows = [one for one in results.averages if one.role is Role.STILL]
    if results.default is not None:
        setting = results.default[1]
        calls = [
            one for one in results.averages if one.codec.startswith("avcall-") and one.setting == setting
        ]
        rows += sorted(calls, key=lambda one: (one.codec, one.setting) != results.default)
    return rows + [one for one in results.averages if one.role is Role.MATCHED]
