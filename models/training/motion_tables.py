"""Trains the tables of coded motion: the transform, and the statistics of what it leaves.

They depend on the detector: new weights need new tables.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avcall.bitstream import lattice_coded
from avcall.bitstream.lattice_coded import MAX_LEVEL, quantise_lattice
from avcall.bitstream.motion_coded import (
    CONTEXTS,
    HOLD,
    MAX_HIGH,
    NUMBERS,
    STEPS,
    SYMBOLS,
    MotionTables,
    flatten,
)
from avcall.bitstream.static_model import FREQUENCY_SUM
from avcall.types import F32Array, Keypoints
from models.runtime import MOTION_TABLES_NAME, ModelRuntime, load_manifest
from models.training.data import Clip
from models.training.drawing import followed, held_frame

FINEST_LATTICE_STEP = 1 / 144  # in half widths: 0.9 pixels
FINEST_STEP = 0.0008  # in half widths of the picture, all of it missing by that: 0.1 pixels
STEP_RATIO = 1.35  # between neighbouring steps; the coarsest is 8 times the finest
CLASS_RATIO = 1.25  # between the mean magnitudes of neighbouring classes
SMALLEST_MAGNITUDE = 0.003
WIDEST_HIGH = 3.0  # mean magnitude of the high part: larger numbers get flat low bits
SMOOTHING = 0.02  # share of every table that goes to a two-sided exponential, for what training never saw
FRAMES_PER_PACKET = (2, 3)  # ticks of 80 and 120 ms
KEYFRAME_EVERY = 75  # frames; references of different ages belong to the statistics


def clip_motion(clip: Clip, runtime: ModelRuntime) -> list[Keypoints]:
    """Motion of every frame of a prepared clip, as a call whose keyframe is the first one would send it."""
    return followed(runtime, clip, held_frame(runtime, clip, 0))


def tables_of(clips: Sequence[Sequence[Keypoints]], metric: NDArray[np.float64]) -> MotionTables:
    """Tables from the motion of clips, and a metric of `motion_metric`."""
    numbers = [np.array([flatten(frame) for frame in clip], np.float32) for clip in clips]
    deformed = [[frame.lattice for frame in clip if frame.lattice is not None] for clip in clips]
    return train_tables(numbers, metric, deformed)


def residuals(clips: Iterable[F32Array]) -> list[F32Array]:
    """Differences to the keyframe, one array (frames, 60) for each clip and keyframe."""
    return [
        clip - clip[start] for clip in clips for start in range(0, max(1, len(clip) - 25), KEYFRAME_EVERY)
    ]


def train_tables(
    clips: Sequence[F32Array], metric: NDArray[np.float64], lattices: Sequence[Sequence[F32Array]] = ()
) -> MotionTables:
    """Tables from the weighted keypoints of clips, each (frames, 60), a metric, and the clips' lattices."""
    differences = residuals(clips)
    root = np.linalg.cholesky(metric)  # an error e is seen as e @ root
    _, vectors = np.linalg.eigh(np.cov((np.concatenate(differences) @ root).T))
    analysis = root @ vectors[:, ::-1]
    basis = np.linalg.inv(analysis).astype(np.float32)
    steps = (FINEST_STEP * STEP_RATIO ** np.arange(STEPS)).astype(np.float32)
    coefficients = [rows @ analysis for rows in differences]
    numbers = [
        [_coded_numbers(coefficients, float(step), context) for context in range(CONTEXTS)] for step in steps
    ]
    magnitudes = np.array([[np.abs(n).mean(0) for n in row] for row in numbers])
    levels = np.round(
        np.log(np.maximum(magnitudes, SMALLEST_MAGNITUDE) / SMALLEST_MAGNITUDE) / np.log(CLASS_RATIO)
    )
    classes = levels.astype(np.uint8)
    count = int(classes.max()) + 1
    centres = SMALLEST_MAGNITUDE * CLASS_RATIO ** np.arange(count)
    shifts = np.maximum(0, np.ceil(np.log2(centres / WIDEST_HIGH))).astype(np.uint8)
    histogram = np.zeros((count, SYMBOLS))
    for step in range(STEPS):
        for context in range(CONTEXTS):
            _count(histogram, numbers[step][context], classes[step, context], shifts)
    frequencies = np.stack(
        [_frequencies(h, c / 2.0**s) for h, c, s in zip(histogram, centres, shifts, strict=True)]
    )
    coarser = (FINEST_LATTICE_STEP * STEP_RATIO ** np.arange(STEPS)).astype(np.float32)
    told = np.stack([_lattice_frequencies(lattices, float(step)) for step in coarser])
    return MotionTables(basis, steps, classes, shifts, frequencies, coarser, told)


def _lattice_frequencies(clips: Sequence[Sequence[F32Array]], step: float) -> NDArray[np.uint16]:
    """(contexts, levels) of the packets' lattices at a step."""
    histogram = np.zeros((lattice_coded.CONTEXTS, lattice_coded.LEVELS))
    for frames in clips:
        for length in FRAMES_PER_PACKET:
            for start in range(0, len(frames) - length + 1, length):
                levels = quantise_lattice(frames[start : start + length], step)
                for context, level in lattice_coded.contexts(levels):
                    histogram[context, level + MAX_LEVEL] += 1
    return np.stack([_frequencies(row, 0.5 + n / 2) for n, row in enumerate(histogram)])


def _coded_numbers(coefficients: list[F32Array], step: float, context: int) -> NDArray[np.int64]:
    """The integers that the coder would see in a context, (n, 60)."""
    found = []
    for rows in coefficients:
        for length in FRAMES_PER_PACKET:
            whole = rows[: len(rows) // length * length].reshape(-1, length, NUMBERS) / step
            before = np.rint(whole[:, 0])
            if context == 0:
                found.append(before)
                continue
            for position in range(1, length):
                now = np.where(
                    np.abs(whole[:, position] - before) < HOLD, before, np.rint(whole[:, position])
                )
                found.append(now - before)
                before = now
    return np.concatenate(found).astype(np.int64)


def _count(
    histogram: NDArray[np.float64],
    numbers: NDArray[np.int64],
    classes: NDArray[np.uint8],
    shifts: NDArray[np.uint8],
) -> None:
    for component in range(NUMBERS):
        row = classes[component]
        high = numbers[:, component] >> shifts[row]
        symbols = np.where(np.abs(high) <= MAX_HIGH, high + MAX_HIGH, SYMBOLS - 1)
        histogram[row] += np.bincount(symbols, minlength=SYMBOLS)


def _frequencies(histogram: NDArray[np.float64], magnitude: float) -> NDArray[np.uint16]:
    """Integer frequencies, all above 0, that sum to at most 65536."""
    distance = np.abs(np.arange(len(histogram)) - (len(histogram) - 1) // 2)
    tail = np.exp(-distance / max(magnitude, 0.3))
    seen = histogram / histogram.sum() if histogram.sum() else tail / tail.sum()
    mixed = (1 - SMOOTHING) * seen + SMOOTHING * tail / tail.sum() + 1e-4
    scaled = np.floor(mixed / mixed.sum() * (FREQUENCY_SUM - len(histogram) - 1)) + 1
    return np.minimum(scaled, FREQUENCY_SUM - 1).astype(np.uint16)


def write_tables(tables: MotionTables, folder: Path) -> Path:
    """Write motion.safetensors into a weights folder and its sha256 into the manifest."""
    path = folder / MOTION_TABLES_NAME
    data = tables.to_bytes({})
    path.write_bytes(data)
    manifest = load_manifest(folder)
    manifest["sha256"][path.name] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return path
