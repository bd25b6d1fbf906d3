"""Scoring: a decoded clip against the frames that went in.

L1, PSNR and flicker look at every frame, the rest at every k-th. What the original alone decides is computed
once for a clip and shared by all codecs.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avcall.bench.clip import Clip
from avcall.types import U8Image
from models.metrics.judge import Face, FrameJudge, Seen
from models.metrics.measures import Scores, mean_of
from models.metrics.multiscale import flicker
from models.metrics.perceptual import one_thread
from models.metrics.picture import l1, psnr
from models.metrics.sets import Features, SetJudge, compare_sets


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one decoded clip, and the features by which sets of clips are compared."""

    scores: Scores
    features: Features


@dataclass(frozen=True, slots=True)
class Sample:
    """A frame of the original that is looked at closely."""

    index: int
    seen: Seen


@dataclass(frozen=True, slots=True)
class Reference:
    """A clip with what is computed once of its frames; made by `Judge.reference`."""

    clip: Clip
    frames: U8Image
    samples: tuple[Sample, ...]
    features: Features


class Judge:
    """Owns the networks of the measures. `reference` and `score` may be called from several threads."""

    def __init__(self, every: int = 5, inception: Path | None = None, syncnet: Path | None = None) -> None:
        """Look at every `every`-th frame. Raises InputError for a package or a file that is missing."""
        self._every = every
        self._frames, self._sets = FrameJudge(), SetJudge(inception, syncnet)

    def reference(self, clip: Clip) -> Reference:
        """What the original alone decides."""
        one_thread()
        frames = clip.frames
        chosen = range(0, len(frames), self._every)
        samples = tuple(Sample(index, self._frames.see(frames[index], half=True)) for index in chosen)
        return Reference(clip, frames, samples, self._sets.features([frames[index] for index in chosen]))

    def score(self, reference: Reference, decoded: U8Image) -> Scored:
        """Scores of `decoded` (frames, 256, 256, 3). Raises ValueError when it has another shape."""
        if decoded.shape != reference.frames.shape:
            raise ValueError(f"{decoded.shape} frames for {reference.frames.shape}")
        one_thread()
        looked = [
            self._frames.compare(self._frames.see(decoded[sample.index]), sample.seen)
            for sample in reference.samples
        ]
        pairs = list(zip(decoded, reference.frames, strict=True))
        whole = {
            "l1": float(np.mean([l1(got, wanted) for got, wanted in pairs])),
            "psnr": float(np.mean([psnr(got, wanted) for got, wanted in pairs])),
            "flicker": flicker(decoded, reference.frames),
        }
        scored = self.score_as_set(reference, decoded)
        return Scored(Scores(**mean_of(looked) | whole | scored[0]), scored[1])

    def score_as_set(self, reference: Reference, decoded: U8Image) -> tuple[dict[str, float], Features]:
        """Frechet distances and Sync, which need no frame to be the original's; and the features."""
        one_thread()
        features = self._sets.features([decoded[sample.index] for sample in reference.samples])
        places = [s.seen.face.landmarks for s in reference.samples if s.seen.face is not None]
        values = compare_sets(features, reference.features)
        return values | self._sets.sync(decoded, places, reference.clip.pcm), features

    def find_face(self, rgb: U8Image) -> Face | None:
        """The face of a picture (H, W, 3), or None without one."""
        return self._frames.find_face(rgb)
