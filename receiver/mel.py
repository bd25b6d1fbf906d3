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
        self._pcm: Pcm = np.zeros(KEPT_SAMPLES, np.int16)
        self._end = 0  # sample position, in media time, after the newest speech
        self._lock = threading.Lock()
        self._heard = False

    def push(self, pcm: Pcm, pts_ms: int) -> None:
        """Add decoded speech (samples,) int16 whose first sample is at `pts_ms`."""
        start = pts_ms * SAMPLES_PER_MS
        with self._lock:
            gap = start - self._end
            if gap < 0 or gap > KEPT_SAMPLES:
                self._pcm[:] = 0
                gap = 0
            fresh = np.concatenate([np.zeros(gap, np.int16), pcm])[-KEPT_SAMPLES:]
            self._pcm = np.concatenate([self._pcm[len(fresh) :], fresh])
            self._end = start + len(pcm)
            self._heard = True

    def window(self, pts_ms: int) -> tuple[F32Array, bool]:
        """(80, 16) centred on the picture shown from `pts_ms` on, and whether there is any speech to go by."""
        with self._lock:
            if not self._heard:
                return np.zeros((MEL_BANDS, MEL_STEPS), np.float32), False
            centre = pts_ms * SAMPLES_PER_MS + FRAME_MS * SAMPLES_PER_MS // 2
            return mel_window(self._pcm, centre - (self._end - KEPT_SAMPLES)), True
