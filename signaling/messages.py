"""What signaling says: the shape of the HTTP exchange, and the messages of a room's WebSocket.

The HTTP exchange is that of WHIP (RFC 9725) without trickle: POST an offer as `application/sdp` with
`Authorization: Bearer TOKEN`, get 201 with the answer and a Location, DELETE the Location to end.

A rendezvous speaks JSON with the host of a room, one text frame a message, `type` first:

    to the host      room    {"type", "path", "lifetime_s"}
                     offer   {"type", "session", "sdp", "token": text or null}
                     hangup  {"type", "session"}
    from the host    answer  {"type", "session", "sdp"}
                     refusal {"type", "session", "status", "reason"}
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from avcall.errors import SignalingError

SDP_TYPE = "application/sdp"
MAX_SDP_BYTES = 64 * 1024  # an offer of avcall has about 1 kB
MAX_FRAME_BYTES = 2 * MAX_SDP_BYTES + 1024  # JSON writes each line end of an SDP as four characters
MAX_TOKEN_CHARS = 256
MAX_REASON_CHARS = 200
MAX_SESSION_CHARS = 64
MAX_PATH_CHARS = 128
MAX_LIFETIME_S = 7 * 24 * 3600
REFUSAL_STATUSES = (400, 401, 403, 404, 408, 409, 413, 415, 429, 500, 503, 504)

_SDP_TEXT = re.compile(r"v=0\r?\n[\x20-\x7e\r\n\t]*")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_PATH = re.compile(r"/[A-Za-z0-9_/-]*")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")


class RefusedError(SignalingError):
    """An offer that is not taken; `status` is the HTTP status that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class RoomOpened:
    """The host's room is open at `path` for `lifetime_s`."""

    path: str
    lifetime_s: int


@dataclass(frozen=True, slots=True)
class Offer:
    """A caller's offer; `token` is what the caller presented, for the host to judge."""

    session: str
    sdp: str
    token: str | None


@dataclass(frozen=True, slots=True)
class Hangup:
    """The caller ended `session`."""

    session: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The host takes the offer of `session`."""

    session: str
    sdp: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The host does not take the offer of `session`; `status` is one of REFUSAL_STATUSES."""

    session: str
    status: int
    reason: str


RoomMessage = RoomOpened | Offer | Hangup | Answer | Refusal

_TYPES: dict[str, type[RoomMessage]] = {
    "room": RoomOpened,
    "offer": Offer,
    "hangup": Hangup,
    "answer": Answer,
    "refusal": Refusal,
}
_NAMES = {message_type: name for name, message_type in _TYPES.items()}


def serialize(message: RoomMessage) -> str:
    """`message` as one text frame of at most MAX_FRAME_BYTES."""
    return json.dumps({"type": _NAMES[type(message)], **asdict(message)}, separators=(",", ":"))


def parse(text: str) -> RoomMessage:
    """The message of one text frame. Raises SignalingError naming the field that breaks the rules."""
    if len(text) > MAX_FRAME_BYTES:
        raise SignalingError(f"a room message has over {MAX_FRAME_BYTES} bytes")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise SignalingError("a room message is not JSON") from None
    if not isinstance(values, dict):
        raise SignalingError("a room message is not a JSON object")
    name = values.pop("type", None)
    message_type = _TYPES.get(name) if isinstance(name, str) else None
    if message_type is None:
        raise SignalingError("a room message is of no known type")
    expected = {field.name for field in fields(message_type)}
    if values.keys() != expected:
        raise SignalingError(f"room message {name!r} must have the fields {', '.join(sorted(expected))}")
    for field, value in values.items():
        _CHECKS[field](field, value)
    return message_type(**values)


def check_sdp(text: str) -> str:
    """`text` when it may be a session description. Raises SignalingError otherwise."""
    if len(text) > MAX_SDP_BYTES:
        raise SignalingError(f"a session description has over {MAX_SDP_BYTES} bytes")
    if not _SDP_TEXT.fullmatch(text):
        raise SignalingError("a session description must be printable ASCII that begins with v=0")
    return text


def bearer_token(header: str | None) -> str | None:
    """The token of an Authorization header (RFC 6750 section 2.1); None when there is none to speak of."""
    scheme, _, token = (header or "").partition(" ")
    return token if scheme.lower() == "bearer" and is_token(token) else None


def is_token(text: str) -> bool:
    """Whether `text` can be a token: 1 to MAX_TOKEN_CHARS printable ASCII characters without spaces."""
    return len(text) <= MAX_TOKEN_CHARS and _TOKEN.fullmatch(text) is not None


def _check_text(field: str, value: Any, pattern: re.Pattern[str], max_chars: int) -> None:
    if not isinstance(value, str) or len(value) > max_chars or not pattern.fullmatch(value):
        raise SignalingError(f"field {field!r} of a room message is not a text of its kind")


def _check_whole(field: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise SignalingError(f"field {field!r} of a room message must be a whole number in {low}..{high}")


def _check_sdp_field(field: str, value: Any) -> None:
    if not isinstance(value, str):
        raise SignalingError(f"field {field!r} of a room message is not a text")
    check_sdp(value)


def _check_token(field: str, value: Any) -> None:
    if value is not None:
        _check_text(field, value, _TOKEN, MAX_TOKEN_CHARS)


def _check_status(field: str, value: Any) -> None:
    if type(value) is not int or value not in REFUSAL_STATUSES:
        raise SignalingError(f"field {field!r} of a room message is not a status of a refusal")


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "path": lambda field, value: _check_text(field, value, _PATH, MAX_PATH_CHARS),
    "lifetime_s": lambda field, value: _check_whole(field, value, 1, MAX_LIFETIME_S),
    "session": lambda field, value: _check_text(field, value, _NAME, MAX_SESSION_CHARS),
    "sdp": _check_sdp_field,
    "token": _check_token,
    "status": _check_status,
    "reason": lambda field, value: _check_text(field, value, _PRINTABLE, MAX_REASON_CHARS),
}
