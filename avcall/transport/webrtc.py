"""The transport of a real call: RTP and a data channel over one aiortc peer connection.

Both are agreed on beforehand (for the channel: RFC 8832 section 1), so no bytes are spent on opening them and
the peer cannot choose how reliable they are. SDP carries all candidates at once: there is no trickle.

MEDIA goes as SRTP (RFC 3711) under the keys of the DTLS handshake (RFC 5764), without a media section in the
session description. Besides the RTP packet the wire holds 38
bytes (IPv4 and UDP 28, the tag 10), and nothing comes back. CONTROL is a data channel: 85 bytes a message
(IPv4 and UDP 28, DTLS 29, SCTP 28), and for every second one a SACK of 85 bytes comes back; a message of more
than 1160 bytes travels as two datagrams.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aioice import ice as ice_module
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidStateError
from aiortc.rtcdtlstransport import SRTP_AES128_CM_SHA1_80
from aiortc.rtcicetransport import parse_stun_turn_uri

from avcall.bitstream.packet import MAX_MESSAGE_BYTES
from avcall.clock import Clock, SystemClock
from avcall.errors import (
    ConfigError,
    ConnectionFailedError,
    PeerLostError,
    PeerUnreachableError,
    SignalingError,
    TransportClosedError,
)
from avcall.transport.base import (
    Channel,
    Datagram,
    Inbox,
    Transport,
    WireCounter,
    WireCounters,
    check_message,
)
from avcall.transport.hooks import (
    count_wire,
    delay_acknowledgements,
    gather_on,
    prefer_short_records,
    receive_rtp,
)

MAX_SDP_BYTES = 64 * 1024  # as in the signaling
MAX_CANDIDATES = 64  # of the peer; each costs connectivity checks towards an address that the peer chose
MAX_BUFFERED_BYTES = {Channel.MEDIA: 8 * 1024, Channel.CONTROL: 64 * 1024}  # 2 s and 20 s at 26 kbit/s
CONTROL_STREAM = 1  # the SCTP stream that both ends agree on beforehand
NEGOTIATION_TIMEOUT_MS = 15_000  # gathering waits up to 5 s for STUN and TURN servers that do not answer
CLOSE_TIMEOUT_MS = 2_000
LINGER_POLLS, LINGER_POLL_MS = 20, 10  # what close() grants to messages that wait, such as a Bye
WATCH_INTERVAL_MS = 500
KEEPALIVE_AFTER_MS = 1_500  # silence after which an empty message asks the peer for a SACK
# RFC 7675 asks every 5 s, which is 0.36 kbit/s. Here authenticated data of the peer is consent: without any
# for SILENCE_TIMEOUT_MS the call ends.
CONSENT_EVERY_S = 12
SILENCE_TIMEOUT_MS = 5_000  # ICE consent (RFC 7675) would need 30 s to notice a peer that vanished


@dataclass(frozen=True, slots=True)
class IceConfig:
    """How to find a path to the peer.

    `addresses` restricts the host candidates to these local addresses; empty means every address of this
    machine, or 127.0.0.1 when it has no other. The URLs are those of RFC 7064 and RFC 7065.
    Raises ConfigError when a URL makes no sense or TURN has no credentials.
    """

    stun_url: str | None = None
    turn_url: str | None = None
    turn_user: str | None = None
    turn_password: str | None = None
    addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_ice_url("--stun", self.stun_url, ("stun",), "stun:HOST:PORT")
        _check_ice_url("--turn", self.turn_url, ("turn", "turns"), "turn:HOST:PORT?transport=udp")
        if self.turn_url is not None and not (self.turn_user and self.turn_password):
            raise ConfigError("--turn needs credentials; give --turn-user and --turn-password")

    def servers(self) -> list[RTCIceServer]:
        """The servers as aiortc wants them; an empty list keeps it from asking a public STUN server."""
        servers = []
        if self.stun_url is not None:
            servers.append(RTCIceServer(self.stun_url))
        if self.turn_url is not None:
            servers.append(RTCIceServer(self.turn_url, self.turn_user, self.turn_password))
        return servers


class WebRtcTransport(Transport):
    """One end of a call over WebRTC; made by `offer` or `accept`."""

    def __init__(self, ice: IceConfig, clock: Clock, silence_timeout_ms: float) -> None:
        self._clock = clock
        self._silence_timeout_ms = silence_timeout_ms
        self._counter = WireCounter()
        self._inbox = Inbox(self._counter)
        self._settled = asyncio.Event()
        self._last_heard_ms = clock.now_ms()
        self._watch_task: asyncio.Task[None] | None = None
        self._close_task: asyncio.Task[None] | None = None
        ice_module.CONSENT_INTERVAL = CONSENT_EVERY_S
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=ice.servers()))
        self._peer.on("connectionstatechange", self._on_connection_state)
        self._control = self._peer.createDataChannel(
            "control", ordered=True, negotiated=True, id=CONTROL_STREAM
        )
        self._listen(self._control)
        self._sctp = self._peer.sctp
        self._dtls = self._sctp.transport
        self._leaving: dict[asyncio.Task[None], int] = {}  # media on its way to the socket, by size
        self._ice_connection = self._dtls.transport.iceGatherer._connection
        gather_on(self._ice_connection, ice.addresses)
        prefer_short_records(self._dtls)
        # Every WebRTC end has this profile (RFC 8827 section 6.5). Its tag is the shortest: that of AES-GCM
        # takes 6 bytes more, 0.6 kbit/s with ticks of 80 ms.
        receive_rtp(self._dtls, SRTP_AES128_CM_SHA1_80, lambda data: self._on_message(Channel.MEDIA, data))
        delay_acknowledgements(self._sctp)

    @classmethod
    async def offer(
        cls,
        ice: IceConfig | None = None,
        clock: Clock | None = None,
        silence_timeout_ms: float = SILENCE_TIMEOUT_MS,
    ) -> "WebRtcTransport":
        """The caller's end, with `local_sdp` ready to be sent; `set_answer` comes next.

        Raises PeerUnreachableError when no candidate could be gathered in time.
        """
        transport = cls(ice or IceConfig(), clock or SystemClock(), silence_timeout_ms)
        async with transport._closed_on_error():
            await transport._gather()
        return transport

    @classmethod
    async def accept(
        cls,
        offer_sdp: str,
        ice: IceConfig | None = None,
        clock: Clock | None = None,
        silence_timeout_ms: float = SILENCE_TIMEOUT_MS,
    ) -> "WebRtcTransport":
        """The called end, with the answer in `local_sdp`.

        Raises SignalingError when the offer is not one for a call, PeerUnreachableError when no candidate
        could be gathered in time.
        """
        _check_sdp(offer_sdp)
        transport = cls(ice or IceConfig(), clock or SystemClock(), silence_timeout_ms)
        async with transport._closed_on_error():
            await transport._set_remote(offer_sdp, "offer")
            await transport._gather()
        return transport

    @property
    def local_sdp(self) -> str:
        """The description of this end, all candidates included."""
        return str(self._peer.localDescription.sdp)

    async def set_answer(self, answer_sdp: str) -> None:
        """Give the caller's end the peer's answer. Raises SignalingError when it is not one."""
        async with self._closed_on_error():
            _check_sdp(answer_sdp)
            await self._set_remote(answer_sdp, "answer")

    async def wait_connected(self, timeout_ms: float) -> None:
        """See Transport."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._settled.wait()
        except TimeoutError:
            self._end(PeerUnreachableError(_no_path(f"within {timeout_ms / 1000:g} s")))
        if self._inbox.error is not None:
            raise self._inbox.error

    def send(self, channel: Channel, data: bytes) -> bool:
        """See Transport."""
        check_message(channel, data)
        full = self.buffered_bytes(channel) + len(data) > MAX_BUFFERED_BYTES[channel]
        if full or self._inbox.error is not None or not self._hand_over(channel, data):
            self._counter.message_refused()
            return False
        self._counter.payload_sent(channel, len(data))
        return True

    async def receive(self) -> Datagram:
        """See Transport."""
        while True:
            datagram = self._inbox.poll()
            if datagram is not None:
                return datagram
            await self._inbox.wait_changed()

    def buffered_bytes(self, channel: Channel) -> int:
        """See Transport. What SCTP holds back is included, which bufferedAmount of the channel hides."""
        if channel is Channel.MEDIA:
            return sum(self._leaving.values())
        held_back = sum(len(chunk.user_data) for chunk in self._sctp._outbound_queue)
        return int(self._control.bufferedAmount) + held_back

    def counters(self) -> WireCounters:
        """See Transport. The search for STUN and TURN servers is not counted, the handshakes are."""
        return self._counter.snapshot()

    async def close(self) -> None:
        """See Transport."""
        if self._inbox.error is None:
            await self._linger()
        self._end(TransportClosedError("the call was ended on this side"))
        assert self._close_task is not None
        await asyncio.shield(self._close_task)

    @asynccontextmanager
    async def _closed_on_error(self) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:  # a cancelled negotiation must not leave its sockets open either
            await self.close()
            raise

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(NEGOTIATION_TIMEOUT_MS / 1000):
                await self._peer.setLocalDescription()
        except TimeoutError:
            raise PeerUnreachableError(_no_path("the search for one took too long")) from None
        count_wire(self._ice_connection, self._sctp, self._counter, self._on_wire_arrival)

    async def _set_remote(self, sdp: str, kind: str) -> None:
        try:
            async with asyncio.timeout(NEGOTIATION_TIMEOUT_MS / 1000):
                await self._peer.setRemoteDescription(RTCSessionDescription(sdp, kind))
        except Exception as error:  # the parser of aiortc raises whatever it trips over, KeyError for one
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:100]
            raise SignalingError(f"the peer's {kind} cannot be used ({reason}); is it avcall?") from error

    def _listen(self, data_channel: RTCDataChannel) -> None:
        data_channel.on("open", self._on_open)
        data_channel.on("close", self._on_closed_by_peer)
        data_channel.on("message", lambda data: self._on_message(Channel.CONTROL, data))

    def _on_open(self) -> None:
        self._last_heard_ms = self._clock.now_ms()
        self._settled.set()
        if self._watch_task is None:
            self._watch_task = asyncio.create_task(self._watch_silence())

    def _on_message(self, channel: Channel, data: Any) -> None:
        if data == b"":  # a keep-alive: its SACK is all that it is for
            return
        if not isinstance(data, bytes) or len(data) > MAX_MESSAGE_BYTES:
            self._counter.message_discarded()
            return
        self._inbox.put(Datagram(channel, data, self._clock.now_ms()))

    def _on_wire_arrival(self) -> None:
        self._last_heard_ms = self._clock.now_ms()

    def _on_connection_state(self) -> None:
        state = self._peer.connectionState
        if state == "failed" and not self._settled.is_set():
            self._end(PeerUnreachableError(_no_path("every candidate failed")))
        elif state in ("failed", "closed"):
            self._on_closed_by_peer()

    def _on_closed_by_peer(self) -> None:
        self._end(PeerLostError("the peer closed the connection; call again if that was not meant"))

    async def _watch_silence(self) -> None:
        while self._inbox.error is None:
            await asyncio.sleep(WATCH_INTERVAL_MS / 1000)
            silence_ms = self._clock.now_ms() - self._last_heard_ms
            if silence_ms >= self._silence_timeout_ms:
                lost = f"nothing was heard of the peer for {silence_ms / 1000:.0f} s; check both networks"
                self._end(PeerLostError(f"{lost} and call again"))
            elif self._sctp._advertised_rwnd < 0:  # aiortc announces its window and does not enforce it
                self._end(PeerLostError("the peer sent more than may be held; it does not keep to SCTP"))
            elif silence_ms >= KEEPALIVE_AFTER_MS:
                self._hand_over(Channel.CONTROL, b"")

    def _hand_over(self, channel: Channel, data: bytes) -> bool:
        if channel is Channel.MEDIA:
            return self._send_rtp(data)
        try:
            self._control.send(data)
        except (InvalidStateError, ValueError):  # not open, or over the limit that the peer set for itself
            return False
        return True

    def _send_rtp(self, data: bytes) -> bool:
        if self._dtls.state != "connected":
            return False

        async def leave() -> None:
            with contextlib.suppress(ConnectionError):  # the connection has closed meanwhile
                await self._dtls._send_rtp(data)

        task = asyncio.ensure_future(leave())
        self._leaving[task] = len(data)
        task.add_done_callback(self._leaving.pop)
        return True

    async def _linger(self) -> None:
        # aiortc sends from a task of its own, so even an idle connection needs a turn of the loop.
        await asyncio.sleep(0)
        for _ in range(LINGER_POLLS):
            if self.buffered_bytes(Channel.CONTROL) == 0:
                return
            await asyncio.sleep(LINGER_POLL_MS / 1000)

    def _end(self, error: ConnectionFailedError) -> None:
        self._inbox.end(error)
        self._settled.set()
        if self._close_task is None:
            self._close_task = asyncio.create_task(self._close_peer())

    async def _close_peer(self) -> None:
        if self._watch_task is not None:
            self._watch_task.cancel()
            await asyncio.gather(self._watch_task, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_MS / 1000):
                await self._peer.close()
        except TimeoutError:
            pass  # the sockets go with the process; the caller must not wait for a network that is gone


def _check_ice_url(option: str, url: str | None, schemes: tuple[str, ...], example: str) -> None:
    if url is None:
        return
    try:
        scheme = parse_stun_turn_uri(url)["scheme"]
    except ValueError:
        scheme = ""
    if scheme not in schemes:
        raise ConfigError(f"{option} {url[:100]!r} is not a URL of that kind; write {example}")


def _check_sdp(sdp: str) -> None:
    """Raises SignalingError unless `sdp` has the outline of a call: one section, of a data channel."""
    if len(sdp) > MAX_SDP_BYTES:
        raise SignalingError(f"the peer's session description is over {MAX_SDP_BYTES} bytes; is it avcall?")
    lines = sdp.splitlines()
    media = [line for line in lines if line.startswith("m=")]
    if len(media) != 1 or not media[0].startswith("m=application "):
        raise SignalingError("the peer's session description is not one for a call; is it avcall?")
    if sum(line.startswith("a=candidate:") for line in lines) > MAX_CANDIDATES:
        raise SignalingError(f"the peer's session description has over {MAX_CANDIDATES} candidates")


def _no_path(why: str) -> str:
    return f"no path to the peer ({why}); if either side is behind a NAT, give --stun or --turn"
