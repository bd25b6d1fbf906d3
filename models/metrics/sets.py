"""Measures of sets of pictures and of whole clips: Frechet distances, and Sync."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avcall.types import F32Array, Pcm, U8Image
from models.metrics import effnet, sync
from models.metrics.frechet import MIN_SAMPLES, frechet_distance
from models.metrics.inception import Inception


@dataclass(frozen=True, slots=True)
class Features:
    """(n, d) features of n pictures; `inception` is None unless the user gave a file."""

    effnet: F32Array
    inception: F32Array | None = None


def join(parts: Sequence[Features]) -> Features:
    """The features of several sets as one."""
    inception = [part.inception for part in parts if part.inception is not None]
    return Features(
        np.concatenate([part.effnet for part in parts]), np.concatenate(inception) if inception else None
    )


def compare_sets(got: Features, wanted: Features) -> dict[str, float]:
    """`fd_effnet`, and `fid` where both have it; nothing for sets of fewer than two pictures."""
    if min(len(got.effnet), len(wanted.effnet)) < MIN_SAMPLES:
        return {}
    values = {"fd_effnet": frechet_distance(got.effnet, wanted.effnet)}
    if got.inception is not None and wanted.inception is not None:
        values["fid"] = frechet_distance(got.inception, wanted.inception)
    return values


class SetJudge:
    """Owns the networks; may be used from several threads."""

    def __init__(self, inception: Path | None = None, syncnet: Path | None = None) -> None:
        """Raises InputError for a package or a file that is missing."""
        self._effnet = effnet.load()
        self._inception = Inception(inception) if inception else None
        self._syncnet = sync.load(syncnet) if syncnet else None

    @property
    def hears(self) -> bool:
        """Whether Sync is measured."""
        return self._syncnet is not None

    def features(self, pictures: Sequence[U8Image]) -> Features:
        """Of pictures (H, W, 3)."""
        inception = None if self._inception is None else self._inception.features(pictures)
        return Features(effnet.features(self._effnet, pictures), inception)

    def sync(self, frames: U8Image, landmarks: Sequence[F32Array], pcm: Pcm) -> dict[str, float]:
        """`lse_d` and `lse_c` of consecutive frames (n, 256, 256, 3); `landmarks` (478, 2) of some of them
        say where the face is. Nothing without SyncNet, speech or a face."""
        if self._syncnet is None or not len(pcm) or not landmarks:
            return {}
        place = np.median(np.stack(landmarks), 0).astype(np.float32)
        found = sync.measure(self._syncnet, frames, place, pcm)
        return {"lse_d": found.distance, "lse_c": found.confidence}
