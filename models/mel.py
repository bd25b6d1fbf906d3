"""Log-mel windows, speech input of the network (AVFR section 3.2: 16 kHz, n_fft 800, hop 200, 80 bands)."""

from functools import cache

import numpy as np

from avcall.types import SAMPLE_RATE_HZ, F32Array, Pcm
from models.config import MEL_BANDS, MEL_STEPS

FFT_SAMPLES = 800
HOP_SAMPLES = 200
LOWEST_HZ = 55.0
HIGHEST_HZ = 7600.0
FLOOR_DB = -60.0  # of the mel magnitude; quieter is 0
RANGE_DB = 80.0  # FLOOR_DB + RANGE_DB is 1
WINDOW_SAMPLES = FFT_SAMPLES + (MEL_STEPS - 1) * HOP_SAMPLES  # speech that one window looks at


def _hz_to_mel(hz: float) -> float:
    """Slaney's scale: linear below 1 kHz, logarithmic above."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000)) / float(np.log(6.4))


def _mel_to_hz(mel: F32Array) -> F32Array:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27)).astype(np.float32)


@cache
def mel_filters() -> F32Array:
    """Triangular filters of equal area, (80, 401)."""
    edges = _mel_to_hz(
        np.linspace(_hz_to_mel(LOWEST_HZ), _hz_to_mel(HIGHEST_HZ), MEL_BANDS + 2, dtype=np.float32)
    )
    bins = np.arange(FFT_SAMPLES // 2 + 1) * SAMPLE_RATE_HZ / FFT_SAMPLES
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None], np.float32)


def mel_window(pcm: Pcm, centre_sample: int) -> F32Array:
    """The window centred on a sample of `pcm` (samples,) int16: (80, 16) float32 in [0, 1].

    Speech before the start and after the end counts as silence.
    """
    start = centre_sample - WINDOW_SAMPLES // 2
    piece = np.zeros(WINDOW_SAMPLES, np.float32)
    low, high = max(start, 0), min(start + WINDOW_SAMPLES, len(pcm))
    if low < high:
        piece[low - start : high - start] = pcm[low:high] / np.float32(32768)
    frames = np.lib.stride_tricks.sliding_window_view(piece, FFT_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(FFT_SAMPLES + 1)[:-1].astype(np.float32), axis=1))
    decibel = 20 * np.log10(np.maximum(mel_filters() @ spectrum.T, 1e-5))
    return np.clip((decibel - FLOOR_DB) / RANGE_DB, 0.0, 1.0).astype(np.float32)
