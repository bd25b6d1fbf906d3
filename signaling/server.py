"""The HTTP sides of signaling: the endpoint inside a receiver, and the rendezvous for two NATs."""

import asyncio
import logging
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web

from avcall.errors import ConfigError, SignalingError
from signaling.messages import (
    MAX_FRAME_BYTES,
    MAX_SDP_BYTES,
    SDP_TYPE,
    Answer,
    Hangup,
    Offer,
    Refusal,
    RefusedError,
    RoomOpened,
    bearer_token,
    check_sdp,
    parse,
    serialize,
)
from signaling.rooms import Door, OnDelete, OnOffer, RoomLimits, RoomRegistry, random_name

BODY_TIMEOUT_S = 10.0  # for a caller that sends its offer byte by byte
ANSWER_TIMEOUT_S = 20.0  # the host gathers for up to 5 s when its STUN server does not answer
HEARTBEAT_S = 20.0  # keeps a room's connection alive in the tables of NATs and proxies
ACCEPTING_S = 0.01
SHUTDOWN_TIMEOUT_S = 1.0
WHIP_PATH = "/call"

logger = logging.getLogger("signaling")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _HttpServer(ABC):
    """Starts and stops an aiohttp application on one address."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        app = web.Application(client_max_size=MAX_SDP_BYTES, middlewares=[_refusals_as_answers])
        app.router.add_get("/health", self._health)
        self._add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
        self._listening: asyncio.Server | None = None

    @abstractmethod
    def _add_routes(self, app: web.Application) -> None: ...

    @abstractmethod
    async def _health(self, request: web.Request) -> web.Response: ...

    async def start(self) -> None:
        """Listen. Raises ConfigError when the address cannot be had."""
        await self._runner.setup()
        try:
            loop = asyncio.get_running_loop()
            assert self._runner.server is not None, "it is set up"
            self._listening = await loop.create_server(self._runner.server, self._host, self._port)
        except OSError as error:
            await self._runner.cleanup()
            reason = error.strerror or error
            where = join_address(self._host, self._port)
            raise ConfigError(f"cannot listen on {where} ({reason}); choose another --listen") from error
        self._port = int(self._listening.sockets[0].getsockname()[1])

    @property
    def port(self) -> int:
        """The port; once started never 0."""
        return self._port

    @property
    def base_url(self) -> str:
        """Where another machine reaches this one; for a wildcard address the address towards the network."""
        host = self._host
        if host in ("", "0.0.0.0", "::"):
            host = _network_address()
        return f"http://{join_address(host, self._port)}"

    async def close(self) -> None:
        """Stop listening and end every connection. Idempotent."""
        if self._listening is not None:
            # asyncio loses what it accepted just before a server closes: it accepts no more, takes in what
            # it has, and then closes.
            for listener in self._listening.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
            await asyncio.sleep(ACCEPTING_S)
            self._listening.close()
        await self._runner.cleanup()


class WhipServer(_HttpServer):
    """The endpoint inside a receiver: one caller at a time.

    `on_offer` takes the offer's SDP and returns the answer's; an AvcallError that it raises becomes a 400
    (a RefusedError its own status) and frees the place. `on_delete` is called when the caller ends the call.
    """

    def __init__(
        self, host: str, port: int, token: str | None, on_offer: OnOffer, on_delete: OnDelete
    ) -> None:
        self._door = Door(token)
        self._on_offer = on_offer
        self._on_delete = on_delete
        super().__init__(host, port)

    @property
    def url(self) -> str:
        """What the caller gives as --peer."""
        return self.base_url + WHIP_PATH

    def end_session(self) -> None:
        """The call is over on this side: the next caller may come."""
        self._door.leave(self._door.session)

    def _add_routes(self, app: web.Application) -> None:
        app.router.add_post(WHIP_PATH, self._post)
        app.router.add_delete(WHIP_PATH + "/{session}", self._delete)

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "busy": self._door.session is not None})

    async def _post(self, request: web.Request) -> web.Response:
        self._door.check_token(_token_of(request))
        offer = await _read_offer(request)
        session = random_name()
        answer = await self._door.answer(session, offer, self._on_offer)
        return _created(answer, f"{WHIP_PATH}/{session}")

    async def _delete(self, request: web.Request) -> web.Response:
        self._door.check_token(_token_of(request))
        if not self._door.leave(request.match_info["session"]):
            raise RefusedError(404, "no such session")
        await self._on_delete()
        return web.Response()


class RendezvousServer(_HttpServer):
    """Holds rooms for receivers that nobody can reach, and passes offers and answers.

    A receiver opens a room with a WebSocket at /rooms (with `host_token` as bearer token, unless None), a
    caller POSTs its offer to the room. The caller's token goes to the receiver, who alone knows it.
    """

    def __init__(
        self, host: str, port: int, host_token: str | None = None, limits: RoomLimits | None = None
    ) -> None:
        self._limits = limits or RoomLimits()
        self._registry = RoomRegistry(self._limits)
        self._door = Door(host_token)
        self._hosts: dict[str, web.WebSocketResponse] = {}
        self._answers: dict[str, asyncio.Future[Answer | Refusal]] = {}
        super().__init__(host, port)

    def _add_routes(self, app: web.Application) -> None:
        app.router.add_get("/rooms", self._host_room)
        app.router.add_post("/rooms/{room}", self._post)
        app.router.add_delete("/rooms/{room}/{session}", self._delete)
        app.on_shutdown.append(self._close_rooms)

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "rooms": len(self._registry)})

    async def _host_room(self, request: web.Request) -> web.WebSocketResponse:
        self._door.check_token(_token_of(request))
        socket_ = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_FRAME_BYTES, compress=False, timeout=SHUTDOWN_TIMEOUT_S
        )
        room = self._registry.open(_now_ms())
        try:
            await socket_.prepare(request)
            self._hosts[room] = socket_
            async with asyncio.timeout(self._limits.lifetime_s):
                await socket_.send_str(serialize(RoomOpened(f"/rooms/{room}", self._limits.lifetime_s)))
                await self._listen_to_host(room, socket_)
        except TimeoutError:
            await socket_.close(code=WSCloseCode.GOING_AWAY, message=b"the room has expired")
        except ConnectionResetError:
            logger.info("a host left before its room was announced")
        finally:
            self._hosts.pop(room, None)
            self._registry.close(room)
        return socket_

    async def _listen_to_host(self, room: str, socket_: web.WebSocketResponse) -> None:
        async for frame in socket_:
            try:
                if frame.type is not WSMsgType.TEXT:
                    raise SignalingError("a room message must be text")
                message = parse(frame.data)
                if not isinstance(message, Answer | Refusal):
                    raise SignalingError("a host says only answer and refusal")
            except SignalingError as error:
                await socket_.close(code=WSCloseCode.POLICY_VIOLATION, message=str(error).encode()[:100])
                return
            # Sessions of other rooms are out of reach: only their own host ever heard their random names.
            waiting = self._answers.get(message.session)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)

    async def _post(self, request: web.Request) -> web.Response:
        room = request.match_info["room"]
        self._registry.require(room, _now_ms())
        sdp = await _read_offer(request)
        session = self._registry.begin_offer(room, _now_ms())
        answered = False
        try:
            answer = await self._ask_host(room, Offer(session, sdp, _token_of(request)))
            answered = True
            return _created(answer.sdp, f"/rooms/{room}/{session}")
        finally:
            self._registry.finish_offer(room, session, answered)

    async def _ask_host(self, room: str, offer: Offer) -> Answer:
        socket_ = self._hosts.get(room)
        if socket_ is None:
            raise RefusedError(404, "no such room; it may have expired")
        waiting = self._answers[offer.session] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await socket_.send_str(serialize(offer))
                reply: Answer | Refusal = await waiting
        except (TimeoutError, ConnectionError):
            raise RefusedError(504, "the host of the room does not answer") from None
        finally:
            del self._answers[offer.session]
        if isinstance(reply, Refusal):
            raise RefusedError(reply.status, reply.reason)
        return reply

    async def _delete(self, request: web.Request) -> web.Response:
        room, session = request.match_info["room"], request.match_info["session"]
        self._registry.end_session(room, session, _now_ms())
        socket_ = self._hosts.get(room)
        if socket_ is not None:
            with suppress(ConnectionError):  # a host that left needs no telling
                await socket_.send_str(serialize(Hangup(session)))
        return web.Response()

    async def _close_rooms(self, app: web.Application) -> None:
        for socket_ in list(self._hosts.values()):
            await socket_.close(code=WSCloseCode.GOING_AWAY, message=b"the rendezvous shuts down")


def serve_rendezvous(host: str, port: int, host_token: str | None, limits: RoomLimits) -> None:
    """Run a rendezvous until SIGINT or SIGTERM. Raises ConfigError when the address cannot be had."""
    try:
        asyncio.run(_serve(RendezvousServer(host, port, host_token, limits)))
    except KeyboardInterrupt:
        logger.info("the rendezvous has stopped")


async def _serve(server: RendezvousServer) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    await server.start()
    try:
        _on_termination(loop, stopped.set)
        logger.info("rendezvous at %s; receivers: avcall receive --rendezvous %s", *[server.base_url] * 2)
        await stopped.wait()
    finally:
        await server.close()


def _on_termination(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    for name in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(name, callback)
        except NotImplementedError:  # Windows: KeyboardInterrupt ends the loop instead
            return


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, [IPV6]:PORT or :PORT (every address). Raises ConfigError."""
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        port = None
    if port is None or parts.path or parts.query or parts.username:
        raise ConfigError(f"--listen {text[:100]!r} is not HOST:PORT; write for example 0.0.0.0:8080")
    return parts.hostname or "0.0.0.0", port


def join_address(host: str, port: int) -> str:
    """HOST:PORT as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@web.middleware
async def _refusals_as_answers(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RefusedError as error:
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        return web.Response(status=error.status, text=f"{error}\n", headers=headers)


async def _read_offer(request: web.Request) -> str:
    """The offer in the body. Raises RefusedError 400, 408, 415; aiohttp itself answers 413."""
    if request.content_type != SDP_TYPE:
        raise RefusedError(415, f"the body must be {SDP_TYPE}")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await request.read()
        return check_sdp(body.decode("ascii"))
    except TimeoutError:
        raise RefusedError(408, "the body took too long") from None
    except (SignalingError, UnicodeDecodeError):
        raise RefusedError(400, "the body is not a session description") from None


def _created(answer: str, location: str) -> web.Response:
    return web.Response(status=201, text=answer, content_type=SDP_TYPE, headers={"Location": location})


def _token_of(request: web.Request) -> str | None:
    return bearer_token(request.headers.get("Authorization"))


def _network_address() -> str:
    """This machine's address towards the network; connecting a UDP socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))  # TEST-NET-3, RFC 5737
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _now_ms() -> float:
    return time.monotonic() * 1000
