"""A transport inside one process: two ends joined by links with a delay, a loss and a rate.

It counts the bytes that WebRTC would spend, message by message, and keeps the promises of the two channels:
MEDIA is not acknowledged, and what it loses is gone; what CONTROL loses comes a retransmission later and in
order. Time comes from the clock: with a ManualClock, advance it and call `step`; with the SystemClock, just
await `receive`.

Not modelled: congestion control (a message enters its link at once), loss of acknowledgements for CONTROL,
and the FORWARD-TSN chunks that SCTP adds after a loss.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count

from avcall.clock import Clock
from avcall.errors import ConfigError, ConnectionFailedError, PeerLostError, TransportClosedError
from avcall.transport.base import (
    CONTROL_OVERHEAD_BYTES,
    MEDIA_OVERHEAD_BYTES,
    Channel,
    Datagram,
    Inbox,
    Transport,
    WireCounter,
    WireCounters,
    check_message,
)

SACK_BYTES = 85  # the same headers; the SACK chunk is as long as the header of a DATA chunk
MAX_DATAGRAM_PAYLOAD_BYTES = 1160  # a longer message of CONTROL travels in two datagrams
ACK_EVERY = 2  # datagrams, or
ACK_DELAY_MS = 200.0  # whatever comes first
RETRANSMIT_MS = 1000.0  # the least retransmission timeout of aiortc (SCTP_RTO_MIN)


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """One direction of a network.

    A datagram takes `delay_ms` plus up to `jitter_ms` (uniform, so it may overtake), is lost with probability
    `loss`, and waits its turn in a queue of `queue_bytes` that empties at `rate_bps` (None: at once).
    Raises ConfigError for a value out of range.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    rate_bps: float | None = None
    queue_bytes: int = 64_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.delay_ms < 0 or self.jitter_ms < 0:
            raise ConfigError(f"delay_ms {self.delay_ms} and jitter_ms {self.jitter_ms} must not be negative")
        if not 0 <= self.loss <= 1:
            raise ConfigError(f"loss {self.loss} must be between 0 and 1")
        if self.rate_bps is not None and self.rate_bps <= 0:
            raise ConfigError(f"rate_bps {self.rate_bps} must be positive, or None for no limit")
        if self.queue_bytes < 0:
            raise ConfigError(f"queue_bytes {self.queue_bytes} must not be negative")


class Link:
    """The arithmetic of one direction; the time is an argument and never goes back."""

    def __init__(self, config: LinkConfig) -> None:
        self._config = config
        self._random = random.Random(config.seed)
        self._free_ms = 0.0
        self._queue: deque[tuple[float, int, Channel | None]] = deque()

    def admit(self, now_ms: float, size_bytes: int, channel: Channel | None) -> float | None:
        """When a datagram of `size_bytes` that enters now arrives; None when it is lost.

        `channel` is None for an acknowledgement.
        """
        lost = self._random.random() < self._config.loss
        jitter_ms = self._random.random() * self._config.jitter_ms
        left_ms = now_ms
        if self._config.rate_bps is not None:
            if self.backlog_bytes(now_ms) + size_bytes > self._config.queue_bytes:
                return None
            self._free_ms = max(self._free_ms, now_ms) + size_bytes * 8000 / self._config.rate_bps
            left_ms = self._free_ms
            self._queue.append((left_ms, size_bytes, channel))
        return None if lost else left_ms + self._config.delay_ms + jitter_ms

    def change(self, config: LinkConfig) -> None:
        """Go on under other conditions; what waits keeps the time at which it leaves."""
        self._config = config

    def backlog_bytes(self, now_ms: float, channel: Channel | None = None) -> int:
        """Bytes that wait for their turn, of one channel or (None) of everything."""
        while self._queue and self._queue[0][0] <= now_ms:
            self._queue.popleft()
        return sum(size for _, size, owner in self._queue if channel is None or owner is channel)

    def last_arrival_ms(self, now_ms: float) -> float:
        """By when everything that has entered is through."""
        return max(self._free_ms, now_ms) + self._config.delay_ms + self._config.jitter_ms


class _Timeline:
    """What will happen on both links, in order of time."""

    def __init__(self) -> None:
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._serial = count()

    def at(self, due_ms: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (due_ms, next(self._serial), event))

    def next_due_ms(self) -> float | None:
        return self._events[0][0] if self._events else None

    def run_until(self, now_ms: float) -> None:
        while self._events and self._events[0][0] <= now_ms:
            due_ms, _, event = heapq.heappop(self._events)
            event(due_ms)


class LoopbackTransport(Transport):
    """One end of a pair; made by `loopback_pair`."""

    def __init__(self, clock: Clock, timeline: _Timeline, link: Link) -> None:
        self._clock = clock
        self._timeline = timeline
        self._link = link  # towards the other end
        self._counter = WireCounter()
        self._inbox = Inbox(self._counter)
        self._other: LoopbackTransport = self
        self._next_sequence = 0
        self._expected_sequence = 0
        self._held: dict[int, bytes] = {}
        self._unacknowledged = 0
        self._ack_timer = 0  # the number of the newest; older ones find their datagrams acknowledged

    async def wait_connected(self, timeout_ms: float) -> None:
        """See Transport. A loopback is connected from the start."""
        if self._inbox.error is not None:
            raise self._inbox.error

    def send(self, channel: Channel, data: bytes) -> bool:
        """See Transport."""
        check_message(channel, data)
        now_ms = self._clock.now_ms()
        self.step(now_ms)
        if self._inbox.error is not None:
            self._counter.message_refused()
            return False
        self._counter.payload_sent(channel, len(data))
        sequence = None
        if channel is Channel.CONTROL:
            sequence = self._next_sequence
            self._next_sequence += 1
        self._transmit(now_ms, data=data, sequence=sequence)
        self._other._inbox.wake()
        return True

    def step(self, now_ms: float) -> None:
        """Let everything happen, at both ends, that is due by `now_ms`."""
        self._timeline.run_until(now_ms)

    def change_link(self, config: LinkConfig) -> None:
        """Have the link towards the other end go on under other conditions."""
        self._link.change(config)

    def next_due_ms(self) -> float | None:
        """When something happens next, at either end; None when nothing is on its way."""
        return self._timeline.next_due_ms()

    def poll(self) -> Datagram | None:
        """What `receive` would return, or None when nothing has arrived; raises what `receive` raises."""
        self.step(self._clock.now_ms())
        return self._inbox.poll()

    async def receive(self) -> Datagram:
        """See Transport."""
        while True:
            datagram = self.poll()
            if datagram is not None:
                return datagram
            due_ms = self.next_due_ms()
            wait_s = None if due_ms is None else max(0.0, due_ms - self._clock.now_ms()) / 1000
            try:
                async with asyncio.timeout(wait_s):
                    await self._inbox.wait_changed()
            except TimeoutError:
                continue

    def buffered_bytes(self, channel: Channel) -> int:
        """See Transport. What waits for its turn on the link, headers included."""
        return self._link.backlog_bytes(self._clock.now_ms(), channel)

    def counters(self) -> WireCounters:
        """See Transport."""
        return self._counter.snapshot()

    async def close(self) -> None:
        """See Transport."""
        if self._inbox.error is not None:
            return
        now_ms = self._clock.now_ms()
        self.step(now_ms)
        self._inbox.end(TransportClosedError("the call was ended on this side"))
        lost = PeerLostError("the peer closed the connection; call again if that was not meant")
        self._timeline.at(self._link.last_arrival_ms(now_ms), lambda _: self._other._end(lost))
        self._other._inbox.wake()

    def _transmit(self, now_ms: float, data: bytes, sequence: int | None) -> None:
        """Put a message on the link; `sequence` is its place on CONTROL, None on MEDIA."""
        channel = Channel.MEDIA if sequence is None else Channel.CONTROL
        sizes_bytes = _datagram_sizes(channel, len(data))
        arrivals_ms = []
        for size_bytes in sizes_bytes:
            self._counter.datagram_sent(size_bytes)
            arrivals_ms.append(self._link.admit(now_ms, size_bytes, channel))
        through_ms = [arrival_ms for arrival_ms in arrivals_ms if arrival_ms is not None]
        if len(through_ms) == len(sizes_bytes):
            arrive = partial(self._other._arrive, data=data, sequence=sequence)
            self._timeline.at(max(through_ms), arrive)
        elif sequence is not None and self._inbox.error is None:
            again = partial(self._transmit, data=data, sequence=sequence)
            self._timeline.at(now_ms + RETRANSMIT_MS, again)

    def _arrive(self, now_ms: float, data: bytes, sequence: int | None) -> None:
        if sequence is None:
            self._counter.datagram_received(len(data) + MEDIA_OVERHEAD_BYTES)
            self._inbox.put(Datagram(Channel.MEDIA, data, now_ms))
            return
        self._held[sequence] = data
        while self._expected_sequence in self._held:
            in_order = self._held.pop(self._expected_sequence)
            self._inbox.put(Datagram(Channel.CONTROL, in_order, now_ms))
            self._expected_sequence += 1
        for size_bytes in _datagram_sizes(Channel.CONTROL, len(data)):
            self._counter.datagram_received(size_bytes)
            self._unacknowledged += 1
            if self._unacknowledged >= ACK_EVERY:
                self._acknowledge(now_ms)
            else:
                self._ack_timer += 1
                late = partial(self._acknowledge_late, timer=self._ack_timer)
                self._timeline.at(now_ms + ACK_DELAY_MS, late)

    def _acknowledge_late(self, now_ms: float, timer: int) -> None:
        if timer == self._ack_timer and self._unacknowledged:
            self._acknowledge(now_ms)

    def _acknowledge(self, now_ms: float) -> None:
        self._unacknowledged = 0
        self._counter.datagram_sent(SACK_BYTES)
        self._counter.ack_sent(SACK_BYTES)
        arrival_ms = self._link.admit(now_ms, SACK_BYTES, None)
        if arrival_ms is not None:
            self._timeline.at(arrival_ms, self._other._on_acknowledged)

    def _on_acknowledged(self, now_ms: float) -> None:
        self._counter.datagram_received(SACK_BYTES)
        self._counter.ack_received(SACK_BYTES)

    def _end(self, error: ConnectionFailedError) -> None:
        self._inbox.end(error)


def loopback_pair(
    clock: Clock, forward: LinkConfig | None = None, backward: LinkConfig | None = None
) -> tuple[LoopbackTransport, LoopbackTransport]:
    """Two connected ends; `forward` is the link from the first to the second.

    `backward` defaults to the same conditions, with a seed of its own so that the losses differ.
    """
    forward = forward or LinkConfig()
    if backward is None:
        backward = LinkConfig(
            forward.delay_ms,
            forward.jitter_ms,
            forward.loss,
            forward.rate_bps,
            forward.queue_bytes,
            forward.seed + 1,
        )
    timeline = _Timeline()
    first = LoopbackTransport(clock, timeline, Link(forward))
    second = LoopbackTransport(clock, timeline, Link(backward))
    first._other, second._other = second, first
    return first, second


def _datagram_sizes(channel: Channel, message_bytes: int) -> list[int]:
    """What a message of `message_bytes` costs on the wire, datagram by datagram."""
    if channel is Channel.MEDIA:
        return [message_bytes + MEDIA_OVERHEAD_BYTES]
    whole, rest = divmod(message_bytes, MAX_DATAGRAM_PAYLOAD_BYTES)
    payloads_bytes = [MAX_DATAGRAM_PAYLOAD_BYTES] * whole + [rest] * (rest > 0)
    return [payload_bytes + CONTROL_OVERHEAD_BYTES for payload_bytes in payloads_bytes]
