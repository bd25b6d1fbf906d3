"""The three accountings, by hand."""

import pytest

from avcall.bench.rates import PAPER_MOTION_BITS, clip_bill, rates_of
from avcall.types import FRAME_RATE


def test_the_papers_motion_is_24_kbit_a_second_and_0_0146_bits_a_pixel() -> None:
    bill = clip_bill(
        100,
        motion_bytes=100 * PAPER_MOTION_BITS // 8,
        keyframe_bytes=0,
        audio_bytes=0,
        wire_bytes=0,
        back_bytes=0,
    )
    motion = rates_of(bill).motion
    assert motion.kbps == pytest.approx(PAPER_MOTION_BITS * FRAME_RATE / 1000) == pytest.approx(24.0)
    assert motion.bpp == pytest.approx(960 / 65_536)
    assert round(motion.bpp, 4) == 0.0146


def test_each_accounting_holds_what_it_says() -> None:
    bill = clip_bill(
        50,  # two seconds
        motion_bytes=1_000,
        keyframe_bytes=2_000,
        audio_bytes=500,
        control_bytes=70,
        wire_bytes=6_000,
        back_bytes=1_500,
    )
    rates = rates_of(bill)
    assert rates.motion.kbps == pytest.approx(4.0)
    assert rates.video.kbps == pytest.approx(12.0)
    assert rates.payload.kbps == pytest.approx(14.0)  # without control messages and headers
    assert rates.up.kbps == pytest.approx(24.0)
    assert rates.down.kbps == pytest.approx(6.0)
    assert rates.wire.kbps == pytest.approx(30.0)
    assert rates.wire.bpp == pytest.approx(7_500 * 8 / (50 * 256 * 256))
    assert rates.named("payload") is rates.payload
