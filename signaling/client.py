"""The other sides of signaling: a caller's POST, and the receiver that holds a room at a rendezvous."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from avcall.errors import (
    AvcallError,
    ConfigError,
    PeerBusyError,
    PeerUnreachableError,
    SignalingError,
    UnauthorizedError,
)
from signaling.messages import (
    MAX_FRAME_BYTES,
    MAX_SDP_BYTES,
    MAX_TOKEN_CHARS,
    SDP_TYPE,
    Answer,
    Hangup,
    Offer,
    Refusal,
    RefusedError,
    RoomMessage,
    RoomOpened,
    check_sdp,
    is_token,
    parse,
    serialize,
)
from signaling.rooms import Door, OnDelete, OnOffer

POST_TIMEOUT_MS = 30_000  # longer than a rendezvous waits for its host
DELETE_TIMEOUT_MS = 2_000
OPEN_TIMEOUT_MS = 10_000
HEARTBEAT_S = 20.0
READ_CHUNK_BYTES = 16 * 1024
MAX_LOCATION_CHARS = 2048

logger = logging.getLogger("signaling")


@dataclass(frozen=True, slots=True)
class Session:
    """A call that the other side took: its answer, and the URL that ends the call (None: it gave none)."""

    answer_sdp: str
    location: str | None


async def post_offer(
    url: str, sdp: str, token: str | None = None, timeout_ms: float = POST_TIMEOUT_MS
) -> Session:
    """Send an offer to the receiver, or to the room, at `url`.

    Raises ConfigError for a URL that is none, PeerUnreachableError when nobody answers or the room is gone,
    UnauthorizedError, PeerBusyError, and SignalingError when the answer makes no sense.
    """
    peer = _http_url(url, "--peer")
    headers = _authorization(token) | {"Content-Type": SDP_TYPE}
    async with _connection(peer, timeout_ms) as http:
        response = await http.post(peer, data=sdp.encode(), headers=headers, allow_redirects=False)
        if response.status != 201:
            raise _refusal(peer, response.status)
        answer = await _read_bounded(response)
        location = response.headers.get("Location")
    try:
        answer_sdp = check_sdp(answer.decode("ascii"))
    except (SignalingError, UnicodeDecodeError):
        raise SignalingError(f"{peer} answered with something else than a call; is it avcall?") from None
    return Session(answer_sdp, _same_origin(peer, location))


async def delete_session(
    location: str, token: str | None = None, timeout_ms: float = DELETE_TIMEOUT_MS
) -> bool:
    """End a call at the `location` of its session; says whether the other side heard it.

    Never raises: this is for a call that ends anyway.
    """
    try:
        peer = _http_url(location, "location")
        async with _connection(peer, timeout_ms) as http:
            response = await http.delete(peer, headers=_authorization(token), allow_redirects=False)
            return response.status == 200
    except AvcallError as error:
        logger.info("the other side was not told of the end: %s", error)
        return False


class RoomHost:
    """The receiver's end of a room at a rendezvous: the same contract as WhipServer's.

    `token` is what callers must present, `host_token` what the rendezvous wants of those who open rooms.
    """

    def __init__(
        self,
        rendezvous_url: str,
        token: str | None,
        on_offer: OnOffer,
        on_delete: OnDelete,
        host_token: str | None = None,
    ) -> None:
        self._base = _http_url(rendezvous_url, "--rendezvous")
        self._host_token = host_token
        self._door = Door(token)
        self._on_offer = on_offer
        self._on_delete = on_delete
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._listener: asyncio.Task[str] | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._url = ""

    @property
    def url(self) -> str:
        """What the caller gives as --peer; empty until the room is open."""
        return self._url

    async def start(self, timeout_ms: float = OPEN_TIMEOUT_MS) -> None:
        """Open the room. Raises what `post_offer` raises."""
        try:
            with _one_line_errors(self._base):
                async with asyncio.timeout(timeout_ms / 1000):
                    await self._open()
        except BaseException:
            await self.close()
            raise
        self._listener = asyncio.create_task(self._listen())

    async def wait_closed(self) -> str:
        """Wait until the room is gone (expired, or the rendezvous went away); the reason in one line."""
        assert self._listener is not None, "start() comes first"
        return await asyncio.shield(self._listener)

    def end_session(self) -> None:
        """The call is over on this side: the next caller may come."""
        self._door.leave(self._door.session)

    async def close(self) -> None:
        """Give the room back. Idempotent."""
        tasks = [*self._answering, *([self._listener] if self._listener is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()
        if self._http is not None:
            await self._http.close()

    async def _open(self) -> None:
        self._http = aiohttp.ClientSession()
        self._socket = await self._http.ws_connect(
            self._base / "rooms",
            headers=_authorization(self._host_token),
            heartbeat=HEARTBEAT_S,
            max_msg_size=MAX_FRAME_BYTES,
        )
        opened = parse(await self._socket.receive_str())
        if not isinstance(opened, RoomOpened):
            raise SignalingError(f"{self._base} did not open a room; is it avcall signal?")
        self._url = str(self._base).rstrip("/") + opened.path

    async def _listen(self) -> str:
        assert self._socket is not None
        async for frame in self._socket:
            try:
                if frame.type is not aiohttp.WSMsgType.TEXT:
                    raise SignalingError("a room message must be text")
                await self._handle(parse(frame.data))
            except SignalingError as error:
                logger.warning("the rendezvous broke the protocol: %s", error)
                await self._socket.close()
        return f"the room at {self._base} is closed; start again for a new one"

    async def _handle(self, message: RoomMessage) -> None:
        if isinstance(message, Hangup):
            if self._door.leave(message.session):
                await self._on_delete()
        elif isinstance(message, Offer):
            # A task of its own: a second caller must hear that the line is busy while the first waits.
            task = asyncio.create_task(self._answer(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        else:
            raise SignalingError("a rendezvous says only room, offer and hangup")

    async def _answer(self, offer: Offer) -> None:
        assert self._socket is not None
        reply: Answer | Refusal
        try:
            self._door.check_token(offer.token)
            reply = Answer(offer.session, await self._door.answer(offer.session, offer.sdp, self._on_offer))
        except RefusedError as refused:
            reply = Refusal(offer.session, refused.status, str(refused))
        except Exception:
            logger.exception("an offer could not be answered")
            reply = Refusal(offer.session, 500, "the receiver failed; see its log")
        try:
            await self._socket.send_str(serialize(reply))
        except ConnectionError:
            self._door.leave(offer.session)


@asynccontextmanager
async def _connection(peer: URL, timeout_ms: float) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)
    with _one_line_errors(peer):
        async with aiohttp.ClientSession(timeout=timeout) as http:
            yield http


@contextmanager
def _one_line_errors(peer: URL) -> Iterator[None]:
    """Turn what aiohttp raises into the one line of errors.py."""
    try:
        yield
    except aiohttp.WSServerHandshakeError as error:
        raise _refusal(peer, error.status) from error
    except TimeoutError as error:
        raise PeerUnreachableError(f"{peer} does not answer; check the address and the network") from error
    except (aiohttp.ClientError, OSError, TypeError) as error:  # TypeError: a WebSocket that ends at once
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise PeerUnreachableError(
            f"nobody answers at {peer} ({reason}); is the other side waiting there?"
        ) from error


def _refusal(peer: URL, status: int) -> AvcallError:
    """The error for an answer other than success. The text of the answer is not repeated: it is not ours."""
    if status in (401, 403):
        return UnauthorizedError(f"{peer} refuses the token; give the --token that the other side uses")
    if status == 409:
        return PeerBusyError(f"{peer} is already in a call; try again when it is over")
    if status == 429:
        return PeerBusyError(f"too many callers wait at {peer}; try again in a minute")
    if status in (404, 410):
        return PeerUnreachableError(f"there is no call at {peer}; ask the other side for its present URL")
    if status in (502, 503, 504):
        return PeerUnreachableError(f"{peer} has nobody to answer (HTTP {status}); try again in a minute")
    return SignalingError(f"{peer} answered HTTP {status} to the offer of a call; is it avcall?")


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(READ_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_SDP_BYTES:
            raise SignalingError(f"{response.url} answered with over {MAX_SDP_BYTES} bytes; is it avcall?")
    return bytes(body)


def _same_origin(peer: URL, location: str | None) -> str | None:
    """The absolute location, if it is where the token may go: the server that has it already."""
    if location is None or len(location) > MAX_LOCATION_CHARS:
        return None
    try:
        absolute = peer.join(URL(location))
        return str(absolute) if absolute.origin() == peer.origin() else None
    except ValueError:
        return None


def _http_url(text: str, option: str) -> URL:
    try:
        url = URL(text)
        good = url.scheme in ("http", "https") and bool(url.host) and url.user is None
    except ValueError:
        good = False
    if not good or len(text) > MAX_LOCATION_CHARS:
        raise ConfigError(f"{option} {text[:100]!r} is not a URL; give the http:// or https:// URL as shown")
    return url


def _authorization(token: str | None) -> dict[str, str]:
    if token is None:
        return {}
    if not is_token(token):
        raise ConfigError(f"--token must be 1 to {MAX_TOKEN_CHARS} printable ASCII characters without spaces")
    return {"Authorization": f"Bearer {token}"}
