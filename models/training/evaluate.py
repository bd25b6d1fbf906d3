"""Same-identity evaluation of a weights folder, through the runtime as the call uses it.

The first frame of a clip that shows a face is the keyframe; of the frames after it every k-th is drawn. Three
rows are measured: with speech, without it, and the keyframe shown unmoved, below which a model is worth
nothing. A clip counts by the mean of its frames, the set by the mean of its clips.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import cv2
import numpy as np

from avcall.errors import InputError
from avcall.types import FRAME_SIZE_PX, F32Array, Keypoints, Priors, U8Image
from models.metrics.picture import (
    EYELIDS,
    LIPS,
    box_around,
    l1,
    landmark_distance,
    mouth_box,
    psnr,
    ssim_map,
)
from models.metrics.stlpips import StLpips
from models.priors import PriorExtractor, draw_mesh
from models.runtime import Device, ModelRuntime, load_manifest
from models.training.data import Clip

KEYFRAME = 0
UPPER_LID, LOWER_LID = (159, 386), (145, 374)  # landmarks at the middle of each eye's lids
UPPER_LIP, LOWER_LIP = 13, 14


class Row(Enum):
    """What is compared with the frame that the camera saw."""

    SPEECH = "with speech"
    SILENT = "without speech"
    UNMOVED = "keyframe unmoved"


@dataclass(frozen=True, slots=True)
class Scores:
    """Measures of one row; None where one was not computed, or where no face was found.

    L1 has white at 1, PSNR is in dB, LMD in % of the face's width; `face_lost` is the share of pictures in
    which no face was found.
    """

    l1: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    st_lpips_vgg: float | None = None
    st_lpips_alex: float | None = None
    face_l1: float | None = None
    face_psnr: float | None = None
    face_ssim: float | None = None
    mouth_l1: float | None = None
    mouth_psnr: float | None = None
    mouth_ssim: float | None = None
    lmd: float | None = None
    lmd_lips: float | None = None
    lmd_eyelids: float | None = None
    face_lost: float | None = None


@dataclass(frozen=True, slots=True)
class ClipReport:
    """One clip: how many frames were drawn, and the mean scores by row."""

    name: str
    frames: int
    rows: dict[str, Scores]


@dataclass(frozen=True, slots=True)
class Report:
    """The whole set. `record` is what the weights say about themselves."""

    record: dict[str, object]
    every: int
    rows: dict[str, Scores]
    clips: tuple[ClipReport, ...]

    def to_json(self) -> str:
        """Everything, as a file holds it."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class Drawn:
    """One frame: what the camera saw, its landmarks, and the picture of each row."""

    index: int
    wanted: U8Image
    landmarks: F32Array | None
    pictures: dict[Row, U8Image]


def mean_scores(scores: list[Scores]) -> Scores:
    """The mean of every measure over those that have it."""
    means: dict[str, float | None] = {}
    for field in dataclasses.fields(Scores):
        known = [value for s in scores if (value := getattr(s, field.name)) is not None]
        means[field.name] = float(np.mean(known)) if known else None
    return Scores(**means)


class Judge:
    """Scores pictures. Without `perceptual` there is no ST-LPIPS, which takes most of the time."""

    def __init__(self, extractor: PriorExtractor, *, perceptual: bool) -> None:
        self._extractor = extractor
        self._vgg = StLpips("vgg") if perceptual else None
        self._alex = StLpips("alex") if perceptual else None

    def landmarks(self, rgb: U8Image) -> F32Array | None:
        """Landmarks (478, 2) of the face, or None without one."""
        faces = self._extractor.faces(rgb)
        return faces[0] if faces else None

    def _regions(self, picture: U8Image, drawn: Drawn) -> dict[str, float]:
        similar = ssim_map(picture, drawn.wanted)
        scores = {"l1": l1(picture, drawn.wanted), "psnr": psnr(picture, drawn.wanted)}
        scores["ssim"] = float(similar.mean())
        if drawn.landmarks is None:
            return scores
        boxes = {
            "face": box_around(drawn.landmarks, 0, FRAME_SIZE_PX),
            "mouth": mouth_box(drawn.landmarks, FRAME_SIZE_PX),
        }
        for name, box in boxes.items():
            part, wanted = box.cut(picture), box.cut(drawn.wanted)
            scores[f"{name}_l1"] = l1(part, wanted)
            scores[f"{name}_psnr"] = psnr(part, wanted)
            scores[f"{name}_ssim"] = float(box.cut(similar).mean())
        return scores

    def _distances(self, picture: U8Image, wanted: F32Array | None) -> dict[str, float]:
        if wanted is None:
            return {}
        found = self.landmarks(picture)
        if found is None:
            return {"face_lost": 1.0}
        return {
            "lmd": landmark_distance(found, wanted),
            "lmd_lips": landmark_distance(found, wanted, LIPS),
            "lmd_eyelids": landmark_distance(found, wanted, EYELIDS),
            "face_lost": 0.0,
        }

    def score(self, drawn: Drawn) -> dict[Row, Scores]:
        """The scores of every row of a frame."""
        measures = {
            row: self._regions(picture, drawn) | self._distances(picture, drawn.landmarks)
            for row, picture in drawn.pictures.items()
        }
        for name, distance in (("st_lpips_vgg", self._vgg), ("st_lpips_alex", self._alex)):
            if distance is not None:
                wanted = distance.features(drawn.wanted)
                for row, picture in drawn.pictures.items():
                    measures[row][name] = distance.distance(distance.features(picture), wanted)
        return {row: Scores(**values) for row, values in measures.items()}


def detect(runtime: ModelRuntime, clip: Clip, index: int) -> Keypoints:
    """Keypoints of a prepared frame, from the priors that were prepared with it."""
    landmarks, mask = clip.landmarks(index), clip.mask(index)
    mesh = draw_mesh(landmarks) if landmarks.any() else np.zeros_like(mask)
    return runtime.detect(clip.picture(index), Priors(mesh, mask, None))


def draw_clip(runtime: ModelRuntime, judge: Judge, clip: Clip, every: int) -> Iterator[Drawn]:
    """The keyframe's own frame first (unmoved in every row), then every k-th frame after it."""
    first = next((i for i in range(len(clip)) if clip.landmarks(i).any()), None)
    if first is None:
        return
    still = clip.picture(first)
    runtime.set_keyframe(KEYFRAME, still, detect(runtime, clip, first))
    yield Drawn(first, still, judge.landmarks(still), dict.fromkeys(Row, still))
    speech = len(clip.pcm) > 0
    for index in range(first + every, len(clip), every):
        keypoints, mel = detect(runtime, clip, index), clip.mel(index)
        silent = runtime.synthesize(KEYFRAME, keypoints, mel, speech=False)
        spoken = runtime.synthesize(KEYFRAME, keypoints, mel, speech=True) if speech else silent
        wanted = clip.picture(index)
        pictures = {Row.SPEECH: spoken, Row.SILENT: silent, Row.UNMOVED: still}
        yield Drawn(index, wanted, judge.landmarks(wanted), pictures)


def _openness(landmarks: F32Array, upper: tuple[int, ...], lower: tuple[int, ...]) -> float:
    return float(np.linalg.norm(landmarks[list(upper)] - landmarks[list(lower)], axis=1).mean())


class Strip:
    """Keeps the frames that tell most: mouth widest, eyes most closed, head farthest from the keyframe."""

    def __init__(self, keyframe: Drawn) -> None:
        self._keyframe = keyframe
        self._best: dict[str, tuple[float, Drawn]] = {}

    def offer(self, drawn: Drawn) -> None:
        """Take a frame if it tells more than the one kept."""
        now, before = drawn.landmarks, self._keyframe.landmarks
        if now is None or before is None:
            return
        worth = {
            "mouth": _openness(now, (UPPER_LIP,), (LOWER_LIP,)),
            "eyes": -_openness(now, UPPER_LID, LOWER_LID),
            "head": landmark_distance(now, before),
        }
        for name, value in worth.items():
            if name not in self._best or value > self._best[name][0]:
                self._best[name] = (value, drawn)

    def picture(self) -> U8Image | None:
        """A line a frame: keyframe | camera | with speech | without speech, (H, W, 3); None without one."""
        chosen = sorted({d.index: d for _, d in self._best.values()}.items())
        if not chosen:
            return None
        lines = [
            np.concatenate(
                [self._keyframe.wanted, d.wanted, d.pictures[Row.SPEECH], d.pictures[Row.SILENT]], 1
            )
            for _, d in chosen
        ]
        return np.concatenate(lines, 0)


def evaluate_clip(
    runtime: ModelRuntime, judge: Judge, clip: Clip, every: int
) -> tuple[ClipReport, U8Image | None]:
    """Scores and picture strip of one clip."""
    frames = draw_clip(runtime, judge, clip, every)
    keyframe = next(frames, None)
    scores: dict[Row, list[Scores]] = {row: [] for row in Row}
    strip = None if keyframe is None else Strip(keyframe)
    for drawn in frames:
        for row, values in judge.score(drawn).items():
            scores[row].append(values)
        if strip is not None:
            strip.offer(drawn)
    rows = {row.value: mean_scores(values) for row, values in scores.items()}
    report = ClipReport(clip.name, len(scores[Row.SPEECH]), rows)
    return report, None if strip is None else strip.picture()


def evaluate(
    weights: Path,
    data: Path,
    *,
    every: int = 5,
    perceptual: bool = True,
    out: Path | None = None,
    device: Device = Device.AUTO,
    threads: int = 2,
    on_clip: Callable[[ClipReport], None] | None = None,
) -> Report:
    """Evaluate a weights folder on a folder of prepared clips, one clip in memory at a time.

    With `out`, report.json, table.md and one strip a clip are written there. Raises InputError and
    WeightsError.
    """
    paths = sorted(data.glob("*.npz"))
    if not paths:
        raise InputError(f"no prepared clip in {data}; make some with: avcall prepare VIDEOS --out {data}")
    runtime = ModelRuntime(device=device, threads=threads, weights=weights)
    reports: list[ClipReport] = []
    with PriorExtractor(tracking=False) as extractor:
        judge = Judge(extractor, perceptual=perceptual)
        for path in paths:
            report, strip = evaluate_clip(runtime, judge, Clip(path), every)
            reports.append(report)
            if out is not None and strip is not None:
                _write_strip(out, report.name, strip)
            if on_clip is not None:
                on_clip(report)
    counted = [r for r in reports if r.frames]
    rows = {row.value: mean_scores([r.rows[row.value] for r in counted]) for row in Row}
    whole = Report(load_manifest(weights).get("record", {}), every, rows, tuple(reports))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text(whole.to_json())
        (out / "table.md").write_text(table(whole))
    return whole


def _write_strip(out: Path, name: str, strip: U8Image) -> None:
    out.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out / f"{name}.jpg"), cv2.cvtColor(strip, cv2.COLOR_RGB2BGR))


def table(report: Report) -> str:
    """Markdown: one line a row of the report, one column a measure; a dash where it was not computed."""
    names = [field.name for field in dataclasses.fields(Scores)]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row, scores in report.rows.items():
        values = (getattr(scores, name) for name in names)
        cells = ["-" if value is None else f"{value:.4g}" for value in values]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
