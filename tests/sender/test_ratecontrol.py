"""Rate control in virtual time, against reports that are made up."""

from dataclasses import replace
from itertools import pairwise

import pytest

from avcall.bitstream.control import Report
from sender.ratecontrol import (
    MAX_SLICE_BYTES,
    RateConfig,
    RateController,
    RateDecision,
    ladder,
    wire_bps,
)

CALM = Report(100, 0, 0, 10.0, 90.0, 200, 25_000, 0.0, 99, 5.0)


class Bench:
    """A controller whose advice is followed: what a rung costs is sent."""

    def __init__(self, config: RateConfig) -> None:
        self.config = config
        self.rate = RateController(config)
        self.now_ms = 0.0
        self.sent_bytes = 0.0
        self.report = CALM
        self.decision = self.step()

    def step(self, backlog_bytes: int = 0, showing: bool = True) -> RateDecision:
        self.decision = self.rate.update(self.now_ms, int(self.sent_bytes), backlog_bytes, showing=showing)
        self.now_ms += 100
        self.sent_bytes += wire_bps(self.decision.rung, self.config.audio_frame_ms) / 80
        return self.decision

    def run(self, duration_ms: float, backlog_bytes: int = 0) -> RateDecision:
        end_ms = self.now_ms + duration_ms
        while self.now_ms < end_ms:
            self.step(backlog_bytes)
        return self.decision

    def hear(
        self, queue_ms: float = 0.0, received: int = 12, lost: int = 0, arrived_bps: float = 20_000
    ) -> None:
        """A second later, a report."""
        self.run(1000)
        self.report = replace(
            self.report,
            received_packets=self.report.received_packets + received,
            lost_packets=self.report.lost_packets + lost,
            received_bytes=self.report.received_bytes + int(arrived_bps / 8),
            queue_ms=queue_ms,
        )
        self.rate.on_report(self.report, self.now_ms)


@pytest.mark.parametrize(
    "config", [RateConfig(), RateConfig(tick_ms=40, audio_bps=12_000), RateConfig(tick_ms=120)]
)
def test_each_rung_costs_less_than_the_one_above(config: RateConfig) -> None:
    costs = [wire_bps(rung, config.audio_frame_ms) for rung in ladder(config)]
    assert all(below < above for above, below in pairwise(costs))
    assert not ladder(config)[-1].motion and all(rung.motion for rung in ladder(config)[:-1])
    assert ladder(config)[0].tick_ms == config.tick_ms


def test_the_table_in_the_module_is_what_the_rungs_cost() -> None:
    costs = [wire_bps(rung, 40) / 1000 for rung in ladder(RateConfig())]
    assert costs == pytest.approx([21.4, 17.9, 14.1, 12.0, 11.0, 10.1, 9.1, 8.5], abs=0.1)


def test_only_the_first_rung_tells_deformations() -> None:
    first, second, *others = ladder(RateConfig())
    assert first.deforms and replace(first, deforms=False) == second
    assert not any(rung.deforms for rung in (second, *others))
    assert not any(rung.deforms for rung in ladder(RateConfig(motion_step=None)))


def test_deformations_leave_room_for_keyframes() -> None:
    cost_bps = wire_bps(ladder(RateConfig())[0], 40)
    assert Bench(RateConfig(max_bps=1.05 * cost_bps)).run(5000).level == 1
    assert Bench(RateConfig(max_bps=1.2 * cost_bps)).run(5000).level == 0


@pytest.mark.parametrize("tick_ms", [40, 80, 120])
def test_after_a_fall_deformations_come_back(tick_ms: int) -> None:
    bench = Bench(RateConfig(tick_ms=tick_ms, max_bps=60_000))
    bench.hear()
    bench.hear(queue_ms=300, arrived_bps=12_000)
    assert bench.step().level >= 2
    assert bench.run(30_000).level == 0


def test_without_a_limit_the_wishes_are_met() -> None:
    decision = Bench(RateConfig()).run(5000)
    assert decision.level == 0 and decision.rung.step == 2 and decision.rung.tick_ms == 80
    assert not decision.repeat_audio


@pytest.mark.parametrize("max_kbps", [10, 13, 16, 18, 20, 24, 30])
def test_a_cap_is_kept(max_kbps: float) -> None:
    bench = Bench(RateConfig(max_bps=max_kbps * 1000))
    decision = bench.run(60_000)
    assert wire_bps(decision.rung, 40) <= max_kbps * 1000
    slices_bps = (decision.slice_bytes + 85) * 8000 / decision.slice_interval_ms
    assert decision.target_bps <= max_kbps * 1000
    assert wire_bps(decision.rung, 40) + slices_bps <= max_kbps * 1000 + 1000


def test_a_queue_makes_it_send_less_than_arrives() -> None:
    bench = Bench(RateConfig())
    bench.hear()
    bench.hear(queue_ms=200, arrived_bps=12_000)
    assert bench.rate.target_bps == pytest.approx(0.85 * 12_000, rel=0.01)
    assert wire_bps(bench.step().rung, 40) < 12_000


def test_it_decreases_once_for_one_queue() -> None:
    bench = Bench(RateConfig())
    bench.hear()
    bench.hear(queue_ms=200, arrived_bps=12_000)
    before = bench.rate.target_bps
    bench.rate.on_report(replace(bench.report, queue_ms=190), bench.now_ms + 300)
    assert bench.rate.target_bps == before


def test_a_queue_that_shrinks_is_left_to_shrink() -> None:
    bench = Bench(RateConfig())
    bench.hear()
    bench.hear(queue_ms=400, arrived_bps=12_000)
    before = bench.rate.target_bps
    bench.hear(queue_ms=250, arrived_bps=10_000)
    bench.hear(queue_ms=180, arrived_bps=10_000)
    assert bench.rate.target_bps >= before
    bench.hear(queue_ms=190, arrived_bps=12_000)
    assert bench.rate.target_bps < before


def test_after_a_fall_it_is_back_within_ten_seconds() -> None:
    bench = Bench(RateConfig(max_bps=24_000))
    bench.hear()
    bench.hear(queue_ms=200, arrived_bps=12_000)
    assert bench.step().level >= 3
    levels = [bench.step().level for _ in range(100)]
    assert levels[-1] == 1  # all but the deformation, which has no room
    assert all(later >= earlier - 1 for earlier, later in pairwise(levels))  # one rung at a time


def test_the_estimate_stays_near_what_was_really_sent() -> None:
    bench = Bench(RateConfig())
    bench.hear()
    bench.hear(queue_ms=200, arrived_bps=12_000)
    bench.run(60_000)
    assert bench.rate.target_bps <= 1.5 * wire_bps(bench.decision.rung, 40) * 1.05


def test_a_backlog_at_this_end_counts_as_a_full_link() -> None:
    bench = Bench(RateConfig())
    bench.run(3000)
    bench.run(200, backlog_bytes=500)
    assert bench.decision.level == 0
    assert bench.run(200, backlog_bytes=500).target_bps < 20_000


def test_a_few_losses_repeat_speech_and_many_lower_the_rate() -> None:
    bench = Bench(RateConfig())
    for _ in range(6):
        bench.hear(received=24, lost=1)
    decision = bench.step()
    assert decision.repeat_audio and decision.level == 0
    for _ in range(3):
        bench.hear(received=8, lost=6, arrived_bps=13_000)
    assert bench.step().level > 0
    for _ in range(8):
        bench.hear(received=24)
    assert not bench.step().repeat_audio


def test_one_lost_packet_of_a_few_says_nothing() -> None:
    bench = Bench(RateConfig())
    bench.rate.on_report(Report(3, 1, 0, 0.0, 40.0, 0, 900, 0.0, 3, 1.0), 100)
    assert not bench.step().repeat_audio


def test_a_slow_link_is_for_the_first_picture_first() -> None:
    bench = Bench(RateConfig(max_bps=24_000))
    before, after = bench.step(showing=False), bench.step(showing=True)
    assert not before.rung.motion and after.rung.motion
    assert before.slice_bytes / before.slice_interval_ms > 1.5 * after.slice_bytes / after.slice_interval_ms
    assert bench.step().keyframe_bits_per_minute < 0.5 * 60 * 24_000


def test_a_fast_link_gets_large_slices_at_the_start_and_careful_ones_later() -> None:
    bench = Bench(RateConfig())
    assert bench.step(showing=False).slice_bytes == MAX_SLICE_BYTES
    late = bench.run(6000)
    per_slice_ms = (late.slice_bytes + 85) * 8000 / (1.5 * wire_bps(late.rung, 40))
    assert per_slice_ms < 80 + 40


def test_half_floats_climb_down_the_same_ladder() -> None:
    bench = Bench(RateConfig(motion_step=None, max_bps=30_000))
    rung = bench.run(1000).rung
    assert rung.step is None and rung.every == 2
