"""The sender between its stages and the transport: what goes out, when, and what the receiver answers.

Pure: time is an argument and nothing blocks, so that a call, a test in virtual time and the benchmark run the
same code.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, replace

from avcall.bitstream import control, motion
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
from avcall.bitstream.motion import MotionMode
from avcall.bitstream.packet import (
    PROTOCOL_VERSION,
    MessageType,
    message_type,
    split_rtp,
    version_error,
    weights_error,
)
from avcall.errors import BitstreamError
from avcall.transport.base import Channel
from avcall.types import AccessUnit
from sender.encode import EncodedKeyframe, MotionGroupEncoder
from sender.pacer import Pacer
from sender.packetize import Packetizer
from sender.ratecontrol import RateConfig, RateController, RateDecision
from sender.references import Estimate, ReferenceSet

SOFTWARE = "avcall"
SENT_TIMES = 512  # media packets whose time of sending is kept: 20 s of the shortest tick
RESEND_AFTER_MS = 1_500.0  # since the last slice left: it may be on its way, or its acknowledgement


@dataclass(frozen=True, slots=True)
class SenderStats:
    """Payload bytes handed to the transport since the start, by what they are; and what the receiver reports.

    `motion_bytes` and `audio_bytes` are bare payloads, `media_bytes` whole media messages that hold them.
    """

    motion_bytes: int = 0
    motion_units: int = 0
    audio_bytes: int = 0
    audio_units: int = 0
    media_bytes: int = 0
    keyframe_bytes: int = 0
    keyframes: int = 0
    control_bytes: int = 0
    stale_media: int = 0
    dropped_messages: int = 0
    rtt_ms: float | None = None
    report: Report | None = None
    rate: RateDecision | None = None


class SenderCore:
    """Units and keyframes in, messages out, the receiver's control messages in."""

    def __init__(
        self,
        tick_ms: int,
        group: MotionGroupEncoder | None = None,
        weights: str = "",
        references: ReferenceSet | None = None,
        rate: RateConfig | None = None,
    ) -> None:
        """Without `group` motion travels in half floats; `weights` is what the receiver's must be.

        Without `rate` the call is sent as asked for, whatever the link carries.
        """
        self._packetizer = Packetizer(tick_ms, group)
        self._group = group
        self._weights = weights
        self._pacer = Pacer()
        self._rate = RateController(rate) if rate is not None else None
        self._sent_ms: OrderedDict[int, float] = OrderedDict()  # by sequence
        self._references = references or ReferenceSet()
        self._keyframe_budget = self._references.budget.bits_per_minute  # what the user allows
        self._pts_ms = 0  # of the latest motion
        self._stats = SenderStats()
        self._slice_ms = float("-inf")  # when the last slice left
        self._dropped_messages = 0
        self.keyframe_wanted = False
        self.keyframe_index: int | None = None  # of the wanted one; None: the camera's next number
        self._sharper_index: int | None = None  # that was ordered, and not taken yet
        self.peer_bye: str | None = None
        self.push_control(Hello(PROTOCOL_VERSION, "sender", SOFTWARE, weights))

    @property
    def acknowledged_keyframe(self) -> int | None:
        """The keyframe that motion animates now; None until the receiver holds one."""
        current = self._references.current
        return None if current is None else current.index

    @property
    def references(self) -> tuple[EncodedKeyframe, ...]:
        """What the receiver holds, the one in use first; any thread may ask."""
        return self._references.candidates

    def push_motion(self, unit: AccessUnit) -> bool:
        """Queue motion of the reference that suits it best, and order a new one when none does.

        False before the receiver holds a keyframe, when it would be bits for nothing.
        """
        self._pts_ms = unit.pts_ms
        pose = motion.decode(MotionMode.FP16, unit.payload)
        index = self._references.choose(pose, unit.pts_ms)
        if index is None:
            return False
        ordered = self._references.order(unit.pts_ms)
        if ordered is not None:
            self.keyframe_index, self.keyframe_wanted = ordered, True
        self._order_sharper()
        return self._packetizer.push(replace(unit, keyframe_index=index))

    def _order_sharper(self) -> None:
        """Order the first picture once more where there is room for it and nothing waits."""
        rate = self._stats.rate
        room = math.inf if rate is None else rate.keyframe_bits_per_minute
        if self._pacer.pending_slices:
            return
        index = self._references.order_sharper(self._pts_ms, room)
        if index is not None:
            self._sharper_index = index

    def take_sharper(self) -> int | None:
        """The index under which the first picture is to be sent once more, with more bits; None: not now.

        The picture's thread asks: it writes only where there is an order, so that none is lost.
        """
        index = self._sharper_index
        if index is not None:
            self._sharper_index = None
        return index

    def push_estimates(self, estimates: tuple[Estimate, ...]) -> None:
        """What the references would look like at the receiver."""
        self._references.measured(estimates)

    def push_audio(self, unit: AccessUnit) -> bool:
        """Queue speech."""
        return self._packetizer.push(unit)

    def push_keyframe(self, keyframe: EncodedKeyframe) -> None:
        """Send a keyframe, slice by slice; motion moves over to it once the receiver has it."""
        self._references.push(keyframe, self._pts_ms)
        if self._group is not None:
            self._group.add_source(keyframe)
        self._pacer.push_keyframe(keyframe.slices)
        self._stats = replace(self._stats, keyframes=self._stats.keyframes + 1)

    def push_control(self, message: ControlMessage) -> None:
        """Queue a control message."""
        self._pacer.push_control(control.serialize(message))

    def adapt(self, now_ms: float, sent_bytes: int, backlog_bytes: int) -> RateDecision | None:
        """Follow the link: what to do from now on, done here but for the rate of the speech encoder.

        `sent_bytes` is what was put on the wire so far, `backlog_bytes` what the transport holds. None, and
        nothing changes, for a call without rate control.
        """
        if self._rate is None:
            return None
        decision = self._rate.update(
            now_ms, sent_bytes, backlog_bytes, showing=self.acknowledged_keyframe is not None
        )
        self._packetizer.configure(decision.rung, repeat_audio=decision.repeat_audio)
        self._references.budget.bits_per_minute = max(
            0.0, min(self._keyframe_budget, decision.keyframe_bits_per_minute)
        )
        self._pacer.set_pace(decision.slice_interval_ms, decision.slice_bytes)
        if self._group is not None and decision.rung.step is not None:
            self._group.step = decision.rung.step
            self._group.deforms = decision.rung.deforms
        self._stats = replace(self._stats, rate=decision)
        return decision

    def ping(self, now_ms: float) -> None:
        """Queue a heartbeat."""
        self.push_control(Ping(now_ms))

    def poll(
        self, now_ms: float, *, media_open: bool = True, slices_open: bool = True
    ) -> list[tuple[Channel, bytes]]:
        """What to hand to the transport now.

        While the transport has not sent what it holds of a channel, `media_open` or `slices_open` is False:
        then media grows stale here, where it can still be dropped, and the keyframe waits its turn.
        """
        for message in self._packetizer.poll(now_ms):
            self._pacer.push_media(message, now_ms)
        ready = self._pacer.pop(now_ms, media_open=media_open, slices_open=slices_open)
        for channel, data in ready:
            self._count(channel, data, now_ms)
        return ready

    def on_message(self, data: bytes, now_ms: float) -> None:
        """A message from the receiver: dropped and counted when malformed. Raises VersionError."""
        try:
            message = control.parse(data)
        except BitstreamError:
            self._dropped_messages += 1
            return
        match message:
            case Hello() if message.protocol_version != PROTOCOL_VERSION:
                raise version_error(message.protocol_version)
            case Hello() if message.weights != self._weights:
                raise weights_error(message.weights, self._weights)
            case KeyframeAck():
                self._references.acknowledge(message.index, self._pts_ms)
            case KeyframeRequest():
                self._answer_request(now_ms)
            case Ping():
                self.push_control(Pong(message.sent_ms))
            case Pong():
                self._stats = replace(self._stats, rtt_ms=max(0.0, now_ms - message.sent_ms))
            case Report():
                self._on_report(message, now_ms)
            case Bye():
                self.peer_bye = message.reason
            case _:
                pass

    def stats(self) -> SenderStats:
        """Totals so far."""
        packets = self._packetizer.stats()
        return replace(
            self._stats,
            motion_units=packets.motion_units,
            audio_units=packets.audio_units,
            motion_bytes=packets.motion_bytes,
            audio_bytes=packets.audio_bytes,
            stale_media=self._pacer.stats().stale_media,
            dropped_messages=self._dropped_messages,
        )

    def _answer_request(self, now_ms: float) -> None:
        """The receiver lacks a keyframe: send one once more, unless it is on its way."""
        keyframe = self._references.missing()
        if keyframe is None:
            self.keyframe_wanted = True
        elif self._pacer.pending_slices == 0 and now_ms - self._slice_ms >= RESEND_AFTER_MS:
            self._pacer.push_keyframe(keyframe.slices)

    def _on_report(self, report: Report, now_ms: float) -> None:
        before = self._stats.report
        if before is not None and report.received_bytes < before.received_bytes:
            return  # overtaken on its way by a newer one
        self._stats = replace(self._stats, report=report)
        sent_ms = self._sent_ms.get(report.newest_sequence)
        if sent_ms is not None:
            rtt_ms = max(0.0, now_ms - sent_ms - report.held_ms)
            self._stats = replace(self._stats, rtt_ms=rtt_ms)
        if self._rate is not None:
            self._rate.on_report(report, now_ms)

    def _count(self, channel: Channel, data: bytes, now_ms: float) -> None:
        if channel is Channel.MEDIA:
            self._sent_ms[split_rtp(data)[0].sequence] = now_ms
            if len(self._sent_ms) > SENT_TIMES:
                self._sent_ms.popitem(last=False)
            self._stats = replace(self._stats, media_bytes=self._stats.media_bytes + len(data))
        elif message_type(data) is MessageType.KEYFRAME_SLICE:
            self._slice_ms = now_ms
            self._stats = replace(self._stats, keyframe_bytes=self._stats.keyframe_bytes + len(data))
        else:
            self._stats = replace(self._stats, control_bytes=self._stats.control_bytes + len(data))
