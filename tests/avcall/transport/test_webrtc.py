"""Two real aiortc connections in one process, over 127.0.0.1, with no STUN server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from avcall.clock import ManualClock
from avcall.errors import (
    ConfigError,
    PeerLostError,
    PeerUnreachableError,
    SignalingError,
    TransportClosedError,
)
from avcall.transport import webrtc
from avcall.transport.base import (
    CONTROL_OVERHEAD_BYTES,
    MAX_MESSAGE_BYTES,
    MEDIA_OVERHEAD_BYTES,
    Channel,
    Datagram,
)
from avcall.transport.loopback import SACK_BYTES
from avcall.transport.webrtc import IceConfig, WebRtcTransport
from tests.units import rtp

ICE = IceConfig(addresses=("127.0.0.1",))


@asynccontextmanager
async def connected(
    clock: ManualClock | None = None,
) -> AsyncIterator[tuple[WebRtcTransport, WebRtcTransport]]:
    caller = await WebRtcTransport.offer(ICE, clock)
    called = await WebRtcTransport.accept(caller.local_sdp, ICE, clock)
    try:
        await caller.set_answer(called.local_sdp)
        await asyncio.gather(caller.wait_connected(10_000), called.wait_connected(10_000))
        yield caller, called
    finally:
        await asyncio.gather(caller.close(), called.close())


async def settle(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; the test's own timeout ends a wait in vain."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - there is no event for what aiortc does inside
            await asyncio.sleep(0.005)


def sockets(transport: WebRtcTransport) -> list[Any]:
    return list(transport._ice_connection._protocols)


def cut_off(transport: WebRtcTransport) -> None:
    """Make one end deaf and dumb, as when its machine is gone."""

    async def send_nothing(*_: Any) -> None:
        return None

    for socket in sockets(transport):
        socket.send_data = send_nothing
        socket.send_stun = socket.datagram_received = lambda *_: None


def lose_datagram(transport: WebRtcTransport, position: int) -> None:
    """Lose the datagram number `position` (from 0) among the data that `transport` sends next."""
    (socket,) = sockets(transport)
    send_data, seen = socket.send_data, 0

    async def lossy(data: bytes, address: tuple[str, int]) -> None:
        nonlocal seen
        seen += 1
        if seen - 1 != position:
            await send_data(data, address)

    socket.send_data = lossy


async def test_both_ends_connect_on_one_address_without_stun() -> None:
    async with connected() as (caller, called):
        assert "127.0.0.1" in caller.local_sdp
        assert caller.local_sdp.count("a=candidate:") == called.local_sdp.count("a=candidate:") == 1
        assert "a=end-of-candidates" in caller.local_sdp
        assert called.send(Channel.CONTROL, b"hello")
        assert (await caller.receive()).data == b"hello"


async def test_a_machine_without_a_network_calls_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: [])
    caller = await WebRtcTransport.offer()
    assert " 127.0.0.1 " in caller.local_sdp
    await caller.close()


async def test_media_costs_38_bytes_a_message_and_nothing_comes_back() -> None:
    async with connected() as (caller, called):
        await settle(lambda: caller.counters().sent_bytes == called.counters().received_bytes)
        before = caller.counters()
        for sequence in range(20):
            data = rtp(bytes(88), sequence)
            assert caller.send(Channel.MEDIA, data)
            datagram = await called.receive()
            assert (datagram.channel, datagram.data) == (Channel.MEDIA, data)
        after = caller.counters()
        assert after.sent_datagrams - before.sent_datagrams == 20
        assert after.sent_bytes - before.sent_bytes == 20 * (100 + MEDIA_OVERHEAD_BYTES)
        assert after.received_bytes == before.received_bytes
        assert after.media_sent_bytes == called.counters().media_received_bytes == 2000
        assert called.counters().received_bytes == after.sent_bytes


async def test_control_costs_85_bytes_a_message_and_every_second_one_a_sack_of_85_back() -> None:
    async with connected() as (caller, called):
        await settle(lambda: caller.counters().sent_bytes == called.counters().received_bytes)
        before = caller.counters()
        for _ in range(20):
            assert caller.send(Channel.CONTROL, bytes(100))
            assert len((await called.receive()).data) == 100
        await settle(lambda: caller.counters().received_datagrams - before.received_datagrams >= 10)
        after = caller.counters()
        assert after.sent_datagrams - before.sent_datagrams == 20
        assert after.sent_bytes - before.sent_bytes == 20 * (100 + CONTROL_OVERHEAD_BYTES)
        assert after.received_bytes - before.received_bytes == 10 * SACK_BYTES
        assert after.ack_received_bytes - before.ack_received_bytes == 10 * SACK_BYTES
        assert called.counters().ack_sent_bytes == after.ack_received_bytes
        assert after.control_sent_bytes == called.counters().control_received_bytes == 2000
        assert called.counters().received_bytes == after.sent_bytes


async def test_a_single_message_is_acknowledged_a_little_later() -> None:
    async with connected() as (caller, called):
        await settle(lambda: caller.counters().sent_bytes == called.counters().received_bytes)
        before = caller.counters().ack_received_bytes
        caller.send(Channel.CONTROL, b"one")
        assert (await called.receive()).data == b"one"
        assert called.counters().ack_sent_bytes == before
        await settle(lambda: caller.counters().ack_received_bytes == before + SACK_BYTES)


async def test_media_cannot_be_read_forged_or_replayed() -> None:
    async with connected() as (caller, called):
        (far,), seen = sockets(called), []
        deliver = far.datagram_received
        far.datagram_received = lambda data, address: (seen.append((data, address)), deliver(data, address))
        caller.send(Channel.MEDIA, rtp(b"a secret face", 1))
        await called.receive()
        data, address = next((data, address) for data, address in seen if data[0] == 0x80)
        assert b"secret" not in data and len(data) == len(rtp(b"a secret face")) + 10
        deliver(data, address)
        deliver(data[:-1] + bytes([data[-1] ^ 1]), address)
        deliver(rtp(b"forged", 2) + bytes(10), address)
        caller.send(Channel.MEDIA, rtp(b"next", 3))
        assert (await called.receive()).data == rtp(b"next", 3)


@pytest.mark.parametrize(("size_bytes", "datagrams"), [(1160, 1), (1161, 2), (MAX_MESSAGE_BYTES, 2)])
async def test_a_message_over_1160_bytes_travels_as_two_datagrams(size_bytes: int, datagrams: int) -> None:
    async with connected() as (caller, called):
        await settle(lambda: caller.counters().sent_bytes == called.counters().received_bytes)
        before = caller.counters().sent_datagrams
        caller.send(Channel.CONTROL, bytes(size_bytes))
        assert len((await called.receive()).data) == size_bytes
        assert caller.counters().sent_datagrams - before == datagrams


async def test_lost_media_is_never_sent_again_and_holds_nothing_up() -> None:
    async with connected() as (caller, called):
        lose_datagram(caller, position=2)
        for index in range(10):
            caller.send(Channel.MEDIA, rtp(sequence=index))
        received = [(await called.receive()).data for _ in range(9)]
        assert received == [rtp(sequence=index) for index in (0, 1, 3, 4, 5, 6, 7, 8, 9)]


async def test_lost_control_is_sent_again_and_keeps_its_order() -> None:
    async with connected() as (caller, called):
        lose_datagram(caller, position=2)
        for index in range(10):
            caller.send(Channel.CONTROL, bytes([index]))
        assert [(await called.receive()).data[0] for _ in range(10)] == list(range(10))


async def test_send_refuses_what_would_wait_too_long() -> None:
    async with connected() as (caller, _):
        full = rtp(bytes(MAX_MESSAGE_BYTES - 12))
        accepted = sum(caller.send(Channel.MEDIA, full) for _ in range(20))
        assert accepted == webrtc.MAX_BUFFERED_BYTES[Channel.MEDIA] // MAX_MESSAGE_BYTES
        assert caller.counters().refused == 20 - accepted
        assert caller.buffered_bytes(Channel.MEDIA) == accepted * MAX_MESSAGE_BYTES
        await settle(lambda: caller.buffered_bytes(Channel.MEDIA) == 0)


async def test_send_before_the_connection_and_after_the_end_is_refused() -> None:
    caller = await WebRtcTransport.offer(ICE)
    assert not caller.send(Channel.MEDIA, rtp())
    await caller.close()
    await caller.close()
    assert not caller.send(Channel.MEDIA, rtp())
    with pytest.raises(TransportClosedError):
        await caller.receive()


async def test_a_bye_arrives_before_the_end_of_the_connection() -> None:
    async with connected() as (caller, called):
        caller.send(Channel.CONTROL, b"bye")
        await caller.close()
        async with asyncio.timeout(2):
            assert (await called.receive()).data == b"bye"
            with pytest.raises(PeerLostError, match="closed"):
                await called.receive()
        assert not called.send(Channel.MEDIA, rtp())


async def test_a_peer_that_vanishes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webrtc, "WATCH_INTERVAL_MS", 10)
    clock = ManualClock()
    async with connected(clock) as (caller, called):
        cut_off(called)
        clock.advance(webrtc.SILENCE_TIMEOUT_MS)
        with pytest.raises(PeerLostError, match="nothing was heard of the peer for 5 s"):
            await caller.receive()


async def test_an_idle_connection_is_kept_by_empty_messages_that_nobody_sees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webrtc, "WATCH_INTERVAL_MS", 10)
    clock = ManualClock()
    async with connected(clock) as (caller, called):
        for _ in range(4):
            heard = caller.counters().received_datagrams
            clock.advance(webrtc.KEEPALIVE_AFTER_MS + 1)
            await settle(lambda heard=heard: caller.counters().received_datagrams > heard)
        caller.send(Channel.MEDIA, rtp(b"still here"))
        assert (await called.receive()).data == rtp(b"still here")


async def test_what_no_peer_of_ours_sends_is_discarded_and_counted() -> None:
    async with connected() as (caller, called):
        data_channel = caller._control
        data_channel.send("text")
        data_channel.send(bytes(MAX_MESSAGE_BYTES + 1))
        data_channel.send(b"fine")
        assert (await called.receive()) == Datagram(Channel.CONTROL, b"fine", pytest.approx(0, abs=1e12))
        assert called.counters().discarded == 2


async def test_an_answer_that_never_comes_ends_the_wait_in_one_line() -> None:
    caller = await WebRtcTransport.offer(ICE)
    with pytest.raises(PeerUnreachableError, match=r"no path to the peer.*--stun or --turn"):
        await caller.wait_connected(20)
    await caller.close()


async def _bad_sdp(kind: str) -> str:
    caller = await WebRtcTransport.offer(ICE)
    sdp = caller.local_sdp
    await caller.close()
    return {
        "empty": "",
        "noise": "m=application \x00\xff",
        "no-credentials": sdp.replace("a=ice-pwd", "a=x-pwd"),
        "bad-fingerprint": sdp.replace("a=fingerprint:sha-256 ", "a=fingerprint:"),
        "bad-setup": sdp.replace("a=setup:actpass", "a=setup:nobody"),
        "bad-candidate": sdp.replace(" 127.0.0.1 ", " "),
        "with-video": sdp + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n",
        "too-many-candidates": sdp + "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n" * 64,
        "too-long": sdp + "a=x:" + "x" * webrtc.MAX_SDP_BYTES,
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "noise",
        "no-credentials",
        "bad-fingerprint",
        "bad-setup",
        "bad-candidate",
        "with-video",
        "too-many-candidates",
        "too-long",
    ],
)
async def test_a_broken_offer_is_one_line(kind: str) -> None:
    with pytest.raises(SignalingError) as caught:
        await WebRtcTransport.accept(await _bad_sdp(kind), ICE)
    assert len(str(caught.value).splitlines()) == 1


async def test_a_broken_answer_ends_the_caller() -> None:
    caller = await WebRtcTransport.offer(ICE)
    with pytest.raises(SignalingError):
        await caller.set_answer("v=0\r\n")
    with pytest.raises(TransportClosedError):
        await caller.receive()


async def test_a_wrong_certificate_ends_both_ends() -> None:
    caller = await WebRtcTransport.offer(ICE)
    called = await WebRtcTransport.accept(caller.local_sdp, ICE)
    head, mark, fingerprint = called.local_sdp.partition("a=fingerprint:sha-256 ")
    forged = head + mark + ("00" if fingerprint[:2] != "00" else "11") + fingerprint[2:]
    await caller.set_answer(forged)
    with pytest.raises(PeerUnreachableError):
        await caller.wait_connected(10_000)
    await asyncio.gather(caller.close(), called.close())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"stun_url": "http://example.org"}, "--stun"),
        ({"stun_url": "stun:"}, "--stun"),
        ({"turn_url": "stun:example.org"}, "--turn"),
        ({"turn_url": "turn:example.org"}, "--turn-user"),
    ],
)
def test_ice_urls_are_checked(arguments: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        IceConfig(**arguments)


def test_turn_credentials_reach_aiortc() -> None:
    stun, turn = IceConfig("stun:a.example", "turns:b.example:5349?transport=tcp", "me", "secret").servers()
    assert stun.urls == "stun:a.example"
    assert (turn.urls, turn.username, turn.credential) == (
        "turns:b.example:5349?transport=tcp",
        "me",
        "secret",
    )


def test_the_bytes_are_counted_under_uvloop_too() -> None:
    async def call() -> None:
        async with connected() as (caller, called):
            await settle(lambda: caller.counters().sent_bytes == called.counters().received_bytes)
            before = called.counters().received_bytes
            caller.send(Channel.MEDIA, rtp(bytes(88)))
            await called.receive()
            assert called.counters().received_bytes - before == 100 + MEDIA_OVERHEAD_BYTES

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(call())
