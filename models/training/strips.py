"""The frames of a clip that tell most, as one picture."""

from dataclasses import dataclass

import numpy as np

from avcall.types import F32Array, U8Image
from models.metrics.picture import landmark_distance

UPPER_LID, LOWER_LID = (159, 386), (145, 374)  # landmarks at the middle of each eye's lids
UPPER_LIP, LOWER_LIP = (13,), (14,)


@dataclass(frozen=True, slots=True)
class Line:
    """One frame: its number, the driver's landmarks (478, 2), and pictures side by side."""

    index: int
    landmarks: F32Array | None
    pictures: tuple[U8Image, ...]


def openness(landmarks: F32Array, upper: tuple[int, ...], lower: tuple[int, ...]) -> float:
    """Mean distance in pixels between `upper` and `lower` landmarks of (478, 2)."""
    return float(np.linalg.norm(landmarks[list(upper)] - landmarks[list(lower)], axis=1).mean())


def worth(now: F32Array, before: F32Array) -> dict[str, float]:
    """What makes a frame worth showing: an open mouth, closed eyes, a head far from where it was before."""
    return {
        "mouth": openness(now, UPPER_LIP, LOWER_LIP),
        "eyes": -openness(now, UPPER_LID, LOWER_LID),
        "head": landmark_distance(now, before),
    }


class Strip:
    """Keeps the frames with the widest mouth, the most closed eyes, and the head farthest from the first."""

    def __init__(self, start: F32Array | None) -> None:
        """`start` are the landmarks of the driver's first frame."""
        self._start = start
        self._best: dict[str, tuple[float, Line]] = {}

    def offer(self, line: Line) -> None:
        """Take a frame if it tells more than the one kept."""
        if line.landmarks is None or self._start is None:
            return
        for name, value in worth(line.landmarks, self._start).items():
            if name not in self._best or value > self._best[name][0]:
                self._best[name] = (value, line)

    def picture(self) -> U8Image | None:
        """A line a frame, (H, W, 3); None without one."""
        chosen = sorted({line.index: line for _, line in self._best.values()}.items())
        if not chosen:
            return None
        return np.concatenate([np.concatenate(line.pictures, 1) for _, line in chosen], 0)
