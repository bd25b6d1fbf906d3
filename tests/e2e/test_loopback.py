"""The whole pipeline over the loopback, in virtual time: loss, delay, stalls, slow links, hostile peers."""

import random

import numpy as np
import pytest

from avcall.bitstream import control, keyframe, packet
from avcall.bitstream.control import Hello, KeyframeAck, KeyframeRequest
from avcall.bitstream.keyframe import MAX_SLICES, CodedKeyframe, StillCodec
from avcall.bitstream.packet import MediaPacket, MessageType, first_byte
from avcall.errors import VersionError
from avcall.transport.base import Channel
from avcall.transport.loopback import LinkConfig
from avcall.types import AccessUnit, MediaKind, Pcm
from tests.clips import tone_level
from tests.fakes import make_crop, still_keypoints
from tests.units import audio_unit, motion_unit, rtp
from tests.virtual_call import VirtualCall, x_at

EARLIEST_MS, LATEST_MS = -125, 45  # ITU-R BT.1359: sound may lag by 125 ms and lead by 45 ms
TONE_HZ = 440.0


def assert_in_step(call: VirtualCall, start_ms: float = 0) -> None:
    """Sound and picture within the limits, each picture in the pose of its time."""
    shown = call.shown_between(start_ms, 1e9)
    assert shown
    assert all(EARLIEST_MS <= s.skew_ms <= LATEST_MS for s in shown)
    assert [s.motion.pts_ms for s in shown] == sorted({s.motion.pts_ms for s in shown})


def tone_share(pcm: Pcm) -> float:
    """Share of the 40 ms windows in which the sender's tone is heard."""
    windows = pcm[: len(pcm) // 640 * 640].reshape(-1, 640)
    return float(np.mean([tone_level(window, TONE_HZ) > 4000 for window in windows]))


def assert_counts_add_up(call: VirtualCall) -> None:
    """What the sender says it sent is what the receiver got, lost, or what is still on its way."""
    sent, got, jitter = call.sender.stats(), call.receiver.stats(), call.playout.stats().jitter
    packets = call.sender._packetizer.stats().packets
    missing = packets - sent.stale_media - got.packets.received_packets
    assert got.packets.lost_packets <= missing <= got.packets.lost_packets + 16
    units = got.motion_units + got.audio_units
    assert jitter.accepted + jitter.late + jitter.duplicate + jitter.implausible == units
    assert got.motion_bytes == 120 * got.motion_units
    assert got.motion_units <= sent.motion_units and got.audio_units <= sent.audio_units
    assert got.keyframe_bytes > 0 and got.keyframes == sent.keyframes == 1
    assert got.packets.dropped == {} and sent.dropped_messages == 0


@pytest.mark.parametrize("tick_ms", [40, 80, 120])
@pytest.mark.parametrize("latency_ms", [0.0, 80.0])
def test_a_good_link_shows_and_plays_everything(tick_ms: int, latency_ms: float) -> None:
    call = VirtualCall(LinkConfig(delay_ms=20), tick_ms, latency_ms)
    call.run_until(4000)
    assert_in_step(call)
    assert len(call.shown_between(1000, 4000)) in (74, 75, 76)
    assert call.playout.stats().concealed_frames == 0
    assert all(
        s.motion.keypoints.values[0, 0] == pytest.approx(x_at(s.motion.pts_ms), abs=1e-3) for s in call.shown
    )
    assert tone_share(call.heard_between(1000, 4000)) == 1.0
    assert max(call.delays_ms) < tick_ms + 80
    assert_counts_add_up(call)


@pytest.mark.parametrize(
    ("link", "most_concealed_ms", "longest_delay_ms"),
    [
        (LinkConfig(delay_ms=40, loss=0.05, seed=1), 1200, 200),
        (LinkConfig(delay_ms=40, loss=0.10, seed=2), 2000, 200),
        (LinkConfig(delay_ms=60, jitter_ms=60, loss=0.05, seed=3), 1200, 250),
        (LinkConfig(delay_ms=100, jitter_ms=100), 400, 250),
        (LinkConfig(delay_ms=20, rate_bps=64_000), 400, 400),
    ],
    ids=["5% loss", "10% loss", "jitter and loss", "jitter", "64 kbit/s"],
)
def test_a_bad_link_conceals_and_stays_in_step(
    link: LinkConfig, most_concealed_ms: int, longest_delay_ms: float
) -> None:
    call = VirtualCall(link)
    call.run_until(10_000)
    assert_in_step(call)
    assert len(call.shown_between(2000, 10_000)) >= 0.93 * 200
    playout = call.playout.stats()
    assert playout.concealed_audio_ms <= most_concealed_ms
    assert tone_share(call.heard_between(2000, 10_000)) > 0.8
    assert max(call.delays_ms) <= longest_delay_ms
    assert playout.dropped == {}
    assert_counts_add_up(call)
    if link.loss:
        assert playout.concealed_frames > 0
        assert call.receiver.stats().packets.lost_packets > 0


@pytest.mark.parametrize("start_ms", [2000, 6000])
def test_a_stall_of_300_ms_is_bridged_and_forgotten(start_ms: int) -> None:
    call = VirtualCall(LinkConfig(delay_ms=20, jitter_ms=10), stall=range(start_ms, start_ms + 300))
    call.run_until(start_ms + 14_000)
    assert_in_step(call)
    after_ms = start_ms + 1500
    assert len(call.shown_between(after_ms, after_ms + 2000)) >= 48
    assert (
        tone_share(call.heard_between(after_ms, after_ms + 2000)) > 0.85
    )  # it is catching up, 10 ms at a time
    assert max(call.delays_ms) <= 420
    assert call.playout.stats().jitter.playout_delay_ms < 150  # a window later the stall is forgotten


def test_a_link_that_was_dead_for_three_seconds_starts_anew() -> None:
    call = VirtualCall(LinkConfig(delay_ms=20), stall=range(3000, 6000))
    call.run_until(10_000)
    assert_in_step(call)
    assert len(call.shown_between(7500, 10_000)) >= 60
    assert tone_share(call.heard_between(7500, 10_000)) > 0.9


def test_a_link_below_the_rate_of_the_call_loses_but_does_not_fall_behind() -> None:
    call = VirtualCall(LinkConfig(delay_ms=20, rate_bps=36_000))
    call.run_until(15_000)
    assert_in_step(call)
    assert call.sender.stats().stale_media > 0
    assert max(call.delays_ms) <= 800
    assert len(call.shown_between(5000, 15_000)) > 100


def test_speech_is_not_delayed_by_the_keyframe_on_a_slow_link() -> None:
    call = VirtualCall(LinkConfig(delay_ms=20, rate_bps=64_000))
    call.run_until(3000)
    assert max(call.delays_ms) < 400


def test_a_call_without_sound_shows_pictures() -> None:
    call = VirtualCall(LinkConfig(delay_ms=20), audio=False)
    call.run_until(3000)
    assert len(call.shown_between(1000, 3000)) >= 48
    assert call.playout.stats().concealed_audio_ms == 0
    assert all(not speech for _, speech in call.runtime.windows)


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_a_pause_costs_next_to_nothing_and_is_not_concealed(loss: float) -> None:
    call = VirtualCall(LinkConfig(delay_ms=20, loss=loss, seed=4), pause=range(2000, 6000))
    call.run_until(2400)
    before, concealed_ms = call.sender.stats().audio_bytes, call.playout.stats().concealed_audio_ms
    call.run_until(6000)
    assert call.sender.stats().audio_bytes - before <= 12  # a byte each 400 ms
    call.run_until(6040 + 200)
    assert call.playout.stats().concealed_audio_ms - concealed_ms <= (0 if loss == 0 else 200)
    assert not call.heard_between(2900, 5900).any()
    call.run_until(8000)
    assert tone_share(call.heard_between(6200, 8000)) > (0.99 if loss == 0 else 0.85)
    assert_in_step(call)


def test_a_pause_without_a_face_is_no_starvation() -> None:
    call = VirtualCall(LinkConfig(delay_ms=20), pause=range(1000, 8000))
    call.run_until(10_000, motion=False)
    jitter = call.playout.stats().jitter
    assert jitter.starvations == 0 and jitter.resyncs == 0
    assert call.playout.stats().concealed_audio_ms == 0
    assert tone_share(call.heard_between(8200, 10_000)) == 1.0


def test_motion_waits_for_the_acknowledgement_of_the_keyframe() -> None:
    call = VirtualCall(LinkConfig(delay_ms=400))
    call.run_until(700)
    assert call.sender.acknowledged_keyframe is None
    assert call.sender.stats().motion_units == 0 < call.sender.stats().audio_units
    call.run_until(1500)
    assert call.sender.acknowledged_keyframe == 0
    assert call.sender.stats().motion_units > 0


def test_a_new_keyframe_takes_over_once_it_is_there() -> None:
    call = VirtualCall(LinkConfig(delay_ms=50))
    call.run_until(2000)
    call.sender.push_keyframe(call.encoder.encode(make_crop(grey=91)))
    call.run_until(4000)
    indices = [s.motion.keyframe_index for s in call.shown]
    assert indices == sorted(indices) and set(indices) == {0, 1}
    assert len(call.shown_between(2000, 4000)) >= 48


def test_while_the_face_is_lost_the_picture_holds_and_the_sound_goes_on() -> None:
    call = VirtualCall(LinkConfig(delay_ms=20))
    call.run_until(2000)
    call.run_until(5000, motion=False)
    assert len(call.shown_between(2500, 5000)) == 0
    assert tone_share(call.heard_between(2500, 5000)) == 1.0
    call.run_until(7000)
    assert_in_step(call)
    assert len(call.shown_between(5500, 7000)) >= 36


def media(sequence: int, *, motion: tuple[AccessUnit, ...] = (), audio: tuple[AccessUnit, ...] = ()) -> bytes:
    return packet.serialize(MediaPacket(sequence, min(u.pts_ms for u in motion + audio), motion, audio))


def hostile_messages() -> dict[str, bytes]:
    good = media(60_000, motion=(motion_unit(2000),), audio=(audio_unit(2000),))
    infinite = bytearray(good)
    infinite[15:17] = b"\x7e\x00"  # the first half float becomes NaN
    singular = bytearray(good)
    singular[15 + 40 : 15 + 48] = bytes(8)
    noise = random.Random(5)
    return {
        "random media": rtp() + noise.randbytes(300),
        "random slice": first_byte(MessageType.KEYFRAME_SLICE) + bytes([9, 200, 100]) + noise.randbytes(300),
        "random control": first_byte(MessageType.CONTROL) + noise.randbytes(300),
        "unknown type": bytes([0x1F]) + noise.randbytes(20),
        "truncated media": good[:-3],
        "NaN": bytes(infinite),
        "singular": bytes(singular),
        "oversized keyframe": first_byte(MessageType.KEYFRAME_SLICE)
        + bytes([9, 0, MAX_SLICES + 1])
        + bytes(9),
        "truncated control": control.serialize(Hello(1, "sender", "avcall"))[:-1],
    }


@pytest.mark.parametrize("name", hostile_messages())
def test_a_hostile_message_is_dropped_and_counted_while_the_call_goes_on(name: str) -> None:
    call = VirtualCall(LinkConfig(delay_ms=20))
    call.run_until(2000)
    call.inject(hostile_messages()[name], Channel.CONTROL)
    call.run_until(4000)
    assert sum(call.receiver.stats().packets.dropped.values()) == 1
    assert_in_step(call)
    assert len(call.shown_between(2000, 4000)) >= 48


def test_a_flood_of_random_bytes_changes_nothing() -> None:
    call = VirtualCall(LinkConfig(delay_ms=20))
    noise = random.Random(1)
    for end_ms in range(1000, 4000, 10):
        call.run_until(end_ms)
        data = bytearray(noise.randbytes(noise.randrange(1, 200)))
        data[0] = 0x10 | data[0] & 0x0F
        is_media = noise.random() < 0.5
        call.inject(rtp(bytes(data)) if is_media else bytes(data), Channel(not is_media))
    call.run_until(4500)
    # A few look like one slice of a keyframe that never comes.
    assert sum(call.receiver.stats().packets.dropped.values()) >= 285
    assert_in_step(call)
    assert len(call.shown_between(1500, 4500)) >= 72


def test_an_audio_unit_that_is_no_opus_is_concealed() -> None:
    call = VirtualCall(LinkConfig(delay_ms=20))
    call.run_until(2000)
    bad = AccessUnit(MediaKind.AUDIO, 2033 + 40, 40, bytes([0x50]) + bytes(range(200)))
    call.playout.push(bad, 2000)
    call.run_until(4000)
    assert len(call.shown_between(2000, 4000)) >= 48


def test_another_version_ends_the_call_in_one_line() -> None:
    call = VirtualCall()
    call.run_until(500)
    call.inject(bytes([0x21, 0, 0]), Channel.CONTROL)
    with pytest.raises(VersionError, match=r"version 2.*install the same avcall") as error:
        call.run_until(600)
    assert "\n" not in str(error.value)


def test_a_hello_of_another_version_ends_the_call() -> None:
    call = VirtualCall()
    call.inject(control.serialize(Hello(2, "sender", "avcall")), Channel.CONTROL)
    with pytest.raises(VersionError):
        call.run_until(100)


def test_a_keyframe_whose_picture_does_not_decode_is_asked_for_again() -> None:
    call = VirtualCall(LinkConfig(delay_ms=20))
    bad = CodedKeyframe(7, StillCodec.AVIF, b"\x00" * 300, still_keypoints())
    for message in keyframe.slice_keyframe(keyframe.serialize(bad), 7):
        call.inject(message, Channel.CONTROL)
    call.run_until(4000)
    assert call.receiver.stats().packets.dropped == {"KeyframeError": 1}
    assert_in_step(call)
    assert len(call.shown_between(1000, 4000)) >= 72


def test_a_damaged_first_keyframe_is_sent_again() -> None:
    call = VirtualCall(LinkConfig(delay_ms=20))
    whole = call.sender._pacer._keyframes[0]
    whole[0] = whole[0][:-1] + bytes([whole[0][-1] ^ 1])
    call.run_until(3000)
    assert call.shown == []
    call.run_until(7000)
    assert len(call.shown_between(5500, 7000)) >= 36


def test_a_receiver_that_lost_its_keyframe_gets_it_again() -> None:
    call = VirtualCall(LinkConfig(delay_ms=20))
    call.run_until(3000)
    call.runtime.keyframes.clear()
    call.run_until(3500)
    assert call.runtime.has_keyframe(0)
    call.run_until(5000)
    assert len(call.shown_between(3500, 5000)) >= 36


def test_a_receiver_that_keeps_asking_does_not_fill_the_link() -> None:
    call = VirtualCall(LinkConfig(delay_ms=20))
    call.run_until(1000)
    once = call.sender.stats().keyframe_bytes
    for end_ms in range(1000, 4000, 4):
        call.far.send(Channel.CONTROL, control.serialize(KeyframeRequest()))
        call.run_until(end_ms)
    assert call.sender.stats().keyframe_bytes <= 3 * once


def test_an_acknowledgement_of_no_known_keyframe_is_ignored() -> None:
    call = VirtualCall(LinkConfig(delay_ms=200))
    call.far.send(Channel.CONTROL, control.serialize(KeyframeAck(77)))
    call.run_until(250)
    assert call.sender.acknowledged_keyframe is None
