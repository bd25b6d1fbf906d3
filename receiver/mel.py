"""Mel: keeps the last seconds of decoded speech and cuts the window that belongs to a picture."""

import threading

import numpy as np

from avcall.types import FRAME_MS, SAMPLE_RATE_HZ, F32Array, Pcm
from models.config import MEL_BANDS, MEL_STEPS
from models.mel import mel_window

KEPT_SAMPLES = 4 * SAMPLE_RATE_HZ
SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000


class MelWindows:
    """A rolling store of speech; written by the audio thread, read by the picture's."""

    def __init__(self) -> None:
        self._pcm: Pcm = np.zeros(0, np.int16)
        self._end = 0  # sample position, in media time, after the newest speech
        self._lock = threading.Lock()
        self._heard = False

    def push(self, pcm: Pcm, pts_ms: int) -> None:
        """Add decoded speech (samples,) int16 whose first sample is at `pts_ms`."""
        start = pts_ms * SAMPLES_PER_MS
        with self._lock:
            gap = start - self._end
            if abs(gap) > KEPT_SAMPLES:  # another timeline
                self._pcm = np.zeros(0, np.int16)
                gap = 0
            # What is pushed again, after a jump of the playout, replaces what was there.
            known = self._pcm[: max(0, len(self._pcm) + min(gap, 0))]
            self._pcm = np.concatenate([known, np.zeros(max(gap, 0), np.int16), pcm])[-KEPT_SAMPLES:]
            self._end = start + len(pcm)
            self._heard = True

    def window(self, pts_ms: int) -> tuple[F32Array, bool]:
        """(80, 16) centred on the picture shown from `pts_ms` on, and whether there is speech to go by."""
        with self._lock:
            if not self._heard:
                return np.zeros((MEL_BANDS, MEL_STEPS), np.float32), False
            centre = pts_ms * SAMPLES_PER_MS + FRAME_MS * SAMPLES_PER_MS // 2
            return mel_window(self._pcm, centre - (self._end - len(self._pcm))), True
