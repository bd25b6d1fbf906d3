import pytest

from avcall.bitstream import control, keyframe, packet
from avcall.bitstream.control import (
    Bye,
    ControlMessage,
    Hello,
    KeyframeAck,
    KeyframeRequest,
    Ping,
    Pong,
    Report,
)
from avcall.bitstream.keyframe import CodedKeyframe, StillCodec, encode_still
from avcall.bitstream.packet import MediaPacket
from avcall.errors import VersionError
from receiver.core import FIRST_KEYFRAME_MS, REQUEST_EVERY_MS, ReceiverCore
from receiver.mel import MelWindows
from receiver.playout import Playout
from tests.units import audio_unit, make_keypoints, make_still, motion_unit


@pytest.fixture
def core() -> ReceiverCore:
    made = ReceiverCore(Playout(MelWindows()))
    made.take_answers()
    return made


def answers(core: ReceiverCore) -> list[ControlMessage]:
    return [control.parse(data) for _, data in core.take_answers()]


def media(sequence: int, pts_ms: int) -> bytes:
    units = (motion_unit(pts_ms),), (audio_unit(pts_ms),)
    return packet.serialize(MediaPacket(sequence, pts_ms, *units))


def coded_keyframe(image: bytes, index: int = 3) -> CodedKeyframe:
    return CodedKeyframe(index, StillCodec.AVIF, image, make_keypoints())


def test_it_greets_first() -> None:
    greeting = answers(ReceiverCore(Playout(MelWindows())))
    assert len(greeting) == 1 and isinstance(greeting[0], Hello)
    assert (greeting[0].protocol_version, greeting[0].role) == (packet.PROTOCOL_VERSION, "receiver")


def test_media_goes_to_the_playout_and_is_counted(core: ReceiverCore) -> None:
    core.on_message(media(0, 0), 10)
    core.on_message(media(2, 80), 90)
    stats = core.stats()
    assert (stats.motion_units, stats.audio_units) == (2, 2)
    assert (stats.motion_bytes, stats.audio_bytes) == (240, 100)
    assert (stats.packets.received_packets, stats.packets.lost_packets) == (2, 1)
    assert core.playout.stats().jitter.accepted == 4


def test_a_keyframe_is_handed_out_with_its_last_slice(core: ReceiverCore) -> None:
    data = keyframe.serialize(coded_keyframe(encode_still(make_still(), 3000)))
    found = [core.on_message(message, 0) for message in keyframe.slice_keyframe(data, 3)]
    assert len(found) > 1 and found[:-1] == [None] * (len(found) - 1)
    assert found[-1] is not None
    decoded = core.decode_keyframe(found[-1])
    assert decoded is not None and (decoded.index, decoded.rgb.shape) == (3, (256, 256, 3))
    assert core.stats().keyframes == 1
    assert core.stats().keyframe_bytes == sum(map(len, keyframe.slice_keyframe(data, 3)))


def test_a_keyframe_that_does_not_decode_is_counted(core: ReceiverCore) -> None:
    assert core.decode_keyframe(coded_keyframe(bytes(400))) is None
    assert core.stats().packets.dropped == {"KeyframeError": 1}


def test_requests_are_far_between(core: ReceiverCore) -> None:
    for now_ms in range(0, int(2.5 * REQUEST_EVERY_MS), 100):
        core.request_keyframe(now_ms)
    assert answers(core) == [KeyframeRequest()] * 3


def test_a_keyframe_that_does_not_come_is_asked_for(core: ReceiverCore) -> None:
    core.check_keyframe(60_000)  # nobody is there yet
    core.on_message(control.serialize(Hello(packet.PROTOCOL_VERSION, "sender", "avcall")), 60_000)
    core.check_keyframe(60_000 + FIRST_KEYFRAME_MS - 1)
    assert answers(core) == []
    core.check_keyframe(60_000 + FIRST_KEYFRAME_MS)
    assert answers(core) == [KeyframeRequest()]
    core.acknowledge(3)
    core.check_keyframe(90_000)
    assert answers(core) == [KeyframeAck(3)]


def test_it_answers_pings_and_measures_its_own(core: ReceiverCore) -> None:
    core.ping(100)
    core.on_message(control.serialize(Ping(7.0)), 100)
    core.on_message(control.serialize(Pong(100)), 140)
    assert answers(core) == [Ping(100), Pong(7.0)]
    assert core.stats().rtt_ms == 40


def test_it_reports_how_it_fares(core: ReceiverCore) -> None:
    core.on_message(media(0, 0), 10)
    core.on_message(media(3, 80), 90)
    core.report(17, 100)
    (report,) = answers(core)
    assert isinstance(report, Report)
    assert (report.received_packets, report.lost_packets, report.frames_rendered) == (2, 2, 17)
    assert report.playout_delay_ms >= 40


def test_goodbyes_of_both_sides(core: ReceiverCore) -> None:
    core.on_message(control.serialize(Bye("done")), 0)
    assert core.peer_bye == "done"
    core.bye("a reason\nof two lines " + "x" * 300)
    (bye,) = answers(core)
    assert isinstance(bye, Bye) and bye.reason.startswith("a reason of two lines") and len(bye.reason) == 200


@pytest.mark.parametrize("data", [b"\x23", control.serialize(Hello(2, "sender", "avcall"))])
def test_another_version_ends_the_call(core: ReceiverCore, data: bytes) -> None:
    with pytest.raises(VersionError, match="install the same avcall on both sides"):
        core.on_message(data, 0)


@pytest.mark.parametrize("data", [b"", b"\x11", b"\x12\x00", b"\x13\x90", b"\x1f", media(0, 0)[:-1]])
def test_broken_messages_are_dropped_and_counted(core: ReceiverCore, data: bytes) -> None:
    assert core.on_message(data, 0) is None
    assert sum(core.stats().packets.dropped.values()) == 1
