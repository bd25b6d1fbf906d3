"""The Opus encoder. Its pts are tested with the decoder, in tests/receiver/test_audio_decode.py."""

import numpy as np
import pytest

from avcall.bitstream.audio import validate_opus
from avcall.errors import ConfigError
from avcall.types import AudioChunk, MediaKind
from receiver.audio_decode import OpusDecoder
from sender.audio_encode import CODEC_DELAY_MS, OpusEncoder
from tests.clips import tone


@pytest.mark.parametrize("frame_ms", [20, 40, 60])
@pytest.mark.parametrize("bitrate_bps", [6_000, 10_000, 16_000])
def test_units_are_what_the_wire_format_allows(bitrate_bps: int, frame_ms: int) -> None:
    encoder = OpusEncoder(bitrate_bps, frame_ms)
    rng = np.random.default_rng(0)
    size_bytes = 0
    for n in range(30):
        pcm = rng.integers(-9000, 9000, frame_ms * 16, dtype=np.int16)
        units = encoder.encode(AudioChunk(pcm=pcm, pts_ms=n * frame_ms))
        assert len(units) == (n > 0)
        for unit in units:
            assert unit.kind is MediaKind.AUDIO
            assert unit.pts_ms == n * frame_ms - CODEC_DELAY_MS
            assert unit.duration_ms == frame_ms == validate_opus(unit.payload)
            size_bytes += len(unit.payload)
    assert size_bytes * 8 / (29 * frame_ms / 1000) == pytest.approx(bitrate_bps, rel=0.35)


def test_a_call_that_starts_later_loses_no_unit() -> None:
    units = OpusEncoder().encode(AudioChunk(pcm=tone(440, 40), pts_ms=100))
    assert [unit.pts_ms for unit in units] == [100 - CODEC_DELAY_MS]


def test_a_chunk_of_another_length_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="320"):
        OpusEncoder(frame_ms=40).encode(AudioChunk(pcm=tone(440, 20), pts_ms=0))


@pytest.mark.parametrize(
    ("setting", "name"), [({"frame_ms": 30}, "frame_ms"), ({"bitrate_bps": 64_000}, "bitrate_bps")]
)
def test_settings_out_of_range_are_named(setting: dict[str, int], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        OpusEncoder(**setting)


def test_the_rate_changes_between_two_chunks_without_a_hole() -> None:
    encoder, decoder = OpusEncoder(12_000), OpusDecoder()
    pcm = tone(440, 4000)
    payloads, heard = [], []
    for number in range(100):
        if number == 50:
            encoder.set_bitrate(6_000)
        for unit in encoder.encode(AudioChunk(pcm[number * 640 : (number + 1) * 640], number * 40)):
            payloads.append(unit.payload)
            heard.append(decoder.decode(unit))
    assert encoder.bitrate_bps == 6_000
    assert len(b"".join(payloads[60:95])) < 0.75 * len(b"".join(payloads[10:45]))
    assert [payload[0] >> 3 for payload in payloads[40:60]] == [10] * 9 + [2] * 11  # wideband, narrowband
    around = np.concatenate(heard)[48 * 640 : 53 * 640].reshape(-1, 320)
    assert np.abs(around).max(axis=1).min() > 4000  # every 20 ms
    with pytest.raises(ConfigError, match="bitrate_bps"):
        encoder.set_bitrate(64_000)
