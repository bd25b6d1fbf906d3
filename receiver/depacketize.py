"""Depacketize: turns messages from the peer into units, keyframes and control messages.

This is the one place where a BitstreamError is caught: what breaks the protocol is dropped and counted by
reason, and the call goes on. Losses are counted from gaps in the sequence numbers (RFC 3550 appendix A).
"""

from collections import Counter
from dataclasses import dataclass

from avcall.bitstream import control, motion, packet
from avcall.bitstream.control import ControlMessage
from avcall.bitstream.keyframe import CodedKeyframe, KeyframeAssembler
from avcall.bitstream.live import LiveKeyframes
from avcall.bitstream.motion import MotionMode
from avcall.bitstream.motion_coded import MotionCoder
from avcall.bitstream.packet import CodedMotion, MediaPacket, MessageType
from avcall.errors import BitstreamError, MotionError
from avcall.transport.base import CONTROL_OVERHEAD_BYTES, MEDIA_OVERHEAD_BYTES
from avcall.types import FRAME_MS, AccessUnit, Keypoints, MediaKind
from receiver.interpolate import LatticeEasing

SEQUENCE_RANGE = 1 << 16
MAX_GAP = 3000  # packets; a longer jump is a sender that started anew (MAX_DROPOUT in RFC 3550)
HISTORY = 512  # sequence numbers remembered to recognise repeats


@dataclass(frozen=True, slots=True)
class Depacketized:
    """What one message held: media units, a keyframe that is now whole, or a control message.

    Motion units are in half floats, however they travelled; `motion_bytes` is what their payload took.
    `unknown_keyframe`: there was coded motion of a keyframe that has not come.
    """

    units: tuple[AccessUnit, ...] = ()
    motion_bytes: int = 0
    unknown_keyframe: bool = False
    keyframe: CodedKeyframe | None = None
    control: ControlMessage | None = None


@dataclass(frozen=True, slots=True)
class DepacketizerStats:
    """Counts since the start.

    `lost_packets` are media packets missing so far: one that arrives late after all is taken off again.
    `dropped` counts messages by reason: the error's class name, 'DuplicatePacket' or 'OldPacket'.
    `last_arrival_ms` is when the last message came, whatever it was worth; None before the first.
    `message_bytes` is what all messages took of the wire, headers included. `newest_sequence` is that of the
    media packet that came last, at `newest_ms`.
    """

    received_packets: int
    lost_packets: int
    reordered_packets: int
    dropped: dict[str, int]
    last_arrival_ms: float | None
    message_bytes: int
    newest_sequence: int
    newest_ms: float


class SequenceTracker:
    """Follows 16-bit sequence numbers through wrap-around, reordering and repeats."""

    def __init__(self) -> None:
        self._highest: int | None = None  # extended: never wraps
        self._first = 0
        self._seen: set[int] = set()
        self._received_in_run = 0
        self._lost_before_run = 0
        self.received = 0
        self.reordered = 0

    @property
    def lost(self) -> int:
        """Packets missing so far."""
        if self._highest is None:
            return 0
        return self._lost_before_run + self._highest - self._first + 1 - self._received_in_run

    def accept(self, sequence: int) -> str | None:
        """Register `sequence`; None when it is new, else why the packet is to be dropped."""
        if self._highest is None:
            self._start_run(sequence)
            return None
        step = (sequence - self._highest + SEQUENCE_RANGE // 2) % SEQUENCE_RANGE - SEQUENCE_RANGE // 2
        if abs(step) > MAX_GAP:
            self._lost_before_run = self.lost
            self._start_run(sequence)
            return None
        extended = self._highest + step
        if extended in self._seen:
            return "DuplicatePacket"
        if step <= -HISTORY:
            return "OldPacket"
        if step < 0:
            self.reordered += 1
            self._first = min(self._first, extended)
        self._register(extended)
        return None

    def _start_run(self, sequence: int) -> None:
        self._highest = self._first = sequence
        self._seen = set()
        self._received_in_run = 0
        self._register(sequence)

    def _register(self, extended: int) -> None:
        self._highest = max(self._highest or 0, extended)
        self._seen.add(extended)
        if len(self._seen) > 2 * HISTORY:
            oldest = self._highest - HISTORY
            self._seen = {number for number in self._seen if number > oldest}
        self.received += 1
        self._received_in_run += 1


class Depacketizer:
    """Parses the peer's messages; never raises for what they hold, but for another protocol version."""

    def __init__(self, coder: MotionCoder | None = None) -> None:
        """Without `coder` coded motion is dropped."""
        self._coder = coder
        self._sources: LiveKeyframes[Keypoints] = LiveKeyframes()
        self._easing = LatticeEasing()
        self.dropped: Counter[str] = Counter()
        self._assembler = KeyframeAssembler()
        self._sequences = SequenceTracker()
        self._last_arrival_ms: float | None = None
        self._message_bytes = 0
        self._newest_sequence = 0
        self._newest_ms = 0.0

    def push(self, data: bytes, now_ms: float) -> Depacketized:
        """Take one message that arrived at `now_ms`. Raises VersionError for a peer of another version."""
        self._last_arrival_ms = now_ms
        is_rtp = data[:1] == bytes([packet.RTP_FIRST_BYTE])
        self._message_bytes += len(data) + (MEDIA_OVERHEAD_BYTES if is_rtp else CONTROL_OVERHEAD_BYTES)
        try:
            kind = packet.message_type(data)
            if kind is MessageType.MEDIA:
                return self._media(packet.parse(data), now_ms)
            if kind is MessageType.KEYFRAME_SLICE:
                return Depacketized(keyframe=self._keyframe(data))
            return Depacketized(control=control.parse(data))
        except BitstreamError as error:
            self.dropped[type(error).__name__] += 1
            return Depacketized()

    def stats(self) -> DepacketizerStats:
        """Counts since the start."""
        return DepacketizerStats(
            received_packets=self._sequences.received,
            lost_packets=self._sequences.lost,
            reordered_packets=self._sequences.reordered,
            dropped=dict(self.dropped),
            last_arrival_ms=self._last_arrival_ms,
            message_bytes=self._message_bytes,
            newest_sequence=self._newest_sequence,
            newest_ms=self._newest_ms,
        )

    def _keyframe(self, data: bytes) -> CodedKeyframe | None:
        """A keyframe when `data` is its last slice; its keypoints are kept for coded motion."""
        keyframe = self._assembler.push(data)
        if keyframe is not None:
            self._sources.put(keyframe.index, keyframe.keypoints)
        return keyframe

    def _media(self, media: MediaPacket, now_ms: float) -> Depacketized:
        """The units of `media`, motion first, once their numbers were checked."""
        for unit in media.motion:
            motion.decode(MotionMode.FP16, unit.payload)
        reason = self._sequences.accept(media.sequence)
        if reason is not None:
            self.dropped[reason] += 1
            return Depacketized()
        self._newest_sequence, self._newest_ms = media.sequence, now_ms
        if media.coded is None:
            plain_bytes = sum(len(unit.payload) for unit in media.motion)
            return Depacketized(media.motion + media.audio, plain_bytes)
        # A packet whose motion cannot be used may still hold speech that can.
        units: tuple[AccessUnit, ...] = ()
        source = self._sources.get(media.coded.keyframe_index)
        if source is None:
            self.dropped["UnknownKeyframe"] += 1
        else:
            units = self._decode(media.coded, source)
        return Depacketized(units + media.audio, len(media.coded.payload), source is None)

    def _decode(self, coded: CodedMotion, source: Keypoints) -> tuple[AccessUnit, ...]:
        """Coded motion as units in half floats; none, and counted, when it does not decode."""
        try:
            if self._coder is None:
                raise MotionError("coded motion: there are no tables for it here")
            frames = self._coder.decode(
                coded.payload, len(coded.pts_ms), source, coded.step, deformed=coded.deformed
            )
        except MotionError as error:
            self.dropped[type(error).__name__] += 1
            return ()
        frames = self._easing.ease(frames, coded.pts_ms, coded.keyframe_index)
        return tuple(
            AccessUnit(
                MediaKind.MOTION,
                pts_ms,
                FRAME_MS,
                motion.encode(MotionMode.FP16, frame),
                coded.keyframe_index,
            )
            for pts_ms, frame in zip(coded.pts_ms, frames, strict=True)
        )
