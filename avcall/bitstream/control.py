"""Control messages: one byte of version and type, then a msgpack array [number, field, ...].

A Report may be lost: instead of that byte it has an RTP header, and is sent as media is. The others are
reliable.

    number  message          fields
    1       Hello            protocol_version int 0..15, role 'sender' or 'receiver', software str <= 64,
                             weights str: '' or the 16 hexadecimal digits of the motion tables
    2       KeyframeAck      index int 0..255
    3       KeyframeRequest
    4       Report           received_packets, lost_packets, late_units, jitter_ms, playout_delay_ms,
                             frames_rendered, received_bytes, queue_ms, newest_sequence, held_ms;
                             counts are int 0..2^32-1, times are numbers, the sequence is 16 bits
    5       Ping             sent_ms, a number
    6       Pong             sent_ms, the Ping's
    7       Bye              reason str <= 200

The schema is fixed: the count of fields is exact, a bool is not a number, times are finite and not negative,
and text is printable, because it may end up on a terminal.
"""

import re
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from typing import cast

import msgpack

from avcall.bitstream.packet import (
    MessageType,
    RtpHeader,
    first_byte,
    message_type,
    rtp_header,
    split_rtp,
)
from avcall.errors import ControlError

MAX_CONTROL_BYTES = 1024  # the longest is a Bye of 200 characters of 4 bytes
MAX_REASON_CHARACTERS = 200
MAX_SOFTWARE_CHARACTERS = 64
MAX_COUNT = 2**32 - 1
MAX_TIME_MS = 2.0**53  # beyond it a float no longer counts milliseconds
ROLES = ("sender", "receiver")


@dataclass(frozen=True, slots=True)
class Hello:
    """The first control message of each side."""

    protocol_version: int
    role: str
    software: str
    weights: str = ""


@dataclass(frozen=True, slots=True)
class KeyframeAck:
    """The receiver holds keyframe `index` and can render motion that names it."""

    index: int


@dataclass(frozen=True, slots=True)
class KeyframeRequest:
    """The receiver has no keyframe for the motion that arrives."""


@dataclass(frozen=True, slots=True)
class Report:
    """How the receiver fares, counted since the start of the call.

    `received_bytes` is what messages of any kind took of the wire, headers included; `queue_ms` how much
    later packets come now than they can. `newest_sequence` is the media packet that came last, `held_ms` how
    long before this report: the sender finds the round trip from them.
    """

    received_packets: int
    lost_packets: int
    late_units: int
    jitter_ms: float
    playout_delay_ms: float
    frames_rendered: int
    received_bytes: int
    queue_ms: float
    newest_sequence: int
    held_ms: float


@dataclass(frozen=True, slots=True)
class Ping:
    """A heartbeat; `sent_ms` is the clock of the side that sends it."""

    sent_ms: float


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a Ping, with its `sent_ms`."""

    sent_ms: float


@dataclass(frozen=True, slots=True)
class Bye:
    """The end of the call, with a reason for people."""

    reason: str

    @classmethod
    def of(cls, reason: str) -> "Bye":
        """A goodbye for any text: cut to its limit, unprintable characters replaced by spaces."""
        return cls("".join(c if c.isprintable() else " " for c in reason)[:MAX_REASON_CHARACTERS])


ControlMessage = Hello | KeyframeAck | KeyframeRequest | Report | Ping | Pong | Bye

_NUMBERS: dict[int, type[ControlMessage]] = {
    1: Hello,
    2: KeyframeAck,
    3: KeyframeRequest,
    4: Report,
    5: Ping,
    6: Pong,
    7: Bye,
}
_NUMBER_OF = {message: number for number, message in _NUMBERS.items()}


def _is_int(low: int, high: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _is_time(value: object) -> bool:
    return type(value) in (int, float) and 0.0 <= cast(float, value) <= MAX_TIME_MS  # NaN fails this


def _is_text(limit: int) -> Callable[[object], bool]:
    return lambda value: type(value) is str and len(value) <= limit and value.isprintable()


_RULES: dict[str, Callable[[object], bool]] = {
    "protocol_version": _is_int(0, 15),
    "role": lambda value: type(value) is str and value in ROLES,
    "software": _is_text(MAX_SOFTWARE_CHARACTERS),
    "weights": lambda value: type(value) is str and re.fullmatch("([0-9a-f]{16})?", value) is not None,
    "index": _is_int(0, 255),
    "received_packets": _is_int(0, MAX_COUNT),
    "lost_packets": _is_int(0, MAX_COUNT),
    "late_units": _is_int(0, MAX_COUNT),
    "jitter_ms": _is_time,
    "playout_delay_ms": _is_time,
    "frames_rendered": _is_int(0, MAX_COUNT),
    "received_bytes": _is_int(0, MAX_COUNT),
    "queue_ms": _is_time,
    "newest_sequence": _is_int(0, 0xFFFF),
    "held_ms": _is_time,
    "sent_ms": _is_time,
    "reason": _is_text(MAX_REASON_CHARACTERS),
}


def serialize(message: ControlMessage) -> bytes:
    """The bytes of a message that is not a Report. Raises ControlError when a field breaks the schema."""
    if isinstance(message, Report):
        raise ControlError("control message: a Report is not sent reliably")
    return first_byte(MessageType.CONTROL) + _pack(message)


def serialize_report(report: Report, sequence: int, now_ms: float) -> bytes:
    """The bytes of a Report, number `sequence` (modulo 65536). Raises ControlError as `serialize`."""
    header = RtpHeader(MessageType.REPORT, sequence & 0xFFFF, int(now_ms) & 0xFFFFFFFF)
    return rtp_header(header) + _pack(report)


def _pack(message: ControlMessage) -> bytes:
    _check(message)
    body: bytes = msgpack.packb([_NUMBER_OF[type(message)], *astuple(message)])
    return body


def parse(data: bytes) -> ControlMessage:
    """The control message in `data`.

    Raises ControlError naming what is wrong, PacketError or VersionError for a wrong start.
    """
    kind = message_type(data)
    if kind not in (MessageType.CONTROL, MessageType.REPORT):
        raise ControlError("control message: the message is of another type")
    if len(data) > MAX_CONTROL_BYTES:
        raise ControlError(f"control message: {len(data)} bytes, at most {MAX_CONTROL_BYTES} are allowed")
    message = _unpack(split_rtp(data)[1] if kind is MessageType.REPORT else data[1:])
    if isinstance(message, Report) is not (kind is MessageType.REPORT):
        raise ControlError(f"control message: {type(message).__name__} does not travel this way")
    return message


def _unpack(packed: bytes) -> ControlMessage:
    try:
        body = msgpack.unpackb(packed, max_array_len=16, max_map_len=0, max_ext_len=0, max_bin_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise ControlError(f"control message: not msgpack ({type(error).__name__})") from None
    if not isinstance(body, list) or not body or type(body[0]) is not int or body[0] not in _NUMBERS:
        raise ControlError("control message: no known message number")
    kind = _NUMBERS[body[0]]
    if len(body) - 1 != len(fields(kind)):
        raise ControlError(f"control message: {kind.__name__} with {len(body) - 1} fields")
    message = kind(*body[1:])
    _check(message)
    return message


def _check(message: ControlMessage) -> None:
    for field in fields(message):
        if not _RULES[field.name](getattr(message, field.name)):
            raise ControlError(f"control message: {type(message).__name__}.{field.name} is not allowed")
