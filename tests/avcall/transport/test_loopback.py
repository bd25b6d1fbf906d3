"""The loopback in virtual time: delay, loss, rate, and the bytes that it charges."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avcall.clock import ManualClock, SystemClock
from avcall.errors import ConfigError, PeerLostError, TransportClosedError
from avcall.transport.base import Channel, Datagram
from avcall.transport.loopback import (
    CONTROL_OVERHEAD_BYTES,
    RETRANSMIT_MS,
    LinkConfig,
    LoopbackTransport,
    loopback_pair,
)
from tests.units import rtp

HELLO = rtp(b"hello")


def drain(end: LoopbackTransport) -> list[Datagram]:
    datagrams = []
    while (datagram := end.poll()) is not None:
        datagrams.append(datagram)
    return datagrams


def test_a_message_arrives_after_the_delay_and_not_before() -> None:
    clock = ManualClock()
    near, far = loopback_pair(clock, LinkConfig(delay_ms=30))
    assert near.send(Channel.MEDIA, HELLO)
    clock.advance(29.9)
    assert far.poll() is None
    clock.advance(0.1)
    assert far.poll() == Datagram(Channel.MEDIA, HELLO, 30.0)


def test_the_arrival_is_the_time_of_the_link_however_late_it_is_fetched() -> None:
    clock = ManualClock()
    near, far = loopback_pair(clock, LinkConfig(delay_ms=30))
    near.send(Channel.MEDIA, HELLO)
    clock.advance(500)
    assert drain(far)[0].arrival_ms == 30.0


def test_each_message_of_control_costs_85_bytes_and_every_second_one_a_sack_of_85_back() -> None:
    clock = ManualClock()
    near, far = loopback_pair(clock, LinkConfig(delay_ms=10))
    for _ in range(4):
        near.send(Channel.CONTROL, bytes(100))
    clock.advance(20)
    assert len(drain(far)) == 4
    assert near.counters().sent_bytes == far.counters().received_bytes == 4 * 185
    assert far.counters().sent_bytes == near.counters().received_bytes == 2 * 85
    assert far.counters().ack_sent_bytes == near.counters().ack_received_bytes == 2 * 85
    near.send(Channel.CONTROL, bytes(100))
    clock.advance(10 + 199)
    assert len(drain(far)) == 1
    assert far.counters().ack_sent_bytes == 2 * 85
    clock.advance(1)
    assert not drain(far)
    assert far.counters().ack_sent_bytes == 3 * 85
    assert far.counters().control_received_bytes == near.counters().control_sent_bytes == 500


def test_media_costs_38_bytes_a_message_and_nothing_comes_back() -> None:
    clock = ManualClock()
    near, far = loopback_pair(clock, LinkConfig(delay_ms=10))
    for sequence in range(4):
        near.send(Channel.MEDIA, rtp(bytes(88), sequence))
    clock.advance(500)
    assert len(drain(far)) == 4
    assert near.counters().sent_bytes == far.counters().received_bytes == 4 * 138
    assert far.counters().sent_bytes == near.counters().received_bytes == 0
    assert far.counters().media_received_bytes == near.counters().media_sent_bytes == 400


@pytest.mark.parametrize("data", [b"", b"hello, this is no RTP", rtp()[:-1], rtp(bytes(1189))])
def test_what_media_cannot_carry_is_a_mistake(data: bytes) -> None:
    near, _ = loopback_pair(ManualClock())
    with pytest.raises(ValueError, match="a message"):
        near.send(Channel.MEDIA, data)


def test_a_message_over_1160_bytes_costs_two_datagrams() -> None:
    clock = ManualClock()
    near, far = loopback_pair(clock)
    near.send(Channel.CONTROL, bytes(1161))
    drain(far)
    assert near.counters().sent_datagrams == 2
    assert near.counters().received_datagrams == 1
    assert near.counters().sent_bytes == 1161 + 2 * CONTROL_OVERHEAD_BYTES


def test_media_that_is_lost_is_gone_and_the_same_seed_loses_the_same() -> None:
    def run(seed: int) -> list[bytes]:
        clock = ManualClock()
        near, far = loopback_pair(clock, LinkConfig(loss=0.1, seed=seed))
        for index in range(1000):
            near.send(Channel.MEDIA, rtp(index.to_bytes(2)))
        return [datagram.data for datagram in drain(far)]

    received = run(seed=3)
    assert 860 <= len(received) <= 940
    assert received == run(seed=3)
    assert received != run(seed=4)


@given(seed=st.integers(0, 1000))
def test_control_arrives_whole_and_in_order_whatever_is_lost(seed: int) -> None:
    clock = ManualClock()
    near, far = loopback_pair(clock, LinkConfig(delay_ms=20, jitter_ms=50, loss=0.3, seed=seed))
    sent = [index.to_bytes(2, "big") for index in range(50)]
    for data in sent:
        near.send(Channel.CONTROL, data)
    received: list[Datagram] = []
    while len(received) < len(sent):
        clock.advance(100)
        received += drain(far)
        assert clock.now_ms() < 60 * RETRANSMIT_MS
    assert [datagram.data for datagram in received] == sent


def test_jitter_lets_media_overtake_within_its_bound() -> None:
    clock = ManualClock()
    near, far = loopback_pair(clock, LinkConfig(delay_ms=20, jitter_ms=40))
    for index in range(100):
        near.send(Channel.MEDIA, rtp(bytes([index])))
    clock.advance(60)
    received = drain(far)
    order = [datagram.data[-1] for datagram in received]
    assert sorted(order) == list(range(100))
    assert order != sorted(order)
    assert all(20 <= datagram.arrival_ms <= 60 for datagram in received)


def test_a_link_of_a_rate_sends_one_datagram_after_the_other() -> None:
    clock = ManualClock()
    near, far = loopback_pair(clock, LinkConfig(rate_bps=8_000))
    near.send(Channel.MEDIA, rtp(bytes(150)))  # 200 bytes on the wire: 200 ms
    near.send(Channel.CONTROL, bytes(115))
    assert near.buffered_bytes(Channel.MEDIA) == near.buffered_bytes(Channel.CONTROL) == 200
    clock.advance(399)
    assert [datagram.arrival_ms for datagram in drain(far)] == [200.0]
    assert near.buffered_bytes(Channel.MEDIA) == 0
    clock.advance(1)
    assert [datagram.arrival_ms for datagram in drain(far)] == [400.0]


def test_a_full_queue_loses_media_only() -> None:
    clock = ManualClock()
    near, far = loopback_pair(clock, LinkConfig(rate_bps=80_000, queue_bytes=1000))
    for _ in range(20):
        near.send(Channel.MEDIA, rtp(bytes(142)))
    near.send(Channel.CONTROL, b"bye")
    clock.advance(5 * RETRANSMIT_MS)
    received = drain(far)
    assert [datagram.channel for datagram in received] == [Channel.MEDIA] * 5 + [Channel.CONTROL]


async def test_the_peer_learns_of_a_close_after_what_was_sent_before_it() -> None:
    clock = ManualClock()
    near, far = loopback_pair(clock, LinkConfig(delay_ms=30, jitter_ms=20))
    near.send(Channel.CONTROL, b"bye")
    await near.close()
    assert not near.send(Channel.MEDIA, rtp(b"late"))
    assert near.counters().refused == 1
    with pytest.raises(TransportClosedError):
        near.poll()
    assert far.poll() is None
    clock.advance(50)
    assert [await far.receive()] == [Datagram(Channel.CONTROL, b"bye", pytest.approx(40, abs=10))]
    with pytest.raises(PeerLostError):
        await far.receive()
    with pytest.raises(PeerLostError):
        await far.wait_connected(0)


async def test_receive_wakes_by_itself_on_the_real_clock() -> None:
    clock = SystemClock()
    near, far = loopback_pair(clock, LinkConfig(delay_ms=5))
    await far.wait_connected(0)
    waiting = asyncio.create_task(far.receive())
    await asyncio.sleep(0)
    sent_ms = clock.now_ms()
    near.send(Channel.MEDIA, HELLO)
    datagram = await waiting
    assert datagram.data == HELLO
    assert datagram.arrival_ms >= sent_ms + 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("delay_ms", -1),
        ("jitter_ms", -1),
        ("loss", 1.1),
        ("loss", -0.1),
        ("rate_bps", 0),
        ("queue_bytes", -1),
    ],
)
def test_a_link_out_of_range_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        LinkConfig(**{field: value})
