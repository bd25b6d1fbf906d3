"""The Opus decoder, and with the encoder the promise that sound comes out at the pts at which it went in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avcall.errors import AudioFormatError
from avcall.types import SAMPLE_RATE_HZ, AccessUnit, AudioChunk, MediaKind
from receiver.audio_decode import OpusDecoder
from sender.audio_encode import OpusEncoder
from tests.clips import tone, tone_level

CLICK = (20_000 * np.hanning(80) * np.sin(2 * np.pi * 1000 * np.arange(80) / SAMPLE_RATE_HZ)).astype(np.int16)


def encoded(pcm: np.ndarray, frame_ms: int = 40, bitrate_bps: int = 10_000) -> list[AccessUnit]:
    encoder = OpusEncoder(bitrate_bps, frame_ms)
    size = frame_ms * 16
    chunks = [AudioChunk(pcm[n : n + size], n // 16) for n in range(0, len(pcm) - size + 1, size)]
    return [unit for chunk in chunks for unit in encoder.encode(chunk)]


@pytest.mark.parametrize("frame_ms", [20, 40, 60])
@pytest.mark.parametrize("bitrate_bps", [8_000, 10_000, 12_000])
def test_a_click_train_comes_out_at_the_pts_at_which_it_went_in(frame_ms: int, bitrate_bps: int) -> None:
    sent = np.zeros(4 * SAMPLE_RATE_HZ // (frame_ms * 16) * (frame_ms * 16), np.int16)
    starts = range(5000, len(sent) - 1000, 7777)
    for start in starts:
        sent[start : start + len(CLICK)] = CLICK
    heard = np.zeros(len(sent) + 1000)
    decoder = OpusDecoder()
    for unit in encoded(sent, frame_ms, bitrate_bps):
        pcm = decoder.decode(unit)
        assert pcm.shape == (unit.duration_ms * 16,)
        heard[unit.pts_ms * 16 :][: len(pcm)] = pcm
    for start in starts:
        lags = range(-400, 401)
        match = [float(heard[start + lag :][: len(CLICK)] @ CLICK) for lag in lags]
        error_ms = lags[int(np.argmax(match))] / 16
        assert abs(error_ms) < 0.5


def test_speech_band_keeps_its_level() -> None:
    decoder = OpusDecoder()
    heard = np.concatenate([decoder.decode(unit) for unit in encoded(tone(440, 2000))])
    assert tone_level(heard[8000:], 440) == pytest.approx(8000, rel=0.15)


def test_a_lost_unit_is_made_up_without_a_click() -> None:
    units = encoded(tone(200, 2000))
    decoder = OpusDecoder()
    heard = []
    for number, unit in enumerate(units):
        heard.append(decoder.conceal(40) if number == 30 else decoder.decode(unit))
    pcm = np.concatenate(heard).astype(int)
    steps = np.abs(np.diff(pcm))
    around = steps[29 * 640 : 32 * 640]
    assert np.abs(pcm[30 * 640 : 30 * 640 + 320]).max() > 4000  # not a hole
    assert around.max() < 2.0 * steps[20 * 640 : 28 * 640].max()


def test_nothing_heard_yet_is_silence() -> None:
    assert not OpusDecoder().conceal(60).any()
    assert OpusDecoder().conceal(60).shape == (960,)


def test_a_long_gap_falls_silent_and_sound_comes_back() -> None:
    units = encoded(tone(200, 1000))
    decoder = OpusDecoder()
    for unit in units[:10]:
        decoder.decode(unit)
    gap = np.concatenate([decoder.conceal(40) for _ in range(5)])
    assert gap[:160].any()
    assert not gap[1600:].any()
    back = [decoder.decode(unit) for unit in units[15:]]
    assert np.abs(back[-1]).max() > 4000


def unit_of(payload: bytes, duration_ms: int = 40) -> AccessUnit:
    return AccessUnit(kind=MediaKind.AUDIO, pts_ms=0, duration_ms=duration_ms, payload=payload)


def test_a_unit_of_another_duration_is_refused() -> None:
    payload = encoded(tone(200, 200))[0].payload
    with pytest.raises(AudioFormatError, match="60 ms holds 40 ms"):
        OpusDecoder().decode(unit_of(payload, 60))


def test_an_empty_unit_is_refused() -> None:
    with pytest.raises(AudioFormatError, match="empty"):
        OpusDecoder().decode(unit_of(b""))


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=275), st.sampled_from([20, 40, 60]))
def test_hostile_bytes_give_the_right_length_or_an_error(payload: bytes, duration_ms: int) -> None:
    decoder = OpusDecoder()
    try:
        pcm = decoder.decode(unit_of(payload, duration_ms))
    except AudioFormatError:
        return
    assert pcm.shape == (duration_ms * 16,)


def test_the_decoder_works_on_after_hostile_bytes() -> None:
    decoder = OpusDecoder()
    units = encoded(tone(440, 1000))
    for number, unit in enumerate(units):
        if number % 5 == 2:
            with pytest.raises(AudioFormatError):
                decoder.decode(unit_of(b"\xff\xff\xff"))
        heard = decoder.decode(unit)
    assert tone_level(heard, 440) > 4000
