"""Keyframes over slow links in virtual time: a face within a second, and a better one later."""

import itertools
from pathlib import Path

import pytest

from avcall.bitstream import control
from avcall.bitstream.control import KeyframeAck
from avcall.bitstream.motion_coded import MotionCoder, MotionTables
from avcall.transport.loopback import LinkConfig
from avcall.types import FRAME_MS
from sender.core import SenderCore
from sender.detect import Detector
from sender.encode import EncodedKeyframe, KeyframeEncoder, encode_motion
from sender.ratecontrol import RateConfig
from sender.references import KeyframeBudget, ReferenceSet
from tests.fakes import FakeRuntime, make_crop, still_keypoints, textured_crop
from tests.virtual_call import VirtualCall

TABLES = Path(__file__).parents[1] / "golden" / "motion_tables.safetensors"
FIRST_BYTES, FULL_BYTES, SHARP_BYTES = 1_500, 4_000, 12_000


def keyframes(first_bytes: int) -> tuple[EncodedKeyframe, ...]:
    """The rough one, if there is one, and the full one."""
    encoder = KeyframeEncoder(Detector(FakeRuntime()), FULL_BYTES, first_bytes)  # type: ignore[arg-type]
    full = encoder.encode(textured_crop(), 1)
    assert full.image_bytes > 0.8 * FULL_BYTES
    return (encoder.encode(textured_crop(), 0, preliminary=True), full) if first_bytes else (full,)


def slow_call(first_bytes: int = FIRST_BYTES, *, delay_ms: float = 40) -> VirtualCall:
    link = LinkConfig(delay_ms=delay_ms, rate_bps=24_000)
    coder = MotionCoder(MotionTables.from_bytes(TABLES.read_bytes()))
    return VirtualCall(link, keyframes=keyframes(first_bytes), coder=coder, audio_bitrate_bps=6_000)


@pytest.mark.parametrize("delay_ms", [40, 150])
def test_a_face_shows_within_a_second_and_a_half_on_24_kbit_s(delay_ms: float) -> None:
    call = slow_call(delay_ms=delay_ms)
    call.run_until(1500)
    assert len(call.stills_ms) == 1
    assert call.stills_ms[0] <= 1200
    assert call.sender.acknowledged_keyframe == 0


def test_motion_starts_with_the_rough_picture_and_moves_over_to_the_better_one() -> None:
    call = slow_call()
    call.run_until(12_000)
    named = [shown.motion.keyframe_index for shown in call.shown]
    assert named == sorted(named) and set(named) == {0, 1}
    assert len(call.shown_between(10_000, 12_000)) >= 40
    rough = [shown.at_ms for shown in call.shown if shown.motion.keyframe_index == 0]
    assert rough[0] < 3000


def steady_call(rate_bps: float) -> VirtualCall:
    """Rate control on, and a picture that may be sent once more."""
    coder = MotionCoder(MotionTables.from_bytes(TABLES.read_bytes()))
    return VirtualCall(
        LinkConfig(delay_ms=40, rate_bps=rate_bps),
        keyframes=keyframes(FIRST_BYTES),
        coder=coder,
        audio_bitrate_bps=6_000,
        rate=RateConfig(audio_bps=6_000),
        sharp_of=(textured_crop(), SHARP_BYTES),
    )


def test_where_a_link_has_room_the_first_picture_comes_once_more_and_sharper() -> None:
    call = steady_call(32_000)
    call.run_until(20_000)
    named = [shown.motion.keyframe_index for shown in call.shown]
    assert named == sorted(named) and set(named) == {0, 1, 2}
    assert len(call.shown_between(5_000, 20_000)) >= 0.95 * 15 * 25  # its slices leave room for motion
    assert max(shown.at_ms for shown in call.shown if shown.motion.keyframe_index == 1) < 18_000


def test_a_link_without_room_is_spared_the_sharper_picture() -> None:
    call = steady_call(13_000)
    call.run_until(30_000)
    assert {shown.motion.keyframe_index for shown in call.shown} <= {0, 1}
    assert call.sender.stats().keyframes == 2


def test_without_the_rough_picture_the_face_comes_much_later() -> None:
    alone, progressive = slow_call(0), slow_call()
    for call in (alone, progressive):
        call.run_until(9000)
    assert alone.stills_ms[0] > 1.7 * progressive.stills_ms[0]


def test_a_head_that_turns_away_gets_a_new_keyframe_and_the_old_one_when_it_comes_back() -> None:
    references = ReferenceSet(KeyframeBudget(64_000), FULL_BYTES)
    core = SenderCore(80, references=references)
    encoder = KeyframeEncoder(Detector(FakeRuntime()), FULL_BYTES)  # type: ignore[arg-type]
    core.push_keyframe(encoder.encode(make_crop(grey=128)))
    core.on_message(control.serialize(KeyframeAck(0)), 0)
    named: list[int] = []
    for number in range(300):
        grey = 200 if 50 <= number < 150 else 128
        core.push_motion(encode_motion(still_keypoints(grey / 127.5 - 1), number * FRAME_MS))
        if core.keyframe_wanted:
            core.keyframe_wanted = False
            made = encoder.encode(make_crop(grey=grey), core.keyframe_index)
            core.push_keyframe(made)
            core.on_message(control.serialize(KeyframeAck(made.index)), number * FRAME_MS)
        named.append(core.acknowledged_keyframe or 0)
    changes = [i for i, (a, b) in enumerate(itertools.pairwise(named)) if a != b]
    assert named[0] == 0 and named[149] == 1 and named[-1] == 0
    assert len(changes) == 2 and core.stats().keyframes == 2
