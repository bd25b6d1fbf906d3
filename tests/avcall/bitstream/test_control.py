import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avcall.bitstream.control import (
    MAX_CONTROL_BYTES,
    Bye,
    ControlMessage,
    Hello,
    KeyframeAck,
    KeyframeRequest,
    Ping,
    Pong,
    Report,
    parse,
    serialize,
    serialize_report,
)
from avcall.bitstream.packet import MessageType, RtpHeader, split_rtp
from avcall.errors import BitstreamError, ControlError, VersionError

REPORT = Report(1000, 12, 3, 17.5, 90.0, 970, 250_000, 12.5, 65_535, 7.5)

MESSAGES: list[ControlMessage] = [
    Hello(1, "sender", "avcall 0.1.0", "0123456789abcdef"),
    KeyframeAck(255),
    KeyframeRequest(),
    Ping(12345.5),
    Pong(12345),
    Bye("the camera was unplugged"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_round_trip(message: ControlMessage) -> None:
    assert parse(serialize(message)) == message


def test_a_report_travels_as_rtp() -> None:
    data = serialize_report(REPORT, 0x1_0203, 2.0**32 + 7.9)
    assert parse(data) == REPORT
    assert split_rtp(data)[0] == RtpHeader(MessageType.REPORT, 0x0203, 7)
    assert len(data) <= 12 + 60
    for size in range(len(data)):
        with pytest.raises(BitstreamError):
            parse(data[:size])


def test_a_report_does_not_travel_reliably_and_others_do_not_travel_as_rtp() -> None:
    with pytest.raises(ControlError, match="Report is not sent reliably"):
        serialize(REPORT)
    report = serialize_report(REPORT, 0, 0)
    with pytest.raises(ControlError, match="Report does not travel this way"):
        parse(b"\x13" + report[12:])
    with pytest.raises(ControlError, match="KeyframeRequest does not travel this way"):
        parse(report[:12] + b"\x91\x03")


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_truncation_is_refused(message: ControlMessage) -> None:
    data = serialize(message)
    for size in range(len(data)):
        with pytest.raises(BitstreamError):
            parse(data[:size])


def test_the_longest_bye_fits() -> None:
    reason = "\N{GRINNING FACE}" * 200
    assert len(serialize(Bye(reason))) <= MAX_CONTROL_BYTES
    assert parse(serialize(Bye(reason))) == Bye(reason)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "no known message number"),
        ([99], "no known message number"),
        ([True], "no known message number"),
        ("text", "no known message number"),
        ([[1]], "no known message number"),
        ([3, 1], "KeyframeRequest with 1 fields"),
        ([2], "KeyframeAck with 0 fields"),
        ([2, 256], "KeyframeAck.index"),
        ([2, -1], "KeyframeAck.index"),
        ([2, True], "KeyframeAck.index"),
        ([2, 1.0], "KeyframeAck.index"),
        ([5, float("nan")], "Ping.sent_ms"),
        ([5, float("inf")], "Ping.sent_ms"),
        ([5, -1.0], "Ping.sent_ms"),
        ([1, 1, "spy", "x", ""], "Hello.role"),
        ([1, 1, "sender", "x" * 65, ""], "Hello.software"),
        ([1, 1, "sender", "x", "0123456789ABCDEF"], "Hello.weights"),
        ([1, 1, "sender", "x", "0123"], "Hello.weights"),
        ([7, "x" * 201], "Bye.reason"),
        ([7, "\x1b[2J"], "Bye.reason"),
        ([7, None], "Bye.reason"),
        ([4, 1, 2, 3, 4.0, 5.0, 2**32, 0, 0, 0, 0], "Report.frames_rendered"),
        ([4, 1, 2, 3, 4.0, 5.0, 6, 2**32, 0, 0, 0], "Report.received_bytes"),
        ([4, 1, 2, 3, 4.0, 5.0, 6, 7, -0.5, 0, 0], "Report.queue_ms"),
        ([4, 1, 2, 3, 4.0, 5.0, 6, 7, 8, 65_536, 0], "Report.newest_sequence"),
        ([4, 1, 2, 3, 4.0, 5.0, 6, 7, 8, 9, float("nan")], "Report.held_ms"),
    ],
)
def test_what_breaks_the_schema_is_named(body: object, message: str) -> None:
    with pytest.raises(ControlError, match=message):
        parse(b"\x13" + msgpack.packb(body))


@pytest.mark.parametrize(
    "data",
    [
        b"\x13",
        b"\x13\xc1",
        b"\x13\x92\x07\xa1\xff",  # text that is not UTF-8
        b"\x13\x91\x03\x00",  # bytes after the message
        b"\x13" + b"\x91" * 1000,  # nested too deep
        b"\x13\xdd\xff\xff\xff\xff",  # four billion fields
        b"\x13\xdb\xff\xff\xff\xff",  # four gigabytes of text
        b"\x13\x81\x01\x02",
        b"\x13\xd4\xff\x00",
        b"\x13" + bytes(MAX_CONTROL_BYTES),
        b"\x12\x91\x03",
    ],
)
def test_hostile_messages_are_refused(data: bytes) -> None:
    with pytest.raises(ControlError):
        parse(data)


def test_serialize_refuses_what_parse_would() -> None:
    with pytest.raises(ControlError, match=r"Bye\.reason"):
        serialize(Bye("x" * 201))


@given(st.binary(max_size=1100))
def test_random_bytes_never_do_more_than_be_refused(noise: bytes) -> None:
    try:
        message = parse(b"\x13" + noise)
    except BitstreamError:
        return
    assert parse(serialize(message)) == message


@given(st.sampled_from(MESSAGES), st.integers(0, 10_000))
def test_a_flipped_bit_is_refused_or_still_fits_the_schema(message: ControlMessage, bit: int) -> None:
    flipped = bytearray(serialize(message))
    bit %= len(flipped) * 8
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        parsed = parse(bytes(flipped))
    except (BitstreamError, VersionError):
        return
    assert parse(serialize(parsed)) == parsed
