"""The bill against a packet capture: what the counters say, and what the kernel saw on the loopback."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from avcall.bitstream import control
from avcall.bitstream.control import KeyframeAck
from avcall.stats import Bill
from avcall.summary import sender_bill
from avcall.transport.base import Channel, WireCounters
from avcall.transport.webrtc import IceConfig, WebRtcTransport
from avcall.types import HeldKeyframe
from sender.core import SenderCore
from sender.encode import EncodedKeyframe
from sender.pipeline import SenderSnapshot
from sender.track import FaceState
from tests.units import audio_unit, make_keypoints, make_still, motion_unit

KEYFRAME = EncodedKeyframe(
    5, (b"\x12\x05\x00\x01" + bytes(900),), 900, HeldKeyframe(make_still(), make_keypoints(), None)
)
ICE = IceConfig(addresses=("127.0.0.1",))
ALL_PROTOCOLS = 0x0003  # ETH_P_ALL
OUTGOING = 4  # PACKET_OUTGOING: on the loopback each packet is seen twice


class Capture:
    """Bytes of the UDP datagrams over IPv4 on `lo`, IP header included, by source port."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PROTOCOLS))
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.bytes_from: Counter[int] = Counter()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self._socket.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                data, (_, _, kind, *_) = self._socket.recvfrom(65_535)
                if kind == OUTGOING and data[0] == 0x45 and data[9] == socket.IPPROTO_UDP:
                    (size_bytes,), (port,) = (
                        struct.unpack_from(">H", data, 2),
                        struct.unpack_from(">H", data, 20),
                    )
                    self.bytes_from[port] += size_bytes


@pytest.fixture
def capture() -> Iterator[Capture]:
    try:
        capture = Capture()
    except (PermissionError, AttributeError):
        pytest.skip("capturing packets needs Linux and CAP_NET_RAW")
    capture.start()
    yield capture
    capture.close()


async def connected() -> tuple[WebRtcTransport, WebRtcTransport]:
    caller = await WebRtcTransport.offer(ICE)
    called = await WebRtcTransport.accept(caller.local_sdp, ICE)
    await caller.set_answer(called.local_sdp)
    await asyncio.gather(caller.wait_connected(10_000), called.wait_connected(10_000))
    return caller, called


def port_of(transport: WebRtcTransport) -> int:
    (protocol,) = transport._ice_connection._protocols
    return int(protocol.local_candidate.port)


async def test_the_bill_agrees_with_a_packet_capture(capture: Capture) -> None:
    caller, called = await connected()
    core = SenderCore(80)
    core.push_keyframe(KEYFRAME)
    core.on_message(control.serialize(KeyframeAck(KEYFRAME.index)), 0.0)
    for number in range(60):
        core.push_motion(motion_unit(number * 40))
        core.push_audio(audio_unit(number * 40, 28))
        for channel, data in core.poll(number * 40.0):
            assert caller.send(channel, data)
        called.send(Channel.CONTROL, bytes(30))
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.4)  # the last acknowledgements
    sender, receiver = caller.counters(), called.counters()
    ports = port_of(caller), port_of(called)
    await asyncio.sleep(0.2)
    seen = [capture.bytes_from[port] for port in ports]
    await caller.close()
    await called.close()

    assert sender.sent_bytes == pytest.approx(seen[0], rel=0.03)
    assert receiver.sent_bytes == pytest.approx(seen[1], rel=0.03)
    bill = sender_bill(SenderSnapshot(core.stats(), FaceState.TRACKED, 60, 0.0, 2_400.0), sender)
    assert_complete(bill, sender)
    assert bill.wire_bytes == pytest.approx(seen[0], rel=0.03)


def assert_complete(bill: Bill, wire: WireCounters) -> None:
    """Every part is what it says, and together they are the wire."""
    assert 58 * 120 <= bill.motion_bytes <= 60 * 120
    assert bill.keyframe_bytes == 904
    assert 58 * 28 <= bill.audio_bytes <= 60 * 28
    assert 30 * 85 <= bill.ack_bytes <= 45 * 85  # of the messages that come the other way
    parts = bill.motion_bytes + bill.audio_bytes + bill.keyframe_bytes + bill.control_bytes
    assert parts + bill.headers_bytes + bill.ack_bytes == bill.wire_bytes
    assert wire.sent_datagrams * 28 < bill.headers_bytes
