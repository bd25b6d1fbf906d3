"""What a call needs of a network: two message channels, a count of every byte on the wire, and an end.

The pipelines know only this interface. `webrtc.py` carries it over the Internet, `loopback.py` inside one
process with a delay, a loss and a rate of one's choice.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from enum import Enum

from avcall.bitstream.packet import MAX_MESSAGE_BYTES, RTP_FIRST_BYTE, RTP_HEADER_BYTES
from avcall.errors import ConnectionFailedError

INBOX_CAPACITY = 1024  # messages; more than 40 s of a call, so only a stalled reader loses any

CONTROL_OVERHEAD_BYTES = 85  # what a message costs besides itself: IPv4 and UDP 28, DTLS 29, SCTP 28;
MEDIA_OVERHEAD_BYTES = 38  # an RTP packet: IPv4 and UDP 28, the tag of SRTP 10
UDP_IPV4_HEADER_BYTES = 28  # RFC 791 (20) and RFC 768 (8)
UDP_IPV6_HEADER_BYTES = 48  # RFC 8200 (40) and RFC 768 (8)


class Channel(Enum):
    """The two ways that a message may go."""

    MEDIA = 0  # RTP packets, unordered, never retransmitted: a late one is worth nothing
    CONTROL = 1  # ordered and reliable: control messages and keyframe slices


@dataclass(frozen=True, slots=True)
class Datagram:
    """One message as it arrived; `arrival_ms` is read from the clock of the transport."""

    channel: Channel
    data: bytes
    arrival_ms: float


@dataclass(frozen=True, slots=True)
class WireCounters:
    """What crossed the wire since the start.

    `sent_bytes` and `received_bytes` hold every byte of every datagram: the IP and UDP headers, encryption,
    acknowledgements and keep-alives of both ends included. The payload counts hold the messages alone.
    Of them, `ack_sent_bytes` and `ack_received_bytes` are datagrams with an acknowledgement and nothing else.
    `refused` counts the sends that returned False, `discarded` the messages that arrived with a size or kind
    that no peer of ours sends, or that nobody fetched in time.
    """

    sent_datagrams: int = 0
    sent_bytes: int = 0
    received_datagrams: int = 0
    received_bytes: int = 0
    ack_sent_bytes: int = 0
    ack_received_bytes: int = 0
    media_sent_bytes: int = 0
    media_received_bytes: int = 0
    control_sent_bytes: int = 0
    control_received_bytes: int = 0
    refused: int = 0
    discarded: int = 0


class WireCounter:
    """The running totals behind `WireCounters`, kept by each transport."""

    def __init__(self) -> None:
        self._sent_datagrams = 0
        self._sent_bytes = 0
        self._received_datagrams = 0
        self._received_bytes = 0
        self._ack_sent_bytes = 0
        self._ack_received_bytes = 0
        self._payload_sent_bytes = dict.fromkeys(Channel, 0)
        self._payload_received_bytes = dict.fromkeys(Channel, 0)
        self._refused = 0
        self._discarded = 0

    @property
    def sent_bytes(self) -> int:
        """Bytes that left this end so far, headers included."""
        return self._sent_bytes

    def datagram_sent(self, size_bytes: int) -> None:
        """Count a datagram of `size_bytes`, headers included, that left this end."""
        self._sent_datagrams += 1
        self._sent_bytes += size_bytes

    def datagram_received(self, size_bytes: int) -> None:
        """Count a datagram of `size_bytes`, headers included, that reached this end."""
        self._received_datagrams += 1
        self._received_bytes += size_bytes

    def ack_sent(self, size_bytes: int) -> None:
        """A datagram that was counted as sent was an acknowledgement."""
        self._ack_sent_bytes += size_bytes

    def ack_received(self, size_bytes: int) -> None:
        """A datagram that was counted as received was an acknowledgement."""
        self._ack_received_bytes += size_bytes

    def payload_sent(self, channel: Channel, size_bytes: int) -> None:
        """Count a message accepted for `channel`."""
        self._payload_sent_bytes[channel] += size_bytes

    def payload_received(self, channel: Channel, size_bytes: int) -> None:
        """Count a message that arrived on `channel`."""
        self._payload_received_bytes[channel] += size_bytes

    def message_refused(self) -> None:
        """Count a message that `Transport.send` did not take."""
        self._refused += 1

    def message_discarded(self) -> None:
        """Count a message that arrived and was thrown away."""
        self._discarded += 1

    def snapshot(self) -> WireCounters:
        """The totals so far."""
        return WireCounters(
            sent_datagrams=self._sent_datagrams,
            sent_bytes=self._sent_bytes,
            received_datagrams=self._received_datagrams,
            received_bytes=self._received_bytes,
            ack_sent_bytes=self._ack_sent_bytes,
            ack_received_bytes=self._ack_received_bytes,
            media_sent_bytes=self._payload_sent_bytes[Channel.MEDIA],
            media_received_bytes=self._payload_received_bytes[Channel.MEDIA],
            control_sent_bytes=self._payload_sent_bytes[Channel.CONTROL],
            control_received_bytes=self._payload_received_bytes[Channel.CONTROL],
            refused=self._refused,
            discarded=self._discarded,
        )


class Inbox:
    """What arrived and was not fetched yet: bounded, drops the oldest, and ends with an error."""

    def __init__(self, counter: WireCounter) -> None:
        self._datagrams: deque[Datagram] = deque()
        self._counter = counter
        self._changed = asyncio.Event()
        self._error: ConnectionFailedError | None = None

    @property
    def error(self) -> ConnectionFailedError | None:
        """Why nothing more will arrive; None while the connection lives."""
        return self._error

    def put(self, datagram: Datagram) -> None:
        """Add what just arrived; nothing is added after the end."""
        if self._error is not None:
            self._counter.message_discarded()
            return
        if len(self._datagrams) >= INBOX_CAPACITY:
            self._datagrams.popleft()
            self._counter.message_discarded()
        self._counter.payload_received(datagram.channel, len(datagram.data))
        self._datagrams.append(datagram)
        self._changed.set()

    def end(self, error: ConnectionFailedError) -> None:
        """No more arrives, because of `error`; the first error stays."""
        if self._error is None:
            self._error = error
        self._changed.set()

    def wake(self) -> None:
        """Make `wait_changed` return."""
        self._changed.set()

    def poll(self) -> Datagram | None:
        """The oldest datagram, or None when there is none now; raises the error once nothing is left."""
        if self._datagrams:
            return self._datagrams.popleft()
        if self._error is not None:
            raise self._error
        return None

    async def wait_changed(self) -> None:
        """Wait until something was put, ended or woken since the last wait."""
        await self._changed.wait()
        self._changed.clear()


class Transport(ABC):
    """One end of a call's connection."""

    @abstractmethod
    async def wait_connected(self, timeout_ms: float) -> None:
        """Wait until both channels are open.

        Raises PeerUnreachableError after `timeout_ms` or when no path exists, PeerLostError when the peer
        went away meanwhile, and TransportClosedError when this end was closed.
        """

    @abstractmethod
    def send(self, channel: Channel, data: bytes) -> bool:
        """Hand over a message of 1..MAX_MESSAGE_BYTES bytes; never blocks.

        Returns False when the message was dropped: the connection is not open, or too much waits already.
        Raises ValueError for a message of another size, and on MEDIA for one that is not an RTP packet, which
        is a mistake of the caller.
        """

    @abstractmethod
    async def receive(self) -> Datagram:
        """The next message of either channel, in order of arrival.

        Once nothing is left, raises PeerLostError when the peer closed or fell silent, TransportClosedError
        when this end was closed. For one task at a time.
        """

    @abstractmethod
    def buffered_bytes(self, channel: Channel) -> int:
        """Bytes of `channel` that were accepted and have not left this end yet."""

    @abstractmethod
    def counters(self) -> WireCounters:
        """What crossed the wire since the start."""

    @abstractmethod
    async def close(self) -> None:
        """End the connection; the other end notices at once if the network still works. Idempotent."""


def check_message(channel: Channel, data: bytes) -> None:
    """Raises ValueError unless `channel` can carry `data`."""
    if not 1 <= len(data) <= MAX_MESSAGE_BYTES:
        raise ValueError(f"a message has 1 to {MAX_MESSAGE_BYTES} bytes, not {len(data)}")
    if channel is Channel.MEDIA and (len(data) < RTP_HEADER_BYTES or data[0] != RTP_FIRST_BYTE):
        raise ValueError("a message of MEDIA is an RTP packet without extensions")
