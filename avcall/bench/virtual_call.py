"""The two ends of a call in virtual time, joined by a perfect loopback that counts every byte.

The far end answers as a receiver does, but draws nothing; what it hears is kept, to be played to a real
receiver later. Opaque messages cost what others cost and are not listened to: so other codecs' streams cross
the same wire, beside the same control messages.
"""

import struct
from dataclasses import dataclass

from avcall.bitstream.motion_coded import MotionCoder
from avcall.clock import ManualClock
from avcall.errors import InputError
from avcall.transport.base import Channel, WireCounters
from avcall.transport.loopback import loopback_pair
from receiver.core import ReceiverCore
from receiver.mel import MelWindows
from receiver.playout import Playout
from sender.core import SenderCore
from sender.encode import MotionGroupEncoder
from sender.references import ReferenceSet

STEP_MS = 10  # of virtual time
OPAQUE = {Channel.MEDIA: b"\x80\0", Channel.CONTROL: b"\0"}  # start no message of the protocol
DRAIN_MS = 400  # after the last frame, for the last packets

_HEAD = struct.Struct(">I")  # count of frames
_MESSAGE = struct.Struct(">dBH")  # arrival in ms, channel, size


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it reached the receiver."""

    arrival_ms: float
    channel: Channel
    data: bytes


class VirtualCall:
    """A sender's core and a receiver's, with a clock that only `step` moves."""

    def __init__(
        self,
        tick_ms: int,
        coder: MotionCoder | None,
        motion_step: int | None,
        references: ReferenceSet | None = None,
    ) -> None:
        """`motion_step` None sends motion in half floats."""
        weights = "" if coder is None else coder.digest
        group = None
        if coder is not None and motion_step is not None:
            group = MotionGroupEncoder(coder, motion_step)
        self.sender = SenderCore(tick_ms, group, weights, references)
        self.messages: list[Message] = []
        self._receiver = ReceiverCore(Playout(MelWindows()), coder, weights)
        self._clock = ManualClock()
        self._near, self._far = loopback_pair(self._clock)

    @property
    def now_ms(self) -> float:
        """Virtual time since the start."""
        return self._clock.now_ms()

    def counters(self) -> WireCounters:
        """What crossed the wire, seen from the sender."""
        return self._near.counters()

    def send_opaque(self, channel: Channel, size_bytes: int) -> None:
        """Send a message of that size now."""
        self._near.send(channel, OPAQUE[channel].ljust(size_bytes, b"\0"))

    def run_until(self, due_ms: float) -> None:
        """Let the time pass."""
        while self.now_ms < due_ms:
            self.step()

    def step(self) -> None:
        """A step of virtual time for both ends."""
        now_ms = self.now_ms
        if self._receiver.report_is_due(now_ms):
            self._receiver.report(self.sender.stats().motion_units, now_ms)
        for channel, data in self.sender.poll(now_ms):
            self._near.send(channel, data)
        for channel, data in self._receiver.take_answers():
            self._far.send(channel, data)
        self._deliver()
        self._clock.advance(STEP_MS)

    def _deliver(self) -> None:
        while (datagram := self._far.poll()) is not None:
            if datagram.data.startswith(OPAQUE[datagram.channel]):
                continue
            self.messages.append(Message(datagram.arrival_ms, datagram.channel, datagram.data))
            coded = self._receiver.on_message(datagram.data, datagram.arrival_ms)
            if coded is not None and self._receiver.decode_keyframe(coded) is not None:
                self._receiver.acknowledge(coded.index)
        while (datagram := self._near.poll()) is not None:
            self.sender.on_message(datagram.data, datagram.arrival_ms)


def write_messages(frames: int, messages: list[Message]) -> bytes:
    """The messages of a clip of `frames` frames as bytes."""
    parts = [_HEAD.pack(frames)]
    for message in messages:
        parts.append(_MESSAGE.pack(message.arrival_ms, message.channel.value, len(message.data)))
        parts.append(message.data)
    return b"".join(parts)


def read_messages(data: bytes) -> tuple[int, list[Message]]:
    """What `write_messages` wrote. Raises InputError when it is cut short."""
    try:
        (frames,) = _HEAD.unpack_from(data)
        offset = _HEAD.size
        messages = []
        while offset < len(data):
            arrival_ms, channel, size_bytes = _MESSAGE.unpack_from(data, offset)
            offset += _MESSAGE.size
            if offset + size_bytes > len(data):
                raise ValueError("cut short")
            messages.append(Message(arrival_ms, Channel(channel), data[offset : offset + size_bytes]))
            offset += size_bytes
    except (struct.error, ValueError) as error:
        raise InputError(f"recorded messages cannot be read ({error}); run again without them") from None
    return frames, messages
