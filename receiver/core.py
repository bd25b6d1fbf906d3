"""The receiver between the transport and its stages: messages in, playout and answers out.

Pure: time is an argument and nothing blocks.
"""

from collections import Counter
from dataclasses import dataclass, replace

from avcall.bitstream import control
from avcall.bitstream import keyframe as still
from avcall.bitstream.control import (
    Bye,
    ControlMessage,
    Hello,
    KeyframeAck,
    KeyframeRequest,
    Ping,
    Pong,
    Report,
)
from avcall.bitstream.keyframe import CodedKeyframe
from avcall.bitstream.motion_coded import MotionCoder
from avcall.bitstream.packet import (
    PROTOCOL_VERSION,
    MessageType,
    first_byte,
    version_error,
    weights_error,
)
from avcall.errors import BitstreamError
from avcall.transport.base import Channel
from avcall.types import Keyframe, MediaKind
from receiver.depacketize import Depacketizer, DepacketizerStats
from receiver.playout import Playout
from receiver.queue import QueueEstimator

SOFTWARE = "avcall"
REPORT_EVERY_MS = 1_000.0
TROUBLED_EVERY_MS = 500.0  # while packets are lost or queue up
TROUBLED_QUEUE_MS = 60.0
REQUEST_EVERY_MS = 2_000.0  # a keyframe takes its time on a slow link; asking more often only adds to it
FIRST_KEYFRAME_MS = 4_000.0  # since the first message; without a keyframe by then, something went wrong


@dataclass(frozen=True, slots=True)
class ReceiverStats:
    """Payload bytes and counts since the start."""

    packets: DepacketizerStats
    motion_bytes: int
    motion_units: int
    audio_bytes: int
    audio_units: int
    keyframe_bytes: int
    keyframes: int
    rtt_ms: float | None


class ReceiverCore:
    """Messages in; units go to the playout, keyframes to the caller, answers to the transport."""

    def __init__(self, playout: Playout, coder: MotionCoder | None = None, weights: str = "") -> None:
        """Coded motion needs `coder`; `weights` is what the sender's must be."""
        self._weights = weights
        self.playout = playout
        self.peer_bye: str | None = None
        self._depacketizer = Depacketizer(coder)
        self._bytes = dict.fromkeys(MediaKind, 0)
        self._units = dict.fromkeys(MediaKind, 0)
        self._keyframe_bytes = 0
        self._keyframes = 0
        self._rtt_ms: float | None = None
        self._queue = QueueEstimator()
        self._reported_ms = float("-inf")
        self._reported_lost = 0
        self._requested_ms = float("-inf")
        self._undecodable: Counter[str] = Counter()  # keyframes; written by one thread alone
        self._first_message_ms: float | None = None
        self._acknowledged = False
        self._reports = 0
        self._answers: list[tuple[Channel, bytes]] = []
        self._answer(Hello(PROTOCOL_VERSION, "receiver", SOFTWARE, weights))

    def on_message(self, data: bytes, now_ms: float) -> CodedKeyframe | None:
        """One message; returns a keyframe when its last slice has come. Raises VersionError."""
        if self._first_message_ms is None:
            self._first_message_ms = now_ms
        found = self._depacketizer.push(data, now_ms)
        if data[:1] == first_byte(MessageType.KEYFRAME_SLICE):
            self._keyframe_bytes += len(data)
        self._bytes[MediaKind.MOTION] += found.motion_bytes
        if found.unknown_keyframe:
            self.request_keyframe(now_ms)
        for unit in found.units:
            if unit.kind is MediaKind.AUDIO:
                self._bytes[unit.kind] += len(unit.payload)
            self._units[unit.kind] += 1
            if self.playout.push(unit, now_ms):
                self._queue.add(unit.kind, unit.pts_ms, now_ms)
        if found.control is not None:
            self._on_control(found.control, now_ms)
        if found.keyframe is not None:
            self._keyframes += 1
        return found.keyframe

    def decode_keyframe(self, coded: CodedKeyframe) -> Keyframe | None:
        """The keyframe with its picture; None, and counted, when it does not decode. Takes milliseconds.

        The one method that another thread may call.
        """
        try:
            rgb = still.decode_still(coded.codec, coded.image)
        except BitstreamError as error:
            self._undecodable[type(error).__name__] += 1
            return None
        return Keyframe(coded.index, rgb, coded.keypoints)

    def acknowledge(self, index: int) -> None:
        """Tell the sender that keyframe `index` can be animated."""
        self._acknowledged = True
        self._answer(KeyframeAck(index))

    def check_keyframe(self, now_ms: float) -> None:
        """Ask for a keyframe when none has come for too long: the first one may have been damaged."""
        first_ms = self._first_message_ms
        if not self._acknowledged and first_ms is not None and now_ms - first_ms >= FIRST_KEYFRAME_MS:
            self.request_keyframe(now_ms)

    def request_keyframe(self, now_ms: float) -> None:
        """Ask for a keyframe, at most once in two seconds."""
        if now_ms - self._requested_ms >= REQUEST_EVERY_MS:
            self._requested_ms = now_ms
            self._answer(KeyframeRequest())

    def report_is_due(self, now_ms: float) -> bool:
        """Whether the sender should hear now how the receiver fares."""
        packets, since_ms = self._depacketizer.stats(), now_ms - self._reported_ms
        if since_ms >= REPORT_EVERY_MS:
            return True
        if since_ms < TROUBLED_EVERY_MS:
            return False
        return packets.lost_packets > self._reported_lost or self._queue.queue_ms(now_ms) > TROUBLED_QUEUE_MS

    def ping(self, now_ms: float) -> None:
        """Queue a heartbeat."""
        self._answer(Ping(now_ms))

    def report(self, frames_rendered: int, now_ms: float) -> None:
        """Queue a report on how the receiver fares."""
        packets, jitter = self._depacketizer.stats(), self.playout.stats().jitter
        self._reported_ms, self._reported_lost = now_ms, packets.lost_packets
        report = Report(
            packets.received_packets,
            packets.lost_packets,
            jitter.late,
            _whole_ms(jitter.jitter_ms),
            _whole_ms(jitter.playout_delay_ms),
            frames_rendered,
            packets.message_bytes,
            _whole_ms(self._queue.queue_ms(now_ms)),
            packets.newest_sequence,
            _whole_ms(now_ms - packets.newest_ms),
        )
        self._answers.append((Channel.MEDIA, control.serialize_report(report, self._reports, now_ms)))
        self._reports += 1

    def bye(self, reason: str) -> None:
        """Queue the goodbye."""
        self._answer(Bye.of(reason))

    def take_answers(self) -> list[tuple[Channel, bytes]]:
        """Control messages to send now, and how."""
        answers, self._answers = self._answers, []
        return answers

    def stats(self) -> ReceiverStats:
        """Totals so far."""
        packets = self._depacketizer.stats()
        return ReceiverStats(
            packets=replace(packets, dropped=dict(Counter(packets.dropped) + self._undecodable)),
            motion_bytes=self._bytes[MediaKind.MOTION],
            motion_units=self._units[MediaKind.MOTION],
            audio_bytes=self._bytes[MediaKind.AUDIO],
            audio_units=self._units[MediaKind.AUDIO],
            keyframe_bytes=self._keyframe_bytes,
            keyframes=self._keyframes,
            rtt_ms=self._rtt_ms,
        )

    def _on_control(self, message: ControlMessage, now_ms: float) -> None:
        match message:
            case Hello() if message.protocol_version != PROTOCOL_VERSION:
                raise version_error(message.protocol_version)
            case Hello() if message.weights != self._weights:
                raise weights_error(message.weights, self._weights)
            case Ping():
                self._answer(Pong(message.sent_ms))
            case Pong():
                self._rtt_ms = max(0.0, now_ms - message.sent_ms)
            case Bye():
                self.peer_bye = message.reason
            case _:
                pass

    def _answer(self, message: ControlMessage) -> None:
        self._answers.append((Channel.CONTROL, control.serialize(message)))


def _whole_ms(value_ms: float) -> int:
    """For a report: a float takes nine bytes, a number below 128 one."""
    return max(0, round(value_ms))
