from dataclasses import replace

import pytest

from avcall.bitstream import control, packet
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
from avcall.bitstream.packet import MessageType, message_type
from avcall.errors import VersionError
from avcall.transport.base import Channel
from avcall.types import HeldKeyframe
from sender.core import SenderCore
from sender.encode import EncodedKeyframe
from sender.ratecontrol import RateConfig
from sender.references import ReferenceSet
from tests.fakes import grey_picture, still_keypoints
from tests.units import audio_unit, motion_unit

REPORT = Report(10, 1, 2, 3.0, 80.0, 9, 4000, 0.0, 9, 0.0)


def keyframe(index: int = 0, slices: int = 2) -> EncodedKeyframe:
    messages = tuple(bytes([0x12, index, number, slices]) + b"x" * 50 for number in range(slices))
    return EncodedKeyframe(index, messages, 100, HeldKeyframe(grey_picture(100), still_keypoints(), None))


def sent_control(core: SenderCore, now_ms: float) -> list[ControlMessage]:
    sent = [data for channel, data in core.poll(now_ms) if channel is Channel.CONTROL]
    return [control.parse(data) for data in sent if message_type(data) is MessageType.CONTROL]


def sent_slices(core: SenderCore, start_ms: int, end_ms: int) -> int:
    sent = [data for now_ms in range(start_ms, end_ms, 5) for _, data in core.poll(now_ms)]
    return sum(message_type(data) is MessageType.KEYFRAME_SLICE for data in sent)


def tell(core: SenderCore, message: ControlMessage, now_ms: float = 0) -> None:
    is_report = isinstance(message, Report)
    data = control.serialize_report(message, 0, now_ms) if is_report else control.serialize(message)
    core.on_message(data, now_ms)


def test_it_greets_first() -> None:
    greeting = sent_control(SenderCore(80), 0)
    assert len(greeting) == 1 and isinstance(greeting[0], Hello)
    assert (greeting[0].protocol_version, greeting[0].role) == (packet.PROTOCOL_VERSION, "sender")


def test_motion_goes_out_only_once_a_keyframe_is_acknowledged() -> None:
    core = SenderCore(80)
    assert not core.push_motion(motion_unit(0))
    core.push_keyframe(keyframe(index=5))
    assert not core.push_motion(motion_unit(40))
    tell(core, KeyframeAck(5))
    assert core.acknowledged_keyframe == 5
    assert core.push_motion(motion_unit(80))
    core.poll(0)
    media = [data for channel, data in core.poll(80) if channel is Channel.MEDIA]
    assert [unit.keyframe_index for data in media for unit in packet.parse(data).motion] == [5]


def test_motion_animates_the_old_keyframe_until_the_new_one_is_there() -> None:
    core = SenderCore(80)
    core.push_keyframe(keyframe(0))
    tell(core, KeyframeAck(0))
    core.push_keyframe(keyframe(1))
    tell(core, KeyframeAck(0))  # a repeat, for the old one
    assert core.acknowledged_keyframe == 0
    tell(core, KeyframeAck(1))
    assert core.acknowledged_keyframe == 1


def test_speech_does_not_wait_for_the_keyframe() -> None:
    core = SenderCore(80)
    assert core.push_audio(audio_unit(0))
    core.poll(0)
    assert Channel.MEDIA in [channel for channel, _ in core.poll(80)]


def test_a_request_before_the_first_keyframe_asks_the_camera_for_one() -> None:
    core = SenderCore(80)
    tell(core, KeyframeRequest())
    assert core.keyframe_wanted


def test_a_request_is_answered_with_the_latest_keyframe_but_not_while_it_is_on_its_way() -> None:
    core = SenderCore(80)
    core.push_keyframe(keyframe(0))
    tell(core, KeyframeRequest(), 0)
    assert sent_slices(core, 0, 500) == 2
    tell(core, KeyframeRequest(), 500)  # its acknowledgement may be on its way
    assert sent_slices(core, 500, 1900) == 0
    tell(core, KeyframeRequest(), 1900)
    tell(core, KeyframeRequest(), 1900)
    assert sent_slices(core, 1900, 3000) == 2
    assert core.stats().keyframes == 1


def test_the_first_picture_is_ordered_once_more_when_nothing_waits() -> None:
    core = SenderCore(80, references=ReferenceSet(sharp_bytes=1000))
    core.push_keyframe(keyframe(0, slices=2))
    tell(core, KeyframeAck(0))
    core.push_motion(motion_unit(0))
    assert core.take_sharper() is None
    assert sent_slices(core, 0, 500) == 2
    core.push_motion(motion_unit(40))
    assert core.take_sharper() == 1


def test_a_link_without_room_gets_no_sharper_picture() -> None:
    wide, narrow = (
        SenderCore(80, references=ReferenceSet(sharp_bytes=12_000), rate=RateConfig(max_bps=max_bps))
        for max_bps in (60_000, 15_000)
    )
    for core, index in ((wide, 1), (narrow, None)):
        core.adapt(0, 0, 0)
        core.push_keyframe(keyframe(0))
        sent_slices(core, 0, 5_000)
        tell(core, KeyframeAck(0))
        core.adapt(5_000, 2_000, 0)
        core.push_motion(motion_unit(5_000))
        assert core.take_sharper() == index


def test_it_answers_pings_and_measures_its_own() -> None:
    core = SenderCore(80)
    core.ping(100)
    tell(core, Ping(55.0))
    assert [m for m in sent_control(core, 100) if not isinstance(m, Hello)] == [Ping(100), Pong(55.0)]
    tell(core, Pong(100), 160)
    assert core.stats().rtt_ms == 60
    tell(core, Pong(1000), 160)  # a lie
    assert core.stats().rtt_ms == 0


def test_it_keeps_the_newest_report_and_the_goodbye() -> None:
    core = SenderCore(80)
    tell(core, REPORT)
    tell(core, replace(REPORT, received_bytes=3999))  # overtaken on its way
    assert core.stats().report == REPORT and core.peer_bye is None
    tell(core, Bye("done"))
    assert core.peer_bye == "done"


@pytest.mark.parametrize(
    "data", [b"", b"\x13", b"\x13\xff\xff", b"\x80\x61\x00", b"\x1f", b"\x12\x00\x00\x01x"]
)
def test_what_is_no_control_message_is_dropped_and_counted(data: bytes) -> None:
    core = SenderCore(80)
    core.on_message(data, 0)
    assert core.stats().dropped_messages == 1


@pytest.mark.parametrize("data", [b"\x23", control.serialize(Hello(2, "receiver", "avcall"))])
def test_another_version_ends_the_call(data: bytes) -> None:
    with pytest.raises(VersionError, match="install the same avcall on both sides"):
        SenderCore(80).on_message(data, 0)


def test_what_the_transport_cannot_take_waits_and_goes_stale() -> None:
    core = SenderCore(80)
    core.push_keyframe(keyframe())
    core.push_audio(audio_unit(0))
    core.poll(0, media_open=False, slices_open=False)
    held = core.poll(80, media_open=False, slices_open=False)
    assert held == []
    core.push_audio(audio_unit(400))
    core.poll(400, media_open=False, slices_open=False)
    late = core.poll(500)
    media = [packet.parse(data) for channel, data in late if channel is Channel.MEDIA]
    assert [unit.pts_ms for message in media for unit in message.audio] == [400]
    assert core.stats().stale_media == 1
    assert any(message_type(data) is MessageType.KEYFRAME_SLICE for _, data in late)


def test_bytes_are_counted_by_what_they_are() -> None:
    core = SenderCore(80)
    core.push_keyframe(keyframe(0, slices=1))
    tell(core, KeyframeAck(0))
    core.push_motion(motion_unit(0))
    core.push_audio(audio_unit(0))
    sent = core.poll(0) + core.poll(80)
    stats = core.stats()
    assert (stats.motion_units, stats.audio_units, stats.keyframes) == (1, 1, 1)
    assert (stats.motion_bytes, stats.audio_bytes) == (120, 50)
    assert stats.keyframe_bytes == 54
    assert stats.media_bytes + stats.keyframe_bytes + stats.control_bytes == sum(len(d) for _, d in sent)
