import pytest
from hypothesis import given
from hypothesis import strategies as st

from avcall.bitstream.audio import MAX_OPUS_BYTES, OPUS_DURATIONS_MS, validate_opus
from avcall.errors import AudioFormatError


@pytest.mark.parametrize(
    ("config", "duration_ms"),
    [(1, 20), (2, 40), (3, 60), (9, 20), (10, 40), (11, 60), (13, 20), (15, 20), (19, 20), (31, 20)],
)
def test_duration_follows_from_the_toc(config: int, duration_ms: int) -> None:
    assert validate_opus(bytes([config << 3]) + b"\x00" * 10) == duration_ms


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "0 bytes"),
        (bytes([10 << 3]) + bytes(MAX_OPUS_BYTES), "276 bytes"),
        (bytes([10 << 3 | 4, 0]), "stereo"),
        (bytes([10 << 3 | 1, 0]), "frame code 1"),
        (bytes([10 << 3 | 3, 0]), "frame code 3"),
        (bytes([8 << 3, 0]), "10 ms"),
        (bytes([16 << 3, 0]), "2.5 ms"),
        (bytes([12 << 3, 0]), "10 ms"),
    ],
)
def test_what_is_not_allowed_is_named(payload: bytes, message: str) -> None:
    with pytest.raises(AudioFormatError, match=message):
        validate_opus(payload)


@given(st.binary(max_size=400))
def test_any_bytes_are_judged(payload: bytes) -> None:
    try:
        duration_ms = validate_opus(payload)
    except AudioFormatError:
        return
    assert duration_ms in OPUS_DURATIONS_MS
    assert 1 <= len(payload) <= MAX_OPUS_BYTES
