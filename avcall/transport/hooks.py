"""What avcall changes about the objects of aiortc and aioice: where they gather, what they spend, a count.

Each function takes the object and replaces a method or two of that very object; tests compare the result with
what really crosses the wire.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from avcall.transport.base import UDP_IPV4_HEADER_BYTES, UDP_IPV6_HEADER_BYTES, WireCounter

TURN_CHANNEL_DATA_BYTES = 4  # RFC 8656 section 12.4
IPV6_PRIORITY_PENALTY = 1 << 8  # one step of local preference, RFC 8445 section 5.1.2.1
SCTP_HEADER_BYTES = 12  # RFC 9260 section 3.1
SACK_TYPE = 3  # RFC 9260 section 3.2
ACK_DELAY_MS = 200  # RFC 9260 section 6.2: no SACK may be delayed by more than 500 ms, and 200 are usual
CIPHERS = b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"


def gather_on(connection: Any, wanted: tuple[str, ...]) -> None:
    """Have `connection` (aioice) gather on `wanted`, else on every address, else on 127.0.0.1.

    IPv4 goes before IPv6: it saves 20 bytes in each datagram, 2 kbit/s each way with ticks of 80 ms.
    """
    gather = connection.get_component_candidates

    async def gather_chosen(component: int, addresses: list[str]) -> list[Any]:
        chosen = list(wanted) or addresses or ["127.0.0.1"]
        candidates: list[Any] = await gather(component=component, addresses=chosen)
        for candidate in candidates:
            if ":" in candidate.host:
                candidate.priority -= IPV6_PRIORITY_PENALTY
        return candidates

    connection.get_component_candidates = gather_chosen


def count_wire(connection: Any, sctp: Any, counter: WireCounter, on_arrival: Callable[[], None]) -> None:
    """Count every datagram of the sockets of `connection` (aioice), the layer right above UDP.

    Those that carry an acknowledgement of `sctp` are counted apart as well. The traffic between this end and
    a TURN server that is not the peer's is left out: some bytes a minute.
    """
    for protocol in connection._protocols:
        _count_socket(protocol, counter, on_arrival)
    _count_acknowledgements(sctp, counter)


def _count_socket(protocol: Any, counter: WireCounter, on_arrival: Callable[[], None]) -> None:
    send_data, send_stun, datagram_received = (
        protocol.send_data,
        protocol.send_stun,
        protocol.datagram_received,
    )
    candidate = protocol.local_candidate
    header_bytes = UDP_IPV6_HEADER_BYTES if ":" in candidate.host else UDP_IPV4_HEADER_BYTES
    if candidate.type == "relay":
        header_bytes += TURN_CHANNEL_DATA_BYTES

    async def counted_send_data(data: bytes, address: tuple[str, int]) -> None:
        counter.datagram_sent(len(data) + header_bytes)
        await send_data(data, address)

    def counted_send_stun(message: Any, address: tuple[str, int]) -> None:
        counter.datagram_sent(len(bytes(message)) + header_bytes)
        send_stun(message, address)

    def counted_datagram_received(data: bytes, address: tuple[Any, ...]) -> None:
        counter.datagram_received(len(data) + header_bytes)
        on_arrival()
        datagram_received(data, address)

    protocol.send_data = counted_send_data
    protocol.send_stun = counted_send_stun
    protocol.datagram_received = counted_datagram_received


def _count_acknowledgements(sctp: Any, counter: WireCounter) -> None:
    """Tell the SACKs of `sctp` from its data: chunks travel alone, and go to the socket at once."""
    send_chunk, handle_data = sctp._send_chunk, sctp._handle_data
    below_bytes = 0  # the layers below SCTP, as the last datagram showed

    async def counted_send_chunk(chunk: Any) -> None:
        nonlocal below_bytes
        before = counter.sent_bytes
        await send_chunk(chunk)
        size_bytes = counter.sent_bytes - before
        below_bytes = size_bytes - SCTP_HEADER_BYTES - len(bytes(chunk))
        if chunk.type == SACK_TYPE:
            counter.ack_sent(size_bytes)

    async def counted_handle_data(data: bytes) -> None:
        if data[SCTP_HEADER_BYTES : SCTP_HEADER_BYTES + 1] == bytes([SACK_TYPE]):
            counter.ack_received(len(data) + below_bytes)
        await handle_data(data)

    sctp._send_chunk = counted_send_chunk
    sctp._handle_data = counted_handle_data


def prefer_short_records(dtls: Any) -> None:
    """Offer ChaCha20-Poly1305 first: its records are 8 bytes shorter than those of AES-GCM (RFC 7905).

    GCM repeats a nonce in every record (RFC 5288 section 3); that would be 0.8 kbit/s with ticks of 80 ms.
    """
    certificate = dtls._RTCDtlsTransport__local_certificate
    create_context = certificate._create_ssl_context

    def create(srtp_profiles: Any) -> Any:
        context = create_context(srtp_profiles=srtp_profiles)
        context.set_cipher_list(CIPHERS)
        return context

    certificate._create_ssl_context = create


def receive_rtp(dtls: Any, profile: Any, on_packet: Callable[[bytes], None]) -> None:
    """Protect RTP by `profile` alone; every packet of the peer whose tag is right goes to `on_packet`.

    Replays are refused before.
    """

    async def handle(data: bytes, arrival_time_ms: int) -> None:
        on_packet(data)

    dtls._srtp_profiles = [profile]
    dtls._handle_rtp_data = handle


def delay_acknowledgements(sctp: Any) -> None:
    """Acknowledge every second packet, or after 200 ms (RFC 9260 section 6.2), instead of every one.

    What is missing or came twice is told at once, so that losses are mended as early as before.
    """
    send_sack = sctp._send_sack
    waiting: asyncio.TimerHandle | None = None
    late: asyncio.Task[None] | None = None

    async def send_now() -> None:
        nonlocal waiting
        if waiting is not None:
            waiting.cancel()
            waiting = None
        await send_sack()

    async def send_late() -> None:
        with contextlib.suppress(ConnectionError):  # the connection has closed meanwhile
            await send_now()

    def start_late() -> None:
        nonlocal late
        late = asyncio.ensure_future(send_late())

    async def delayed_send_sack() -> None:
        nonlocal waiting
        if waiting is not None or sctp._sack_misordered or sctp._sack_duplicates:
            await send_now()
        else:
            waiting = asyncio.get_running_loop().call_later(ACK_DELAY_MS / 1000, start_late)

    sctp._send_sack = delayed_send_sack
