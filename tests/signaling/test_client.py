"""A caller against the endpoint, the rendezvous, and servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from avcall.errors import (
    AvcallError,
    ConfigError,
    PeerBusyError,
    PeerUnreachableError,
    SignalingError,
    UnauthorizedError,
)
from signaling.client import RoomHost, delete_session, post_offer
from signaling.messages import MAX_SDP_BYTES, SDP_TYPE
from signaling.server import RendezvousServer, WhipServer

OFFER, ANSWER = "v=0\r\ns=offer\r\n", "v=0\r\ns=answer\r\n"


class Receiver:
    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hung_up = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def on_offer(self, sdp: str) -> str:
        assert sdp == OFFER
        self.asked.set()
        await self.may_answer.wait()
        return ANSWER

    async def on_delete(self) -> None:
        self.hung_up.set()


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def whip(receiver: Receiver) -> AsyncIterator[WhipServer]:
    endpoint = WhipServer("127.0.0.1", 0, "secret", receiver.on_offer, receiver.on_delete)
    await endpoint.start()
    yield endpoint
    await endpoint.close()


@pytest.fixture
async def rendezvous() -> AsyncIterator[RendezvousServer]:
    running = RendezvousServer("127.0.0.1", 0)
    await running.start()
    yield running
    await running.close()


@pytest.fixture
async def room(rendezvous: RendezvousServer, receiver: Receiver) -> AsyncIterator[RoomHost]:
    host = RoomHost(rendezvous.base_url, "secret", receiver.on_offer, receiver.on_delete)
    await host.start()
    yield host
    await host.close()


@pytest.fixture(params=["whip", "room"])
def endpoint(request: pytest.FixtureRequest, whip: WhipServer, room: RoomHost) -> WhipServer | RoomHost:
    """The receiver's own endpoint and its room: one contract, so the caller need not know which it is."""
    return whip if request.param == "whip" else room


async def test_a_call_begins_and_ends(endpoint: WhipServer | RoomHost, receiver: Receiver) -> None:
    session = await post_offer(endpoint.url, OFFER, "secret")
    assert session.answer_sdp == ANSWER
    assert session.location is not None
    assert await delete_session(session.location, "secret")
    async with asyncio.timeout(5):
        await receiver.hung_up.wait()
    assert not await delete_session(session.location, "secret")


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_a_wrong_token_is_one_line(endpoint: WhipServer | RoomHost, token: str | None) -> None:
    with pytest.raises(UnauthorizedError, match="--token"):
        await post_offer(endpoint.url, OFFER, token)


async def test_a_second_caller_hears_at_once_that_the_line_is_busy(
    endpoint: WhipServer | RoomHost, receiver: Receiver
) -> None:
    receiver.may_answer.clear()
    first = asyncio.create_task(post_offer(endpoint.url, OFFER, "secret"))
    await receiver.asked.wait()
    with pytest.raises(PeerBusyError, match="already in a call"):
        await post_offer(endpoint.url, OFFER, "secret")
    receiver.may_answer.set()
    await first
    endpoint.end_session()
    await post_offer(endpoint.url, OFFER, "secret")


async def test_the_end_of_a_rendezvous_is_told_to_the_host(
    rendezvous: RendezvousServer, room: RoomHost
) -> None:
    await rendezvous.close()
    async with asyncio.timeout(5):
        assert "is closed" in await room.wait_closed()


async def test_a_room_that_is_gone_is_one_line(rendezvous: RendezvousServer, room: RoomHost) -> None:
    url = room.url
    await room.close()
    await room.close()
    with pytest.raises(PeerUnreachableError, match="ask the other side"):
        await post_offer(url, OFFER, "secret")


async def test_nobody_there_is_one_line(whip: WhipServer, receiver: Receiver) -> None:
    url = whip.url
    await whip.close()
    for attempt in (
        post_offer(url, OFFER),
        RoomHost(whip.base_url, None, receiver.on_offer, receiver.on_delete).start(),
    ):
        with pytest.raises(PeerUnreachableError, match="nobody answers at") as error:
            await attempt
        assert len(str(error.value).splitlines()) == 1
    assert not await delete_session(url)


async def test_a_room_wants_the_token_of_the_rendezvous(receiver: Receiver) -> None:
    running = RendezvousServer("127.0.0.1", 0, host_token="host")
    await running.start()
    for token in (None, "wrong"):
        with pytest.raises(UnauthorizedError):
            await RoomHost(running.base_url, None, receiver.on_offer, receiver.on_delete, token).start()
    host = RoomHost(running.base_url, None, receiver.on_offer, receiver.on_delete, "host")
    await host.start()
    assert (await post_offer(host.url, OFFER)).answer_sdp == ANSWER
    await host.close()
    await running.close()


@pytest.mark.parametrize(
    "url", ["", "example.org", "ftp://example.org", "http://", "http://me@example.org", "http://[x"]
)
async def test_what_is_no_url_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(ConfigError, match="--peer"):
        await post_offer(url, OFFER)


async def test_a_token_that_no_header_can_hold_is_refused(whip: WhipServer) -> None:
    with pytest.raises(ConfigError, match="--token"):
        await post_offer(whip.url, OFFER, "two words\r\nX: y")


async def misbehave(response: web.StreamResponse) -> tuple[web.AppRunner, str]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/call"


def answer_of(text: str, location: str = "/call/1") -> web.Response:
    return web.Response(status=201, text=text, content_type=SDP_TYPE, headers={"Location": location})


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (web.Response(status=200, text=ANSWER), SignalingError),
        (web.Response(status=302, headers={"Location": "http://example.org"}), SignalingError),
        (web.Response(status=413), SignalingError),
        (web.Response(status=500), SignalingError),
        (web.Response(status=404), PeerUnreachableError),
        (web.Response(status=503), PeerUnreachableError),
        (web.Response(status=429), PeerBusyError),
        (answer_of(""), SignalingError),
        (answer_of("<html>"), SignalingError),
        (answer_of("v=0\n" + "x" * MAX_SDP_BYTES), SignalingError),
        (answer_of("v=0\n\u00e9"), SignalingError),
    ],
)
async def test_a_server_that_is_no_receiver_is_one_line(
    response: web.StreamResponse, error: type[AvcallError]
) -> None:
    runner, url = await misbehave(response)
    with pytest.raises(error) as caught:
        await post_offer(url, OFFER, "secret")
    assert len(str(caught.value).splitlines()) == 1
    assert "secret" not in str(caught.value)
    await runner.cleanup()


@pytest.mark.parametrize("location", ["http://example.org/x", "//example.org/x", "http://[", "x" * 3000])
async def test_a_location_elsewhere_is_ignored_for_the_token_must_not_go_there(location: str) -> None:
    runner, url = await misbehave(answer_of(ANSWER, location))
    assert (await post_offer(url, OFFER, "secret")).location is None
    await runner.cleanup()


async def test_a_server_that_says_nothing_is_one_line() -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    mute = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    with pytest.raises(PeerUnreachableError, match="does not answer"):
        await post_offer(f"http://127.0.0.1:{port}/call", OFFER, timeout_ms=50)
    for writer in writers:
        writer.close()
    mute.close()
    await mute.wait_closed()


async def test_a_rendezvous_that_is_none_is_one_line(receiver: Receiver) -> None:
    runner, url = await misbehave(web.Response(text="hello"))
    with pytest.raises((PeerUnreachableError, SignalingError)):
        await RoomHost(url, None, receiver.on_offer, receiver.on_delete).start()
    await runner.cleanup()
