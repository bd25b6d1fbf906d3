"""When to take a keyframe: not in a blink. Everything drawn from a keyframe has its eyes."""

from collections import deque

import numpy as np

from avcall.types import F32Array
from models.expressions import EYES, opening

HISTORY = 50  # frames: 2 s
NEARLY_OPEN = 0.8  # of the median over these
SURELY_CLOSED = 0.13  # height over width; in 14 of 528 clips the median is below it: they wait
PATIENCE = 10  # frames: longer than a blink; whoever looks down is taken as they are


class OpenEyes:
    """Sees the face's landmarks frame by frame and says whether this one may become a keyframe."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=HISTORY)
        self._waited = 0

    def see(self, landmarks: F32Array) -> None:
        """(478, 2), of the next frame with a face."""
        self._seen.append(float(np.mean([opening(landmarks[None], *eye)[0] for eye in EYES])))

    def allow(self) -> bool:
        """Whether the frame seen last will do: the eyes are open, or have been waited for long enough."""
        closed = self._seen[-1] < max(NEARLY_OPEN * float(np.median(self._seen)), SURELY_CLOSED)
        self._waited = self._waited + 1 if closed else 0
        if closed and self._waited <= PATIENCE:
            return False
        self._waited = 0
        return True
