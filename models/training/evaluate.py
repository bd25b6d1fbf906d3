"""Evaluation of weights on people that they never saw, through the runtime as the call uses it.

Same identity: the first frame of a clip that shows a face is the keyframe, the frames after it are drawn and
every k-th is judged. Cross-identity: the keyframe is another person's. Three rows are measured: with speech,
without it, and the keyframe shown unmoved, below which a model is worth nothing. A clip counts by the mean of
its frames, the set by the mean of its clips; Frechet distances are those of all pictures together.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from avcall.bitstream.keyframe import MAX_KEYFRAME_BYTES
from avcall.bitstream.motion_coded import STEPS
from avcall.errors import InputError, RecordingError
from avcall.types import FRAME_RATE, SAMPLE_RATE_HZ, FaceCrop, U8Image
from models.metrics.judge import FrameJudge, Seen
from models.metrics.measures import Scores, mean_of, mean_scores
from models.metrics.reenactment import compare_driven
from models.metrics.sets import Features, SetJudge, compare_sets, join
from models.runtime import Device, ModelRuntime, load_manifest
from models.training.data import Clip
from models.training.drawing import Puppet, Still, first_face, priors_of, still_of
from models.training.evaluation import (
    Block,
    ClipReport,
    Report,
    Row,
    distinct,
    label_of,
    to_json,
    to_markdown,
)
from models.training.strips import Line, Strip

PERSON_ENDS = "_"  # a clip's person is its name up to here: p383_1, id10001__video__clip
JPEG_QUALITY = 92
SAMPLES_A_FRAME = SAMPLE_RATE_HZ // FRAME_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """What is evaluated on what, a report for each weights folder.

    Of each clip, the first `seconds` from its keyframe on count, or all. `cross` adds the cross-identity
    block, with the next person's first frame as the keyframe; `source` adds it with this picture. Motion is
    quantised with `motion_step` as in a call, or drawn as it was found; keyframes are coded in at most
    `keyframe_bytes`, or not. Raises InputError for a value out of range.
    """

    weights: tuple[Path, ...]
    data: Path
    out: Path | None = None
    every: int = 5
    seconds: float | None = None
    perceptual: bool = True
    cross: bool = False
    source: FaceCrop | None = None
    inception: Path | None = None
    syncnet: Path | None = None
    device: str = "auto"
    threads: int = 2
    motion_step: int | None = None
    keyframe_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"--every is {self.every}; it goes from 1 up")
        if self.seconds is not None and self.seconds * FRAME_RATE < 1:
            raise InputError(f"--seconds is {self.seconds:g}; it goes from {1 / FRAME_RATE:g}, a frame, up")
        if self.device not in (devices := [device.value for device in Device]):
            raise InputError(f"--device {self.device} is none; choose one of {', '.join(devices)}")
        if self.threads < 1:
            raise InputError(f"--threads is {self.threads}; it goes from 1 up")
        if self.motion_step is not None and not 0 <= self.motion_step < STEPS:
            raise InputError(f"--motion-step is {self.motion_step}; it goes from 0 to {STEPS - 1}")
        if self.keyframe_bytes is not None and not 1 <= self.keyframe_bytes <= MAX_KEYFRAME_BYTES:
            raise InputError(
                f"--keyframe-bytes is {self.keyframe_bytes}; it goes from 1 to {MAX_KEYFRAME_BYTES}"
            )

    @property
    def span(self) -> slice:
        """Which frames of a clip are judged, from its keyframe on."""
        return slice(0, None if self.seconds is None else round(self.seconds * FRAME_RATE) + 1, self.every)

    @property
    def crosses(self) -> bool:
        """Whether there is a cross-identity block."""
        return self.cross or self.source is not None

    @property
    def paths(self) -> list[Path]:
        """The prepared clips. Raises InputError when there is none."""
        found = sorted(self.data.glob("*.npz"))
        if not found:
            raise InputError(
                f"no prepared clip in {self.data}; make some with: avcall prepare VIDEOS --out {self.data}"
            )
        return found

    @property
    def steps(self) -> int:
        """How often `on_clip` is called."""
        return len(self.weights) * len(self.paths) * (1 + self.crosses)

    @property
    def not_computed(self) -> tuple[str, ...]:
        """What the settings leave out, with the option that brings it."""
        missing = {
            "ST-LPIPS: --no-perceptual": not self.perceptual,
            "FID: no --inception file": self.inception is None,
            "Sync: no --syncnet file": self.syncnet is None,
            "cross-identity: neither --cross nor --source": not self.crosses,
        }
        return tuple(reason for reason, absent in missing.items() if absent)


@dataclass(frozen=True, slots=True)
class Drawn:
    """One frame of the driver, and the picture of each row."""

    index: int
    wanted: U8Image
    pictures: dict[Row, U8Image]


@dataclass(frozen=True, slots=True)
class Judged:
    """One clip's report, the features of its pictures by row and of the camera's, and its strip."""

    report: ClipReport
    features: dict[Row, Features]
    wanted: Features
    strip: U8Image | None


def draw_clip(
    runtime: ModelRuntime,
    clip: Clip,
    still: Still,
    span: slice,
    *,
    other: bool,
    motion_step: int | None = None,
) -> Iterator[Drawn]:
    """The frames of `span`, which counts from the first with a face, if there is one.

    A clip's own still is that first frame, and left out; `other` says that the still is somebody else's.
    `motion_step` is the quantiser's, if motion is coded.
    """
    first = first_face(clip)
    if first is None:
        return
    puppet = Puppet(runtime, still, other_person=other, motion_step=motion_step)
    speech = len(clip.pcm) > 0
    for index in range(first, len(clip))[span][0 if other else 1 :]:
        pose = puppet.pose(clip.picture(index), priors_of(clip, index))
        mel = clip.mel(index)
        silent = puppet.draw(pose, mel, speech=False)
        spoken = puppet.draw(pose, mel, speech=True) if speech else silent
        pictures = {Row.SPEECH: spoken, Row.SILENT: silent, Row.UNMOVED: still.rgb}
        yield Drawn(index, clip.picture(index), pictures)


class ClipJudge:
    """Judges the pictures of a clip, row by row."""

    def __init__(
        self, frames: FrameJudge, sets: SetJudge, span: slice, motion_step: int | None = None
    ) -> None:
        self._frames, self._sets, self._span = frames, sets, span
        self._step = motion_step

    def judge(self, runtime: ModelRuntime, clip: Clip, still: Still, *, other: bool) -> Judged | None:
        """None for a clip in which there is nothing to draw."""
        if not self._sets.hears:
            looked = drawn = list(self._drawn(runtime, clip, still, self._span, other=other))
        else:  # SyncNet looks at consecutive frames
            drawn = list(self._drawn(runtime, clip, still, slice(0, self._span.stop), other=other))
            looked = drawn[0 if other else self._span.step - 1 :: self._span.step]
        if not looked:
            return None
        if other:
            real = [Seen(one.wanted, self._frames.find_face(one.wanted), None) for one in looked]
            values = {row: self._driven(row, looked, real, still) for row in Row}
        else:
            real = [self._frames.see(one.wanted) for one in looked]
            values = {row: self._compared(row, looked, real, still) for row in Row}
        for row in Row:
            values[row] |= self._sync(row, drawn, real, clip)
        return Judged(
            ClipReport(clip.name, still.name, len(looked), {r.value: Scores(**v) for r, v in values.items()}),
            {row: self._sets.features([one.pictures[row] for one in looked]) for row in Row},
            self._sets.features([one.wanted for one in looked]),
            _strip(looked, real, clip, still),
        )

    def _drawn(
        self, runtime: ModelRuntime, clip: Clip, still: Still, span: slice, *, other: bool
    ) -> Iterator[Drawn]:
        return draw_clip(runtime, clip, still, span, other=other, motion_step=self._step)

    def _compared(
        self, row: Row, looked: Sequence[Drawn], real: Sequence[Seen], still: Still
    ) -> dict[str, float]:
        """Against the frames that the camera saw."""
        if row is Row.UNMOVED:  # one picture for all frames
            seen = self._frames.see(still.rgb)
            return mean_of([self._frames.compare(seen, wanted) for wanted in real])
        pairs = zip(looked, real, strict=True)
        return mean_of([self._frames.compare(self._frames.see(d.pictures[row]), w) for d, w in pairs])

    def _driven(
        self, row: Row, looked: Sequence[Drawn], real: Sequence[Seen], still: Still
    ) -> dict[str, float]:
        """Against the motion of the driver and the identity of the still."""
        identity = self._frames.find_face(still.rgb)
        if identity is None:
            return {}
        found = [self._frames.find_face(one.pictures[row]) for one in looked]
        return compare_driven(found, [seen.face for seen in real], identity)

    def _sync(self, row: Row, drawn: Sequence[Drawn], real: Sequence[Seen], clip: Clip) -> dict[str, float]:
        if not self._sets.hears:
            return {}
        places = [seen.face.landmarks for seen in real if seen.face is not None]
        pcm = clip.pcm[drawn[0].index * SAMPLES_A_FRAME :]
        return self._sets.sync(np.stack([one.pictures[row] for one in drawn]), places, pcm)


class Evaluation:
    """Takes weights folders through the clips; owns the networks of the measures."""

    def __init__(self, config: EvaluateConfig, on_clip: Callable[[str], object]) -> None:
        """`on_clip` is told what is done. Raises InputError for no clip, or a package that is missing."""
        self._config, self._on_clip, self._paths = config, on_clip, config.paths
        frames = FrameJudge(perceptual=config.perceptual)
        sets = SetJudge(config.inception, config.syncnet)
        self._judge = ClipJudge(frames, sets, config.span, config.motion_step)

    def run(self, weights: Path, label: str, out: Path | None) -> Report:
        """One folder. Strips go to `out`. Raises WeightsError."""
        config = self._config
        runtime = ModelRuntime(device=Device(config.device), threads=config.threads, weights=weights)
        same = self._block(runtime, out, other=False)
        if not same.clips:
            raise InputError(f"no clip in {config.data} shows a face for longer than --every {config.every}")
        return Report(
            label=label,
            weights=weights.name,
            record=load_manifest(weights).get("record", {}),
            provider=runtime.provider,
            every=config.every,
            seconds=config.seconds,
            motion_step=config.motion_step,
            keyframe_bytes=config.keyframe_bytes,
            same=same,
            cross=self._block(runtime, out, other=True) if config.crosses else None,
            not_computed=config.not_computed,
        )

    def _block(self, runtime: ModelRuntime, out: Path | None, *, other: bool) -> Block:
        judged: list[Judged] = []
        for number, path in enumerate(self._paths):
            clip = Clip(path)
            still = self._other(runtime, number) if other else self._still(runtime, clip)
            one = None if still is None else self._judge.judge(runtime, clip, still, other=other)
            if one is not None:
                judged.append(one)
                if out is not None and one.strip is not None:
                    _write_strip(out / ("cross" if other else "same"), clip.name, one.strip)
            self._on_clip(f"{clip.name}{' cross' if other else ''}")
        return _pooled(judged)

    def _still(self, runtime: ModelRuntime, clip: Clip) -> Still | None:
        return still_of(runtime, clip, self._config.keyframe_bytes)

    def _other(self, runtime: ModelRuntime, number: int) -> Still | None:
        """The photo, or the first face of the next clip of another person, or else of the next clip."""
        photo = self._config.source
        if photo is not None:
            found = runtime.detect(photo.rgb, photo.priors)
            return Still("photo", runtime.hold(photo.rgb, found, photo.priors.landmarks))
        following = [*self._paths[number + 1 :], *self._paths[:number]]
        others = [path for path in following if _person(path) != _person(self._paths[number])]
        stills = (self._still(runtime, Clip(path)) for path in [*others, *following])
        return next((still for still in stills if still is not None), None)


def evaluate(config: EvaluateConfig, on_clip: Callable[[str], object] = lambda _: None) -> tuple[Report, ...]:
    """Every weights folder on a folder of prepared clips, one clip in memory at a time.

    With `out`, report.json, table.md and the strips are written there. Raises InputError and WeightsError.
    """
    labels = [label_of(load_manifest(folder).get("config", {})) for folder in config.weights]
    labels = distinct(labels, [folder.name for folder in config.weights])
    evaluation = Evaluation(config, on_clip)
    reports: list[Report] = []
    for folder, label in zip(config.weights, labels, strict=True):
        out = config.out
        strips = out / folder.name if out is not None and len(config.weights) > 1 else out
        reports.append(evaluation.run(folder, label, strips))
    if config.out is not None:
        try:
            config.out.mkdir(parents=True, exist_ok=True)
            (config.out / "report.json").write_text(to_json(reports))
            (config.out / "table.md").write_text(to_markdown(reports))
        except OSError as error:
            raise RecordingError(
                f"--out {config.out} cannot be written ({error.strerror}); choose another folder"
            ) from None
    return tuple(reports)


def _pooled(judged: Sequence[Judged]) -> Block:
    """The means over the clips, with the Frechet distances of all their pictures together."""
    wanted = [one.wanted for one in judged]
    rows = {}
    for row in Row:
        mean = mean_scores([one.report.rows[row.value] for one in judged])
        sets = compare_sets(join([one.features[row] for one in judged]), join(wanted)) if judged else {}
        rows[row.value] = replace(mean, **sets)
    return Block(rows, tuple(one.report for one in judged))


def _person(path: Path) -> str:
    return path.stem.split(PERSON_ENDS)[0]


def _strip(looked: Sequence[Drawn], real: Sequence[Seen], clip: Clip, still: Still) -> U8Image | None:
    """A line a frame: keyframe | camera | with speech | without speech."""
    strip = Strip(clip.landmarks(first_face(clip) or 0))
    for one, seen in zip(looked, real, strict=True):
        pictures = (still.rgb, one.wanted, one.pictures[Row.SPEECH], one.pictures[Row.SILENT])
        strip.offer(Line(one.index, None if seen.face is None else seen.face.landmarks, pictures))
    return strip.picture()


def _write_strip(folder: Path, name: str, strip: U8Image) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordingError(
            f"{folder} cannot be made ({error.strerror}); choose another folder for --out"
        ) from None
    bgr = cv2.cvtColor(strip, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(folder / f"{name}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
        raise RecordingError(f"{folder / name}.jpg cannot be written; free some space")
