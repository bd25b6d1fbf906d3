import pytest

from avcall.stats import Bill, RateMeter

BILL = Bill(
    elapsed_ms=10_000,
    frames=250,
    motion_bytes=30_000,
    audio_bytes=12_500,
    keyframe_bytes=6_000,
    control_bytes=500,
    wire_bytes=70_000,
    back_bytes=20_000,
)
NOTHING = Bill(0, 0, 0, 0, 0, 0, 0, 0)


def test_headers_are_what_is_left_of_the_wire() -> None:
    assert BILL.headers_bytes == 70_000 - 49_000
    assert Bill(1, 1, 10, 0, 0, 0, 5, 0).headers_bytes == 0


def test_the_paper_spends_24_kbps_on_motion() -> None:
    assert BILL.kbps(BILL.motion_bytes) == pytest.approx(24.0)
    assert BILL.bpp(BILL.motion_bytes) == pytest.approx(960 / 65_536)


def test_a_call_that_never_was_costs_nothing() -> None:
    assert (NOTHING.kbps(100), NOTHING.bpp(100), NOTHING.headers_bytes) == (0, 0, 0)


def test_a_rate_over_a_window() -> None:
    meter = RateMeter(window_ms=1000)
    assert meter.update(0, 0) == 0
    assert meter.update(500, 50) == pytest.approx(100)
    assert meter.update(1000, 100) == pytest.approx(100)
    for now_ms in range(1500, 6000, 500):
        rate = meter.update(now_ms, 100)
    assert rate == 0


def test_a_meter_that_is_asked_often_stays_small() -> None:
    meter = RateMeter(window_ms=1000)
    for now_ms in range(100_000):
        rate = meter.update(now_ms, now_ms * 3)
    assert rate == pytest.approx(3000)
    assert len(meter._points) <= 1002


def test_two_readings_at_one_moment_are_no_rate() -> None:
    meter = RateMeter()
    meter.update(5, 0)
    assert meter.update(5, 100) == 0
