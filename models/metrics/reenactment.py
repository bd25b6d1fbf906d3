"""Cross-identity: a face that moves as another person does. There is no original to compare with.

Measured is what can be: whether the person stays the one of the photo (AED against the photo), and whether
the motion is the driver's (LMD of the landmarks' way since the first frame).
"""

from collections.abc import Sequence

import numpy as np

from avcall.types import F32Array
from models.metrics.identity import embedding_distance
from models.metrics.judge import Face
from models.metrics.picture import face_width


def compare_driven(
    found: Sequence[Face | None], driving: Sequence[Face | None], photo: Face
) -> dict[str, float]:
    """`aed`, `lmd` and `face_lost` of a clip, from the faces `found` in its pictures and in the driver's."""
    values = {"face_lost": float(np.mean([face is None for face in found]))}
    identity = [
        embedding_distance(face.embedding, photo.embedding)
        for face in found
        if face is not None and face.embedding is not None and photo.embedding is not None
    ]
    if identity:
        values["aed"] = float(np.mean(identity))
    motion = motion_distance(
        [face.landmarks if face else None for face in found],
        [face.landmarks if face else None for face in driving],
    )
    return values if motion is None else values | {"lmd": motion}


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
    return (now - start) / face_width(start)
