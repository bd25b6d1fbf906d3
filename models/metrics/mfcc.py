"""Mel-frequency cepstral coefficients as SyncNet was trained on them: those of `python_speech_features`.

Davis and Mermelstein 1980, with HTK's mel scale, a boxcar window, a lifter, and the log energy in place of
the first coefficient.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from avcall.types import SAMPLE_RATE_HZ, Pcm

F64 = NDArray[np.float64]
WINDOW, HOP = SAMPLE_RATE_HZ * 25 // 1000, SAMPLE_RATE_HZ * 10 // 1000
FFT_SIZE, BANDS, COEFFICIENTS = 512, 26, 13
PREEMPHASIS, LIFTER = 0.97, 22
STEPS_A_SECOND = 100


def mfcc(pcm: Pcm) -> F64:
    """(steps, 13) of (samples,) at 16 kHz, one step every 10 ms; the last window is padded with silence."""
    signal = pcm.astype(np.float64)
    signal = np.append(signal[:1], signal[1:] - PREEMPHASIS * signal[:-1])
    steps = 1 + max(0, -(-(len(signal) - WINDOW) // HOP))
    signal = np.pad(signal, (0, max(0, (steps - 1) * HOP + WINDOW - len(signal))))
    windows = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP][:steps]
    power = np.square(np.abs(np.fft.rfft(windows, FFT_SIZE))) / FFT_SIZE
    tiny = np.finfo(float).eps
    bands = np.log(np.maximum(power @ _filters().T, tiny))
    cepstrum = dct(bands, type=2, axis=1, norm="ortho")[:, :COEFFICIENTS]
    cepstrum *= 1 + (LIFTER / 2) * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    cepstrum[:, 0] = np.log(np.maximum(power.sum(1), tiny))
    return np.asarray(cepstrum)


def _filters() -> F64:
    """(26, 257) triangles, evenly spaced in mel from 0 Hz to half the sampling rate."""
    top_mel = 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    corners_hz = 700 * (10 ** (np.linspace(0, top_mel, BANDS + 2) / 2595) - 1)
    bins = np.floor((FFT_SIZE + 1) * corners_hz / SAMPLE_RATE_HZ)
    n = np.arange(FFT_SIZE // 2 + 1)
    filters = np.zeros((BANDS, len(n)))
    for band, (low, middle, high) in enumerate(zip(bins[:-2], bins[1:-1], bins[2:], strict=True)):
        rising = (n >= low) & (n < middle)
        falling = (n >= middle) & (n < high)
        filters[band, rising] = (n[rising] - low) / (middle - low)
        filters[band, falling] = (high - n[falling]) / (high - middle)
    return filters
