"""Cross-identity: a photo that moves as another person does. There is no original to compare with.

Measured is what can be: whether the pictures look like real ones (FD-EffNet against the driver's own
pictures), whether the person stays the one of the photo (AED against the photo), whether the motion is the
driver's (LMD of the landmarks' way since the first frame), and Sync.
"""

from dataclasses import replace

import numpy as np

from avcall.bench.measures import Scores
from avcall.bench.score import Judge, Reference, Scored
from avcall.errors import PhotoError
from avcall.types import F32Array, U8Image
from models.metrics.identity import embedding_distance
from models.training.metrics import FACE_SIDES


class CrossJudge:
    """Scores one photo's reenactments; thread-safe as `Judge` is."""

    def __init__(self, judge: Judge, photo: U8Image) -> None:
        """`photo` (256, 256, 3) is the crop. Raises PhotoError when its face is not found again."""
        landmarks = judge.landmarks(photo)
        if landmarks is None:
            raise PhotoError("--source: no face is found in the crop of the photo; give a frontal one")
        self.photo = photo
        self._judge = judge
        self._identity = judge.embed(photo, landmarks)

    def score(self, reference: Reference, frames: U8Image) -> Scored:
        """`reference` is the driver's clip, `frames` (frames, 256, 256, 3) the photo's reenactment."""
        whole = self._judge.score(reference, frames)
        found = [self._judge.landmarks(frames[sample.index]) for sample in reference.samples]
        identity = [
            embedding_distance(self._judge.embed(frames[sample.index], points), self._identity)
            for sample, points in zip(reference.samples, found, strict=True)
            if points is not None
        ]
        driving = [sample.landmarks for sample in reference.samples]
        kept = Scores(
            fd_effnet=whole.scores.fd_effnet,
            fid=whole.scores.fid,
            lmd=motion_distance(found, driving),
            aed=float(np.mean(identity)) if identity else None,
            lse_d=whole.scores.lse_d,
            lse_c=whole.scores.lse_c,
            face_lost=float(np.mean([points is None for points in found])),
        )
        return replace(whole, scores=kept)


def motion_distance(found: list[F32Array | None], driving: list[F32Array | None]) -> float | None:
    """Mean distance of the ways that landmarks (478, 2) went since the first frame, in % of the face's width.

    Each way is measured in widths of its own face. None when the first frame lacks a face, or all others do.
    """
    if not found or found[0] is None or driving[0] is None:
        return None
    distances = [
        np.linalg.norm(_way(got, found[0]) - _way(wanted, driving[0]), axis=1).mean()
        for got, wanted in zip(found[1:], driving[1:], strict=True)
        if got is not None and wanted is not None
    ]
    return 100 * float(np.mean(distances)) if distances else None


def _way(now: F32Array, start: F32Array) -> F32Array:
    width = np.linalg.norm(start[FACE_SIDES[0]] - start[FACE_SIDES[1]])
    return (now - start) / width
