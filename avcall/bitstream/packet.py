"""Messages and the media packet: the motion and the audio of one tick in one RTP packet.

What may be lost travels as RTP (RFC 3550): its payload type is 96 (MEDIA) or 112 (REPORT) plus the protocol
version. Every other message starts with one byte: the version in the high nibble, the MessageType in the low
one. A media packet, big-endian:

    offset  size  field
    0       1     0x80: RTP version 2, no padding, no extension, no contributing sources
    1       1     payload type, 97; no marker
    2       2     sequence, counts packets, wraps at 65536
    4       4     pts_ms, not above the pts of any unit
    8       4     SSRC, 0x61766361
    12      1     contents: motion mode (bits 7..6), count of motion (5..3) and audio units (2..0), 0..6
    13      ...   mode FP16: motion units: pts offset (short), keyframe index (1), payload (120)
    ...     ...   audio units: pts offset (short), payload size (short), payload (one Opus packet)
    ...     ...   mode CODED: pts offset of the first frame (short), step (bits 7..5), keyframe index (4..0),
                  one byte for each later frame: its pts minus that of the frame before, then the coded
                  frames up to the end of the message

A `short` is a number n of 0..1275 in one or two bytes, coded as RFC 6716 section 3.2.1 codes frame lengths:
up to 251 as itself, above that as 252 + (n mod 4), then (n - first byte) / 4. Offsets are in ms from the
packet's pts. Mode FP16 is 0, CODED is 1; a motion unit lasts 40 ms, an audio unit what its TOC says.
"""

import itertools
import struct
from dataclasses import dataclass
from enum import IntEnum

from avcall.bitstream.audio import validate_opus
from avcall.bitstream.motion import DEFORMED_BYTES, UNIT_BYTES, MotionMode
from avcall.errors import PacketError, VersionError
from avcall.types import FRAME_MS, AccessUnit, MediaKind

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 1200  # the user data of one SCTP packet; a longer message would be fragmented
RTP_FIRST_BYTE, RTP_HEADER_BYTES = 0x80, 12  # RFC 3550 section 5.1
SSRC = 0x61766361  # one stream each way, so it needs no choice
MAX_UNITS = 6  # of one medium in one packet: 240 ms of motion
MAX_SHORT = 1275  # 255 * 4 + 255
MAX_OFFSET_MS = MAX_SHORT  # between the first and the last unit of a packet
MAX_PTS_MS = 2**32 - 1  # 49 days of call
MAX_GAP_MS = 255  # between coded frames of one packet
KEYFRAME_INDICES = 32  # keyframes are numbered modulo this; at most 4 live at once

_RTP = struct.Struct(">BBHII")
_CONTENTS_BYTES = 1
_SHORT_ONE_BYTE = 251
_MOTION_BYTES = UNIT_BYTES[MotionMode.FP16]


class MessageType(IntEnum):
    """What a message is; KEYFRAME_SLICE and CONTROL are the low nibble of its first byte."""

    MEDIA = 1
    KEYFRAME_SLICE = 2
    CONTROL = 3
    REPORT = 4


_PAYLOAD_TYPES = {MessageType.MEDIA: 96, MessageType.REPORT: 112}  # of RTP, plus the protocol version


@dataclass(frozen=True, slots=True)
class RtpHeader:
    """What avcall says in an RTP header: `sequence` 0..65535, `timestamp_ms` 0..2^32-1."""

    kind: MessageType
    sequence: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class CodedMotion:
    """The motion of a packet in mode CODED: 1..6 frames at `pts_ms`, all of keyframe `keyframe_index` 0..31.

    `step` 0..7 is the quantiser's; `payload` is what `MotionCoder` makes and takes, with a lattice if
    it is `deformed`.
    """

    pts_ms: tuple[int, ...]
    keyframe_index: int
    step: int
    payload: bytes
    deformed: bool = False


@dataclass(frozen=True, slots=True)
class MediaPacket:
    """One tick of media: up to 6 frames of motion and up to 6 audio units, by increasing pts.

    Motion is either `motion` (mode FP16) or `coded`. `sequence` 0..65535; no other pts is below `pts_ms`.
    """

    sequence: int
    pts_ms: int
    motion: tuple[AccessUnit, ...] = ()
    audio: tuple[AccessUnit, ...] = ()
    coded: CodedMotion | None = None


def first_byte(kind: MessageType) -> bytes:
    """The byte that starts every message of `kind`, KEYFRAME_SLICE or CONTROL."""
    return bytes([PROTOCOL_VERSION << 4 | kind])


def rtp_header(header: RtpHeader) -> bytes:
    """The 12 bytes that start a MEDIA or REPORT message."""
    payload_type = _PAYLOAD_TYPES[header.kind] + PROTOCOL_VERSION
    return _RTP.pack(RTP_FIRST_BYTE, payload_type, header.sequence, header.timestamp_ms, SSRC)


def split_rtp(data: bytes) -> tuple[RtpHeader, bytes]:
    """The header of a MEDIA or REPORT message, and what follows it.

    Raises PacketError for another message, another SSRC or too few bytes, VersionError as `message_type`.
    """
    kind = message_type(data)
    if kind not in _PAYLOAD_TYPES:
        raise PacketError("RTP packet: the message is of another type")
    if len(data) < RTP_HEADER_BYTES:
        raise PacketError("RTP packet: truncated in its header")
    _, _, sequence, timestamp_ms, ssrc = _RTP.unpack_from(data)
    if ssrc != SSRC:
        raise PacketError(f"RTP packet: SSRC {ssrc:#x} is not the stream of a call")
    return RtpHeader(kind, sequence, timestamp_ms), data[RTP_HEADER_BYTES:]


def version_error(theirs: int) -> VersionError:
    """The error for a peer that speaks another protocol version."""
    return VersionError(
        f"the peer speaks protocol version {theirs}, this avcall speaks {PROTOCOL_VERSION}: "
        "install the same avcall on both sides"
    )


def weights_error(theirs: str, ours: str) -> VersionError:
    """The error for a peer whose weights are others: what either draws would not be what the other meant."""
    return VersionError(
        f"the peer uses other weights ({theirs or 'none'}) than this avcall ({ours or 'none'}): "
        "install the same avcall on both sides"
    )


def message_type(data: bytes) -> MessageType:
    """What `data` claims to be.

    Raises VersionError when the peer speaks another protocol version, PacketError when the message is empty
    or of an unknown type.
    """
    if not data:
        raise PacketError("message: empty")
    if data[0] == RTP_FIRST_BYTE:
        return _rtp_type(data)
    version, kind = data[0] >> 4, data[0] & 0x0F
    if version != PROTOCOL_VERSION:
        raise version_error(version)
    if kind not in (MessageType.KEYFRAME_SLICE, MessageType.CONTROL):
        raise PacketError(f"message: type {kind} is unknown")
    return MessageType(kind)


def _rtp_type(data: bytes) -> MessageType:
    if len(data) < 2:
        raise PacketError("RTP packet: truncated in its header")
    for kind, base in _PAYLOAD_TYPES.items():
        if base <= data[1] < base + 16:
            if data[1] - base != PROTOCOL_VERSION:
                raise version_error(data[1] - base)
            return kind
    raise PacketError(f"RTP packet: payload type {data[1]} is unknown")


def serialize(packet: MediaPacket) -> bytes:
    """The bytes of `packet`. Raises PacketError or AudioFormatError where `parse` would refuse."""
    _check_header(packet)
    mode, count = MotionMode.FP16, len(packet.motion)
    if packet.coded is not None:
        mode = MotionMode.DEFORMED if packet.coded.deformed else MotionMode.CODED
        count = len(packet.coded.pts_ms)
    contents = mode << 6 | count << 3 | len(packet.audio)
    header = RtpHeader(MessageType.MEDIA, packet.sequence, packet.pts_ms)
    parts = [rtp_header(header), bytes([contents])]
    for unit in packet.motion:
        sound = len(unit.payload) in (_MOTION_BYTES, DEFORMED_BYTES)
        if not sound or not 0 <= unit.keyframe_index <= 255:
            raise PacketError(
                f"media packet: motion of {len(unit.payload)} bytes for keyframe {unit.keyframe_index}"
            )
        parts += [_short(unit.pts_ms - packet.pts_ms), bytes([unit.keyframe_index])]
        parts.append(unit.payload[:_MOTION_BYTES])  # a lattice travels in mode CODED alone
    for unit in packet.audio:
        validate_opus(unit.payload)
        parts += [_short(unit.pts_ms - packet.pts_ms), _short(len(unit.payload)), unit.payload]
    if packet.coded is not None:
        parts += _coded_parts(packet.coded, packet.pts_ms)
    data = b"".join(parts)
    if len(data) > MAX_MESSAGE_BYTES:
        raise PacketError(f"media packet: {len(data)} bytes, at most {MAX_MESSAGE_BYTES} fit")
    return data


def parse(data: bytes) -> MediaPacket:
    """The media packet in `data`.

    Raises PacketError naming the field that is wrong, AudioFormatError for an audio unit that is not allowed,
    VersionError for another protocol version. The numbers inside motion payloads are left to `motion.decode`.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise PacketError(f"media packet: {len(data)} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
    header, body = split_rtp(data)
    if header.kind is not MessageType.MEDIA:
        raise PacketError("media packet: the message is of another type")
    reader, pts_ms = _Reader(body), header.timestamp_ms
    contents = reader.take(_CONTENTS_BYTES, "its header")[0]
    mode, motion_count, audio_count = contents >> 6, contents >> 3 & 7, contents & 7
    if mode not in tuple(MotionMode):
        raise PacketError(f"media packet: motion mode {mode} is unknown")
    plain = motion_count if mode == MotionMode.FP16 else 0
    motion = tuple(_read_motion(reader, pts_ms) for _ in range(plain))
    audio = tuple(_read_audio(reader, pts_ms) for _ in range(audio_count))
    deformed = mode == MotionMode.DEFORMED
    coded = None if mode == MotionMode.FP16 else _read_coded(reader, pts_ms, motion_count, deformed=deformed)
    reader.finish()
    packet = MediaPacket(header.sequence, pts_ms, motion, audio, coded)
    _check_header(packet)
    return packet


def unit_size_bytes(unit: AccessUnit) -> int:
    """The most that `unit` can take of a media packet, headers included."""
    most = _MOTION_BYTES if unit.kind is MediaKind.MOTION else len(unit.payload)
    return most + 4  # two shorts of two bytes


def header_size_bytes() -> int:
    """What a media packet takes before its units."""
    return RTP_HEADER_BYTES + _CONTENTS_BYTES


class _Reader:
    """A cursor over untrusted bytes that refuses to run past their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def take(self, size_bytes: int, field: str) -> bytes:
        end = self._offset + size_bytes
        if end > len(self._data):
            raise PacketError(f"media packet: truncated in {field}")
        taken = self._data[self._offset : end]
        self._offset = end
        return taken

    def short(self, field: str) -> int:
        first = self.take(1, field)[0]
        return first if first <= _SHORT_ONE_BYTE else first + 4 * self.take(1, field)[0]

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._offset, "the rest")

    def finish(self) -> None:
        if self._offset != len(self._data):
            raise PacketError(f"media packet: {len(self._data) - self._offset} bytes after the last unit")


def _short(number: int) -> bytes:
    if not 0 <= number <= MAX_SHORT:
        raise PacketError(f"media packet: {number} is outside 0..{MAX_SHORT}")
    if number <= _SHORT_ONE_BYTE:
        return bytes([number])
    first = 252 + number % 4
    return bytes([first, (number - first) // 4])


def _read_motion(reader: _Reader, pts_ms: int) -> AccessUnit:
    offset_ms = reader.short("a motion offset")
    keyframe_index = reader.take(1, "a keyframe index")[0]
    payload = reader.take(_MOTION_BYTES, "a motion payload")
    return AccessUnit(MediaKind.MOTION, pts_ms + offset_ms, FRAME_MS, payload, keyframe_index)


def _coded_parts(coded: CodedMotion, pts_ms: int) -> list[bytes]:
    gaps = [b - a for a, b in itertools.pairwise(coded.pts_ms)]
    if not 0 <= coded.step < 8 or not 0 <= coded.keyframe_index < KEYFRAME_INDICES:
        raise PacketError(f"media packet: step {coded.step} or keyframe {coded.keyframe_index} out of range")
    if gaps and max(gaps) > MAX_GAP_MS:
        raise PacketError(f"media packet: coded frames {max(gaps)} ms apart, at most {MAX_GAP_MS} fit")
    named = bytes([coded.step << 5 | coded.keyframe_index])
    return [_short(coded.pts_ms[0] - pts_ms), named, bytes(gaps), coded.payload]


def _read_coded(reader: _Reader, pts_ms: int, count: int, *, deformed: bool) -> CodedMotion:
    if not count:
        raise PacketError("media packet: coded motion of no frame")
    first_ms = pts_ms + reader.short("a motion offset")
    named = reader.take(1, "a keyframe index")[0]
    gaps = reader.take(count - 1, "the gaps between frames")
    times = tuple(itertools.accumulate(gaps, initial=first_ms))
    return CodedMotion(times, named & 0x1F, named >> 5, reader.rest(), deformed)


def _read_audio(reader: _Reader, pts_ms: int) -> AccessUnit:
    offset_ms = reader.short("an audio offset")
    payload = reader.take(reader.short("an audio size"), "an audio payload")
    return AccessUnit(MediaKind.AUDIO, pts_ms + offset_ms, validate_opus(payload), payload)


def _check_header(packet: MediaPacket) -> None:
    if not 0 <= packet.sequence <= 0xFFFF:
        raise PacketError(f"media packet: sequence {packet.sequence} is not 16 bits")
    if not 0 <= packet.pts_ms <= MAX_PTS_MS:
        raise PacketError(f"media packet: pts {packet.pts_ms} is not 32 bits")
    coded_times = packet.coded.pts_ms if packet.coded is not None else ()
    if packet.motion and packet.coded is not None:
        raise PacketError("media packet: motion in two modes")
    motion_times = [unit.pts_ms for unit in packet.motion] or list(coded_times)
    audio_times = [unit.pts_ms for unit in packet.audio]
    if not motion_times and not audio_times:
        raise PacketError("media packet: holds no unit")
    for name, times in (("motion", motion_times), ("audio", audio_times)):
        if len(times) > MAX_UNITS:
            raise PacketError(f"media packet: {len(times)} {name} units, at most {MAX_UNITS} are allowed")
        if any(b <= a for a, b in itertools.pairwise(times)):
            raise PacketError(f"media packet: {name} units out of order")
        if times and times[-1] > MAX_PTS_MS:
            raise PacketError(f"media packet: {name} pts {times[-1]} is not 32 bits")
