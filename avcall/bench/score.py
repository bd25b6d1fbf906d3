"""Scoring: a decoded clip against the frames that went in.

L1, PSNR and flicker look at every frame, the rest at every k-th. What the original alone decides is computed
once for a clip and shared; mediapipe and dlib are not thread-safe, so each thread has its own.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avcall.bench.clip import Clip
from avcall.bench.measures import Scores
from avcall.types import FRAME_SIZE_PX, F32Array, U8Image
from models.metrics import effnet
from models.metrics.frechet import frechet_distance
from models.metrics.identity import FaceEmbedder, embedding_distance
from models.metrics.inception import Inception
from models.metrics.multiscale import flicker, ms_ssim
from models.metrics.perceptual import PerceptualPair, one_thread
from models.metrics.sync import load as load_syncnet
from models.metrics.sync import measure as measure_sync
from models.priors import PriorExtractor
from models.training.metrics import LIPS, Box, box_around, l1, landmark_distance, mouth_box, psnr, ssim_map


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one decoded clip, and the features (n, d) by which sets of clips are compared."""

    scores: Scores
    effnet: F32Array
    inception: F32Array | None = None


@dataclass(frozen=True, slots=True)
class _Sample:
    """One frame of the original that is looked at closely."""

    index: int
    rgb: U8Image
    landmarks: F32Array | None
    embedding: NDArray[np.float64] | None
    perceptual: Any


@dataclass(slots=True)
class Reference:
    """A clip with what is computed once of its frames; made by `Judge.reference`."""

    clip: Clip
    frames: U8Image
    samples: list[_Sample]
    effnet: F32Array
    inception: F32Array | None


@dataclass(slots=True)
class _Sums:
    """Values of one measure over the frames that have it."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        return {name: float(np.mean(values)) for name, values in self.values.items()}


class Judge:
    """Owns the networks of the measures. `reference` and `score` may be called from several threads."""

    def __init__(self, every: int = 5, inception: Path | None = None, syncnet: Path | None = None) -> None:
        """Look at every `every`-th frame. Raises InputError for a package or a file that is missing."""
        self._every = every
        self._perceptual = PerceptualPair()
        self._effnet = effnet.load()
        self._inception = Inception(inception) if inception else None
        self._syncnet = load_syncnet(syncnet) if syncnet else None
        self._local = threading.local()
        FaceEmbedder()  # so that what is missing is said at the start

    def close(self) -> None:
        """Forget the networks; those of mediapipe are freed with their threads."""
        self._local = threading.local()

    def reference(self, clip: Clip) -> Reference:
        """What the original alone decides."""
        one_thread()
        frames = clip.frames
        samples = [self._sample(index, frames[index]) for index in range(0, len(frames), self._every)]
        pictures = [sample.rgb for sample in samples]
        return Reference(
            clip, frames, samples, effnet.features(self._effnet, pictures), self._inception_features(pictures)
        )

    def score(self, reference: Reference, decoded: U8Image) -> Scored:
        """Scores of `decoded` (frames, 256, 256, 3). Raises ValueError when it has another shape."""
        if decoded.shape != reference.frames.shape:
            raise ValueError(f"{decoded.shape} frames for {reference.frames.shape}")
        one_thread()
        sums = _Sums()
        for got, wanted in zip(decoded, reference.frames, strict=True):
            sums.add("l1", l1(got, wanted))
            sums.add("psnr", psnr(got, wanted))
        for sample in reference.samples:
            self._look(sums, decoded[sample.index], sample)
        pictures = [decoded[sample.index] for sample in reference.samples]
        features = effnet.features(self._effnet, pictures)
        inception = self._inception_features(pictures)
        whole = {
            "flicker": flicker(decoded, reference.frames),
            "fd_effnet": frechet_distance(features, reference.effnet),
        }
        if inception is not None and reference.inception is not None:
            whole["fid"] = frechet_distance(inception, reference.inception)
        whole |= self._sync(reference, decoded)
        return Scored(Scores(**sums.means(), **whole), features, inception)

    def landmarks(self, rgb: U8Image) -> F32Array | None:
        """Landmarks (478, 2) of the face, or None without one."""
        faces = self._tools()[0].faces(np.ascontiguousarray(rgb))
        return faces[0] if faces else None

    def embed(self, rgb: U8Image, landmarks: F32Array) -> NDArray[np.float64]:
        """(128,) of the face with these landmarks."""
        return self._tools()[1].embed(np.ascontiguousarray(rgb), landmarks)

    def _tools(self) -> tuple[PriorExtractor, FaceEmbedder]:
        if not hasattr(self._local, "tools"):
            self._local.tools = (PriorExtractor(tracking=False), FaceEmbedder())
        tools: tuple[PriorExtractor, FaceEmbedder] = self._local.tools
        return tools

    def _sample(self, index: int, rgb: U8Image) -> _Sample:
        landmarks = self.landmarks(rgb)
        embedding = None if landmarks is None else self.embed(rgb, landmarks)
        return _Sample(index, rgb, landmarks, embedding, self._perceptual.features(rgb, half=True))

    def _inception_features(self, pictures: Sequence[U8Image]) -> F32Array | None:
        return None if self._inception is None else self._inception.features(pictures)

    def _look(self, sums: _Sums, got: U8Image, sample: _Sample) -> None:
        """Every measure of one frame."""
        similar = ssim_map(got, sample.rgb)
        sums.add("ssim", float(similar.mean()))
        sums.add("ms_ssim", ms_ssim(got, sample.rgb))
        boxes: dict[str, Box] = {}
        if sample.landmarks is not None:
            boxes["face"] = box_around(sample.landmarks, 0, FRAME_SIZE_PX)
            boxes["mouth"] = mouth_box(sample.landmarks, FRAME_SIZE_PX)
        distances = self._perceptual.distances(self._perceptual.features(got), sample.perceptual, boxes)
        for name, value in distances.items():
            sums.add(name, value)
        for name, box in boxes.items():
            part, wanted = box.cut(got), box.cut(sample.rgb)
            sums.add(f"{name}_l1", l1(part, wanted))
            sums.add(f"{name}_psnr", psnr(part, wanted))
            sums.add(f"{name}_ssim", float(box.cut(similar).mean()))
        self._compare_faces(sums, got, sample)

    def _compare_faces(self, sums: _Sums, got: U8Image, sample: _Sample) -> None:
        if sample.landmarks is None or sample.embedding is None:
            return
        found = self.landmarks(got)
        sums.add("face_lost", float(found is None))
        if found is None:
            return
        sums.add("lmd", landmark_distance(found, sample.landmarks))
        sums.add("lmd_lips", landmark_distance(found, sample.landmarks, LIPS))
        sums.add("aed", embedding_distance(self.embed(got, found), sample.embedding))

    def _sync(self, reference: Reference, decoded: U8Image) -> dict[str, float]:
        pcm = reference.clip.pcm
        seen = [s.landmarks for s in reference.samples if s.landmarks is not None]
        if self._syncnet is None or not len(pcm) or not seen:
            return {}
        found = measure_sync(self._syncnet, decoded, np.median(np.stack(seen), 0).astype(np.float32), pcm)
        return {"lse_d": found.distance, "lse_c": found.confidence}
