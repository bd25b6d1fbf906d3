"""From face clips to training data: one file a clip, with pictures, landmarks, masks and speech.

A prepared clip is an uncompressed npz: `jpeg` (bytes of all frames), `offset` (frames + 1), `landmarks`
(frames, 478, 2) uint16 in 1/128 pixel (all zero where no face was found), `mask` (frames, 64, 64) uint8 and
`pcm` (samples,) int16 at 16 kHz, empty without sound.
"""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

from avcall.errors import InputError
from avcall.types import FRAME_RATE, FRAME_SIZE_PX, SAMPLE_RATE_HZ, F32Array, Pcm, U8Image
from models.priors import NUM_LANDMARKS, PriorExtractor

LANDMARK_SCALE = 128  # landmarks are kept in 1/128 pixel, which uint16 holds up to 512 pixels
JPEG_QUALITY = 95
MIN_FRAMES = 25  # shorter clips give no pairs worth training on
MIN_FACE_SHARE = 0.8  # of the frames of a clip
NAME_JOINT = "__"
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".mov", ".avi"})


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of one clip: `refused` is the reason, or None when it was taken."""

    source: Path
    frames: int
    refused: str | None = None


def find_videos(sources: list[Path]) -> dict[str, Path]:
    """Every video under `sources`, by the name of its prepared clip; InputError when there is none.

    A video in sub-folders is named by all of them (VoxCeleb's person/video/clip), so that none hides another.
    """
    found: dict[str, Path] = {}
    for source in sources:
        videos = [source] if source.is_file() else sorted(source.rglob("*"))
        for video in videos:
            if video.suffix.lower() in VIDEO_SUFFIXES:
                inside = Path(video.name) if source.is_file() else video.relative_to(source)
                found.setdefault(NAME_JOINT.join(inside.with_suffix("").parts), video)
    if not found:
        raise InputError(f"no video in {', '.join(map(str, sources))}; give a folder that holds face clips")
    return found


def read_pictures(path: Path) -> Iterator[U8Image]:
    """Frames (256, 256, 3) uint8 of an already cropped clip, resampled to 25 a second by repetition."""
    with av.open(str(path)) as container:
        rate = Fraction(FRAME_RATE)
        due = 0
        for frame in container.decode(video=0):
            seconds = frame.time or 0.0
            while due <= seconds * rate + 0.5:
                rgb = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                if rgb.shape[:2] != (FRAME_SIZE_PX, FRAME_SIZE_PX):
                    rgb = cv2.resize(rgb, (FRAME_SIZE_PX, FRAME_SIZE_PX), interpolation=cv2.INTER_AREA)
                yield rgb
                due += 1


def read_speech(path: Path) -> Pcm:
    """Mono speech of a clip, (samples,) int16 at 16 kHz; empty when it has no sound."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return np.zeros(0, np.int16)
        resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ)
        parts = [
            out.to_ndarray()[0] for frame in container.decode(audio=0) for out in resampler.resample(frame)
        ]
        parts += [out.to_ndarray()[0] for out in resampler.resample(None)]
    return np.concatenate(parts).astype(np.int16) if parts else np.zeros(0, np.int16)


def _look(source: Path) -> tuple[list[bytes], list[F32Array], list[U8Image]]:
    """JPEG, landmarks (all zero without a face) and mask of every frame."""
    jpegs: list[bytes] = []
    landmarks: list[F32Array] = []
    masks: list[U8Image] = []
    with PriorExtractor() as extractor:
        for rgb in read_pictures(source):
            priors = extractor.extract(rgb)
            found = priors.landmarks
            landmarks.append(np.zeros((NUM_LANDMARKS, 2), np.float32) if found is None else found)
            masks.append(priors.mask)
            bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
            jpegs.append(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())
    return jpegs, landmarks, masks


def _write(target: Path, arrays: dict[str, NDArray[Any]]) -> None:
    partial = target.with_suffix(".part")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"{target} cannot be written ({error.strerror}); free some space and prepare again: "
            "what is done is kept"
        ) from None


def prepare_clip(source: Path, target: Path) -> Prepared:
    """Turn one clip into `target` (npz), written whole or not at all. Raises InputError on a full disk."""
    cv2.setNumThreads(1)
    try:
        jpegs, landmarks, masks = _look(source)
        pcm = read_speech(source)
    except (av.error.FFmpegError, IndexError) as error:
        return Prepared(source, 0, f"not readable as video: {error}")
    if len(jpegs) < MIN_FRAMES:
        return Prepared(source, len(jpegs), f"shorter than {MIN_FRAMES} frames")
    points = np.stack(landmarks)
    if points.any(axis=(1, 2)).mean() < MIN_FACE_SHARE:
        return Prepared(source, len(jpegs), f"a face in less than {MIN_FACE_SHARE:.0%} of its frames")
    arrays: dict[str, NDArray[Any]] = {
        "jpeg": np.frombuffer(b"".join(jpegs), np.uint8),
        "offset": np.cumsum([0, *map(len, jpegs)]).astype(np.int64),
        "landmarks": np.clip(points * LANDMARK_SCALE + 0.5, 0, 65535).astype(np.uint16),
        "mask": np.stack(masks),
        "pcm": pcm,
    }
    _write(target, arrays)
    return Prepared(source, len(jpegs))


def prepare(sources: list[Path], out: Path, workers: int) -> Iterator[Prepared]:
    """Prepare every clip under `sources` into `out`, skipping those already there; yields as clips finish.

    Raises InputError when there is no video, or when `out` cannot be written.
    """
    videos = find_videos(sources)
    out.mkdir(parents=True, exist_ok=True)
    # Forked workers would inherit locks of threads that are not there.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(prepare_clip, video, out / f"{name}.npz")
            for name, video in videos.items()
            if not (out / f"{name}.npz").exists()
        ]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)
