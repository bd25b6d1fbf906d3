import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avcall.bitstream.packet import (
    MAX_MESSAGE_BYTES,
    MAX_OFFSET_MS,
    SSRC,
    MediaPacket,
    MessageType,
    RtpHeader,
    header_size_bytes,
    message_type,
    parse,
    rtp_header,
    serialize,
    split_rtp,
    unit_size_bytes,
)
from avcall.errors import AudioFormatError, BitstreamError, PacketError, VersionError
from tests.units import audio_unit, motion_unit

TICK = MediaPacket(
    sequence=513,
    pts_ms=1000,
    motion=(motion_unit(1000, 7), motion_unit(1040, 8)),
    audio=(audio_unit(1100), audio_unit(1140, 260)),
)
DATA = serialize(TICK)


def test_round_trip() -> None:
    assert parse(DATA) == TICK


def test_headers_of_a_tick_stay_small() -> None:
    payload_bytes = sum(len(unit.payload) for unit in TICK.motion + TICK.audio)
    assert len(DATA) - payload_bytes == 13 + 2 * 2 + 2 + 3


def test_a_lattice_stays_behind_where_motion_is_in_half_floats() -> None:
    unit = motion_unit(1000, 7)
    told = dataclasses.replace(unit, payload=unit.payload + bytes(400))
    assert parse(serialize(dataclasses.replace(TICK, motion=(told,)))).motion == (unit,)
    assert unit_size_bytes(told) == unit_size_bytes(unit)
    longer = dataclasses.replace(unit, payload=unit.payload + bytes(1))
    with pytest.raises(PacketError, match="motion of 121 bytes"):
        serialize(dataclasses.replace(TICK, motion=(longer,)))


@pytest.mark.parametrize("offset_ms", [0, 1, 251, 252, 253, 255, 256, 1274, MAX_OFFSET_MS])
def test_offsets_of_one_and_two_bytes(offset_ms: int) -> None:
    packet = MediaPacket(1, 5, (motion_unit(5),), (audio_unit(5 + offset_ms, 20),))
    data = serialize(packet)
    assert parse(data) == packet
    assert len(data) == 13 + 2 + 120 + (1 if offset_ms <= 251 else 2) + 1 + 20


@given(
    st.integers(0, 0xFFFF),
    st.integers(0, 2**32 - 2000),
    st.lists(st.integers(0, MAX_OFFSET_MS), max_size=6, unique=True),
    st.lists(st.integers(0, MAX_OFFSET_MS), min_size=1, max_size=6, unique=True),
    st.integers(1, 70),
)
def test_round_trip_of_any_packet(sequence: int, pts_ms: int, motion: list, audio: list, size: int) -> None:
    packet = MediaPacket(
        sequence,
        pts_ms,
        tuple(motion_unit(pts_ms + offset, offset % 256) for offset in sorted(motion)),
        tuple(audio_unit(pts_ms + offset, size) for offset in sorted(audio)),
    )
    assert parse(serialize(packet)) == packet


def test_every_truncation_is_refused() -> None:
    for size in range(len(DATA)):
        with pytest.raises(BitstreamError):
            parse(DATA[:size])


def test_bytes_at_the_end_are_refused() -> None:
    with pytest.raises(PacketError, match="1 bytes after the last unit"):
        parse(DATA + b"\x00")


@given(st.integers(0, len(DATA) * 8 - 1))
def test_a_flipped_bit_is_refused_or_parses_to_a_valid_packet(bit: int) -> None:
    flipped = bytearray(DATA)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        packet = parse(bytes(flipped))
    except (BitstreamError, VersionError):
        return
    assert parse(serialize(packet)) == packet


@given(st.binary(max_size=1300))
def test_random_bytes_never_do_more_than_be_refused(noise: bytes) -> None:
    try:
        packet = parse(rtp_header(RtpHeader(MessageType.MEDIA, 1, 9)) + noise)
    except BitstreamError:
        return
    assert parse(serialize(packet)) == packet


def header(contents: int, body: bytes = b"", pts_ms: int = 9) -> bytes:
    return rtp_header(RtpHeader(MessageType.MEDIA, 1, pts_ms)) + bytes([contents]) + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(0), "holds no unit"),
        (header(0b11_001_000, bytes(122)), "motion mode 3"),
        (header(0b01_000_000), "coded motion of no frame"),
        (header(0b01_011_000, b"\x00\x01\x28"), "gaps between frames"),
        (header(0b01_010_000, b"\x00\x01\x00"), "out of order"),
        (header(0b00_111_000, bytes(7 * 122)), "7 motion units"),
        (header(0b00_000_111, b"\x00\x01\x50" * 7), "7 audio units"),
        (header(0b00_000_010, b"\x05\x01\x50" * 2), "audio units out of order"),
        (header(0b00_010_000, b"\x05" + bytes(121) + b"\x04" + bytes(121)), "motion units out of order"),
        (header(0b00_000_001, b"\x00\x05\x50"), "truncated in an audio payload"),
        (header(0b00_001_000, bytes(121)), "truncated in a motion payload"),
        (header(0b00_001_000, b"\xff"), "truncated in a motion offset"),
        (header(0b00_000_001, bytes(MAX_MESSAGE_BYTES)), "at most 1200"),
        (header(1, b"\x01\x01\x50", pts_ms=2**32 - 1), "not 32 bits"),
        (bytes([0x13, 0]), "another type"),
        (rtp_header(RtpHeader(MessageType.REPORT, 1, 9)) + b"\x00", "another type"),
        (header(1, b"\x01\x01\x50").replace(SSRC.to_bytes(4), b"abcd"), "SSRC 0x61626364"),
    ],
)
def test_what_breaks_the_protocol_is_named(data: bytes, message: str) -> None:
    with pytest.raises(PacketError, match=message):
        parse(data)


def test_an_audio_unit_that_is_not_allowed_is_refused() -> None:
    with pytest.raises(AudioFormatError, match="stereo"):
        parse(header(0b00_000_001, b"\x00\x01\x54"))


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 65536},
        {"pts_ms": -1},
        {"pts_ms": 1001},
        {"motion": (), "audio": ()},
        {"motion": (motion_unit(1000, 256),)},
        {"motion": (dataclasses.replace(motion_unit(1000), payload=b""),)},
        {"motion": tuple(motion_unit(1000 + i) for i in range(7))},
        {"audio": (audio_unit(1040), audio_unit(1040))},
        {"audio": (audio_unit(1000 + MAX_OFFSET_MS + 1),)},
        {"audio": tuple(audio_unit(1000 + i, 270) for i in range(5))},
    ],
)
def test_serialize_refuses_what_parse_would(change: dict) -> None:
    with pytest.raises(PacketError):
        serialize(dataclasses.replace(TICK, **change))


def test_a_media_packet_is_an_rtp_packet() -> None:
    data = serialize(TICK)
    assert data[:12] == bytes([0x80, 97]) + (513).to_bytes(2) + (1000).to_bytes(4) + b"avca"
    assert split_rtp(data) == (RtpHeader(MessageType.MEDIA, 513, 1000), data[12:])
    assert header_size_bytes() == 13


def test_message_types() -> None:
    assert message_type(b"\x80\x61") is MessageType.MEDIA
    assert message_type(b"\x80\x71") is MessageType.REPORT
    assert message_type(b"\x12") is MessageType.KEYFRAME_SLICE
    assert message_type(b"\x13") is MessageType.CONTROL


@pytest.mark.parametrize("data", [b"", b"\x10", b"\x11", b"\x14", b"\x1f", b"\x80", b"\x80\x5f", b"\x80\xe1"])
def test_unknown_messages_are_refused(data: bytes) -> None:
    with pytest.raises(PacketError):
        message_type(data)


@pytest.mark.parametrize("data", [b"\x01", b"\x21", b"\xf3", b"\x80\x62", b"\x80\x73"])
def test_another_version_is_not_a_broken_packet(data: bytes) -> None:
    with pytest.raises(VersionError, match="install the same avcall"):
        message_type(data)
