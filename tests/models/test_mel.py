"""Mel windows of sounds whose spectrum is known."""

import numpy as np
import pytest

from avcall.types import SAMPLE_RATE_HZ, F32Array
from models.config import MEL_BANDS, MEL_STEPS
from models.mel import (
    FFT_SAMPLES,
    HIGHEST_HZ,
    HOP_SAMPLES,
    LOWEST_HZ,
    WINDOW_SAMPLES,
    mel_filters,
    mel_window,
)
from tests.clips import tone


def band_centre_hz(band: int) -> float:
    """Where a filter peaks, from its own weights."""
    filters: F32Array = mel_filters()
    bins = np.arange(FFT_SAMPLES // 2 + 1) * SAMPLE_RATE_HZ / FFT_SAMPLES
    return float((filters[band] * bins).sum() / filters[band].sum())


def test_silence_is_zero() -> None:
    window = mel_window(np.zeros(16_000, np.int16), 8000)
    assert window.shape == (MEL_BANDS, MEL_STEPS)
    assert window.dtype == np.float32
    assert not window.any()


@pytest.mark.parametrize("hz", [200.0, 1000.0, 3000.0, 6000.0])
def test_a_tone_lights_its_own_band(hz: float) -> None:
    window = mel_window(tone(hz, 1000), 8000)
    loudest = int(window.mean(1).argmax())
    neighbour = band_centre_hz(loudest + 1) - band_centre_hz(loudest)
    assert abs(band_centre_hz(loudest) - hz) <= neighbour
    assert window[loudest].min() > window[(loudest + 40) % MEL_BANDS].max() + 0.2


def test_twice_as_loud_is_six_decibels() -> None:
    quiet, loud = (mel_window(tone(1000, 1000, level), 8000) for level in (200.0, 400.0))
    band = int(loud.mean(1).argmax())
    assert (loud - quiet)[band].mean() * 80 == pytest.approx(6.02, abs=0.1)


@pytest.mark.parametrize("centre", [-100_000, 0, 15_999, 100_000])
def test_beyond_the_ends_is_silence(centre: int) -> None:
    window = mel_window(tone(1000, 1000), centre)
    assert window.shape == (MEL_BANDS, MEL_STEPS)
    assert window.any() == (0 <= centre < 16_000)


def test_no_sound_at_all_is_silence() -> None:
    assert not mel_window(np.zeros(0, np.int16), 0).any()


def test_the_window_is_centred() -> None:
    pcm = np.zeros(16_000, np.int16)
    pcm[8000] = 30_000  # a click
    steps = mel_window(pcm, 8000).sum(0)
    heard = np.flatnonzero(steps)
    assert heard.min() + heard.max() == MEL_STEPS - 1  # as far from the first step as from the last
    assert WINDOW_SAMPLES == FFT_SAMPLES + 15 * HOP_SAMPLES


def test_the_filters_cover_the_range_and_nothing_else() -> None:
    filters = mel_filters()
    bins = np.arange(FFT_SAMPLES // 2 + 1) * SAMPLE_RATE_HZ / FFT_SAMPLES
    outside = (bins <= LOWEST_HZ) | (bins >= HIGHEST_HZ)
    assert filters.shape == (MEL_BANDS, FFT_SAMPLES // 2 + 1)
    assert filters[:, outside].max() < 1e-6 < filters.max()
    assert (np.diff([band_centre_hz(b) for b in range(10, MEL_BANDS)]) > 0).all()
