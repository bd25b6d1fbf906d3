"""Keyframes over slow links in virtual time: a face within a second, and a better one later."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from avcall.bitstream.motion_coded import MotionCoder, MotionTables
from avcall.transport.loopback import LinkConfig
from avcall.types import FaceCrop
from sender.detect import Detector
from sender.encode import EncodedKeyframe, KeyframeEncoder
from tests.fakes import FakeRuntime, make_crop
from tests.virtual_call import VirtualCall

TABLES = Path(__file__).parents[1] / "golden" / "motion_tables.safetensors"
FIRST_BYTES, FULL_BYTES = 1_500, 4_000


def textured_crop(seed: int = 0) -> FaceCrop:
    """A picture that fills whatever size it may take."""
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)
    return FaceCrop(cv2.resize(coarse, (256, 256)), make_crop().priors, 0)


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


def test_without_the_rough_picture_the_face_comes_much_later() -> None:
    alone, progressive = slow_call(0), slow_call()
    for call in (alone, progressive):
        call.run_until(9000)
    assert alone.stills_ms[0] > 1.7 * progressive.stills_ms[0]
