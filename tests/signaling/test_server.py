"""The endpoint inside a receiver and the rendezvous, over real sockets on 127.0.0.1."""

import asyncio
import contextlib
import gc
import json
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from avcall.errors import ConfigError, SignalingError
from signaling import server
from signaling.messages import MAX_FRAME_BYTES, MAX_SDP_BYTES, SDP_TYPE
from signaling.rooms import RoomLimits
from signaling.server import RendezvousServer, WhipServer, join_address, parse_address

OFFER, ANSWER = "v=0\r\ns=offer\r\n", "v=0\r\ns=answer\r\n"
HEADERS = {"Content-Type": SDP_TYPE, "Authorization": "Bearer secret"}


class Receiver:
    """The application behind the endpoint: takes every offer unless told otherwise."""

    def __init__(self) -> None:
        self.offers: list[str] = []
        self.hangups = 0
        self.error: Exception | None = None

    async def on_offer(self, sdp: str) -> str:
        self.offers.append(sdp)
        if self.error is not None:
            raise self.error
        return ANSWER

    async def on_delete(self) -> None:
        self.hangups += 1


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def whip(receiver: Receiver) -> AsyncIterator[WhipServer]:
    endpoint = WhipServer("127.0.0.1", 0, "secret", receiver.on_offer, receiver.on_delete)
    await endpoint.start()
    yield endpoint
    await endpoint.close()


@pytest.fixture
async def rendezvous() -> AsyncIterator[RendezvousServer]:
    running = RendezvousServer("127.0.0.1", 0, limits=RoomLimits(max_rooms=2))
    await running.start()
    yield running
    await running.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_an_offer_is_answered_and_the_location_ends_the_call(
    whip: WhipServer, receiver: Receiver, http: aiohttp.ClientSession
) -> None:
    async with http.post(whip.url, data=OFFER, headers=HEADERS) as response:
        assert response.status == 201
        assert response.content_type == SDP_TYPE
        assert await response.text() == ANSWER
        location = whip.base_url + response.headers["Location"]
    assert receiver.offers == [OFFER]
    async with http.delete(location, headers=HEADERS) as response:
        assert response.status == 200
    assert receiver.hangups == 1
    async with http.delete(location, headers=HEADERS) as response:
        assert response.status == 404
    assert receiver.hangups == 1


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}]
)
async def test_a_wrong_or_missing_token_is_401_for_offer_and_end(
    whip: WhipServer, receiver: Receiver, http: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    async with http.post(whip.url, data=OFFER, headers={"Content-Type": SDP_TYPE} | headers) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert receiver.offers == []
    async with http.post(whip.url, data=OFFER, headers=HEADERS) as response:
        location = whip.base_url + response.headers["Location"]
    async with http.delete(location, headers=headers) as response:
        assert response.status == 401
    assert receiver.hangups == 0


async def test_a_second_caller_is_409_until_the_call_is_over(
    whip: WhipServer, http: aiohttp.ClientSession
) -> None:
    statuses = []
    for _ in range(2):
        async with http.post(whip.url, data=OFFER, headers=HEADERS) as response:
            statuses.append(response.status)
    whip.end_session()
    async with http.post(whip.url, data=OFFER, headers=HEADERS) as response:
        statuses.append(response.status)
    assert statuses == [201, 409, 201]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"v=0\n" + b"x" * (MAX_SDP_BYTES - 4), SDP_TYPE, 201),
        (b"v=0\n" + b"x" * (MAX_SDP_BYTES - 3), SDP_TYPE, 413),
        (b"x" * 500_000, SDP_TYPE, 413),
        (b"", SDP_TYPE, 400),
        (b"hello", SDP_TYPE, 400),
        (b"v=0\n\xff", SDP_TYPE, 400),
        (OFFER.encode(), "text/plain", 415),
    ],
)
async def test_bodies(
    whip: WhipServer, http: aiohttp.ClientSession, body: bytes, content_type: str, status: int
) -> None:
    headers = HEADERS | {"Content-Type": content_type}
    async with http.post(whip.url, data=body, headers=headers) as response:
        assert response.status == status


async def test_a_chunked_body_over_the_limit_is_413(whip: WhipServer, http: aiohttp.ClientSession) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"v=0\n"
        for _ in range(100):
            yield b"x" * 1024

    async with http.post(whip.url, data=endless(), headers=HEADERS) as response:
        assert response.status == 413


async def test_a_body_that_does_not_come_is_408(
    whip: WhipServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BODY_TIMEOUT_S", 0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", whip.port)
    writer.write(
        b"POST /call HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n"
        b"Content-Type: application/sdp\r\nContent-Length: 100\r\n\r\nv=0"
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()
    await writer.wait_closed()
    assert receiver.offers == []


@pytest.mark.parametrize(("error", "status"), [(SignalingError("no"), 400), (RuntimeError("bug"), 500)])
async def test_an_offer_that_cannot_be_taken_leaves_the_place_free(
    whip: WhipServer, receiver: Receiver, http: aiohttp.ClientSession, error: Exception, status: int
) -> None:
    receiver.error = error
    async with http.post(whip.url, data=OFFER, headers=HEADERS) as response:
        assert response.status == status
        assert "bug" not in await response.text()
    receiver.error = None
    async with http.post(whip.url, data=OFFER, headers=HEADERS) as response:
        assert response.status == 201


async def test_other_methods_and_paths_are_refused(whip: WhipServer, http: aiohttp.ClientSession) -> None:
    for method, url, status in [
        ("GET", whip.url, 405),
        ("PATCH", whip.url, 405),
        ("POST", whip.base_url, 404),
        ("DELETE", whip.url + "/../call/x", 404),
    ]:
        async with http.request(method, url, headers=HEADERS) as response:
            assert response.status == status


async def test_health_says_whether_the_line_is_busy(whip: WhipServer, http: aiohttp.ClientSession) -> None:
    async with http.get(whip.base_url + "/health") as response:
        assert await response.json() == {"status": "ok", "busy": False}


async def test_a_taken_port_is_one_line(whip: WhipServer, receiver: Receiver) -> None:
    second = WhipServer("127.0.0.1", whip.port, None, receiver.on_offer, receiver.on_delete)
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{whip.port}"):
        await second.start()


async def test_a_room_is_announced_and_gone_with_its_host(
    rendezvous: RendezvousServer, http: aiohttp.ClientSession
) -> None:
    async with http.ws_connect(rendezvous.base_url + "/rooms") as host:
        room = await host.receive_json()
        assert room["type"] == "room"
        assert room["lifetime_s"] == RoomLimits().lifetime_s
        async with http.get(rendezvous.base_url + "/health") as response:
            assert await response.json() == {"status": "ok", "rooms": 1}
    async with http.post(rendezvous.base_url + room["path"], data=OFFER, headers=HEADERS) as response:
        assert response.status == 404


async def test_an_offer_reaches_the_host_with_the_token_and_the_answer_comes_back(
    rendezvous: RendezvousServer, http: aiohttp.ClientSession
) -> None:
    async with http.ws_connect(rendezvous.base_url + "/rooms") as host:
        url = rendezvous.base_url + (await host.receive_json())["path"]
        posting = asyncio.create_task(http.post(url, data=OFFER, headers=HEADERS))
        offer = await host.receive_json()
        assert (offer["type"], offer["sdp"], offer["token"]) == ("offer", OFFER, "secret")
        await host.send_json({"type": "answer", "session": "unknown", "sdp": ANSWER})
        await host.send_json({"type": "answer", "session": offer["session"], "sdp": ANSWER})
        response = await posting
        assert (response.status, await response.text()) == (201, ANSWER)
        async with http.delete(rendezvous.base_url + response.headers["Location"]) as deleted:
            assert deleted.status == 200
        assert await host.receive_json() == {"type": "hangup", "session": offer["session"]}
        async with http.delete(rendezvous.base_url + response.headers["Location"]) as deleted:
            assert deleted.status == 404


async def test_a_refusal_of_the_host_is_the_answer_to_the_caller(
    rendezvous: RendezvousServer, http: aiohttp.ClientSession
) -> None:
    async with http.ws_connect(rendezvous.base_url + "/rooms") as host:
        url = rendezvous.base_url + (await host.receive_json())["path"]
        posting = asyncio.create_task(http.post(url, data=OFFER, headers=HEADERS))
        session = (await host.receive_json())["session"]
        await host.send_json({"type": "refusal", "session": session, "status": 409, "reason": "busy"})
        assert (await posting).status == 409


async def test_a_host_that_does_not_answer_is_504(
    rendezvous: RendezvousServer, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ANSWER_TIMEOUT_S", 0.01)
    async with http.ws_connect(rendezvous.base_url + "/rooms") as host:
        url = rendezvous.base_url + (await host.receive_json())["path"]
        async with http.post(url, data=OFFER, headers=HEADERS) as response:
            assert response.status == 504


@pytest.mark.parametrize(
    "frame",
    [
        b"binary",
        "no json",
        json.dumps({"type": "room", "path": "/", "lifetime_s": 1}),
        "x" * (MAX_FRAME_BYTES + 1),
    ],
)
async def test_a_host_that_breaks_the_protocol_loses_its_room(
    rendezvous: RendezvousServer, http: aiohttp.ClientSession, frame: bytes | str
) -> None:
    async with http.ws_connect(rendezvous.base_url + "/rooms") as host:
        await host.receive_json()
        await (host.send_bytes(frame) if isinstance(frame, bytes) else host.send_str(frame))
        assert (await host.receive()).type is aiohttp.WSMsgType.CLOSE
    async with http.get(rendezvous.base_url + "/health") as response:
        assert (await response.json())["rooms"] == 0


async def test_rooms_are_bounded_in_number(rendezvous: RendezvousServer, http: aiohttp.ClientSession) -> None:
    url = rendezvous.base_url + "/rooms"
    async with http.ws_connect(url), http.ws_connect(url):
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await http.ws_connect(url)
        assert error.value.status == 503


async def test_a_room_expires(http: aiohttp.ClientSession) -> None:
    running = RendezvousServer("127.0.0.1", 0, limits=RoomLimits(lifetime_s=1))
    await running.start()
    async with http.ws_connect(running.base_url + "/rooms") as host:
        await host.receive_json()
        frame = await host.receive()
        assert (frame.type, frame.data, frame.extra) == (
            aiohttp.WSMsgType.CLOSE,
            1001,
            "the room has expired",
        )
    await running.close()


async def test_a_rendezvous_with_a_host_token_asks_for_it(http: aiohttp.ClientSession) -> None:
    running = RendezvousServer("127.0.0.1", 0, host_token="secret")
    await running.start()
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await http.ws_connect(running.base_url + "/rooms")
    assert error.value.status == 401
    async with http.ws_connect(running.base_url + "/rooms", headers=HEADERS) as host:
        assert (await host.receive_json())["type"] == "room"
    await running.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:8080", ("::1", 8080)),
        (":8080", ("0.0.0.0", 8080)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert parse_address(join_address(*address)) == address


@pytest.mark.parametrize(
    "text", ["", "localhost", "localhost:", "localhost:x", "localhost:70000", "a:1/b", "[::1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--listen"):
        parse_address(text)


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_the_url_of_a_wildcard_names_an_address_that_can_be_called(host: str) -> None:
    url = RendezvousServer(host, 8080).base_url
    assert url.endswith(":8080")
    assert "0.0.0.0" not in url


@pytest.mark.parametrize("passes", range(4))
async def test_a_connection_that_comes_while_the_server_closes_is_closed_too(
    passes: int, receiver: Receiver
) -> None:
    endpoint = WhipServer("127.0.0.1", 0, "secret", receiver.on_offer, receiver.on_delete)
    await endpoint.start()
    with socket.socket() as caller:
        caller.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            caller.connect(("127.0.0.1", endpoint.port))
        for _ in range(passes):
            await asyncio.sleep(0)
        await endpoint.close()
        gc.collect()  # what was left open warns here, and fails the test
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(caller, 1), 5) == b""
