"""The jitter buffer on a simulated link, in virtual time."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avcall.types import AccessUnit, MediaKind
from receiver.jitterbuffer import MAX_TRANSITS, JitterBuffer, JitterBufferConfig, JitterState
from tests.units import audio_unit, motion_unit

TICK_MS = 80
INFERENCE_MS = 100  # by which motion is later than audio
CLOCK_OFFSET_MS = 12_345.0  # between the clocks of the two ends
STEP_MS = 10


@dataclass
class Playout:
    """What a receiver that follows the media time has seen, one entry a step."""

    now_ms: list[float] = field(default_factory=list)
    media_ms: list[float | None] = field(default_factory=list)
    delay_ms: list[float] = field(default_factory=list)
    motion: list[tuple[float, int]] = field(default_factory=list)  # (now, pts)
    audio: list[tuple[float, int]] = field(default_factory=list)

    def speed(self, start_ms: float, end_ms: float) -> list[float]:
        """Media time per real time of each step between two instants."""
        at = dict(zip(self.now_ms, self.media_ms, strict=True))
        steps = [now for now in self.now_ms if start_ms <= now < end_ms]
        return [
            (late - early) / (b - a)
            for a, b in itertools.pairwise(steps)
            if (early := at[a]) is not None and (late := at[b]) is not None
        ]

    def delay_at(self, now_ms: float) -> float:
        return self.delay_ms[self.now_ms.index(now_ms)]


def arrivals(
    seconds: float, delay: Callable[[float], float | None], drift: float = 0.0
) -> list[tuple[float, AccessUnit]]:
    """(arrival, unit) of a call whose packets take `delay(sent_ms)`, None for a lost one.

    `drift` is how much faster the sender's clock runs than ours.
    """
    result = []
    for tick in range(1, int(seconds * 1000 / TICK_MS)):
        sent_ms = tick * TICK_MS
        took_ms = delay(sent_ms)
        if took_ms is None:
            continue
        arrival_ms = sent_ms / (1 + drift) + took_ms
        result += [(arrival_ms, audio_unit(pts_ms)) for pts_ms in (sent_ms - 80, sent_ms - 40)]
        for pts_ms in range(0, sent_ms, 40):
            ready_ms = pts_ms + 40 + INFERENCE_MS
            if sent_ms - TICK_MS < ready_ms <= sent_ms:
                result.append((arrival_ms, motion_unit(pts_ms)))
    return sorted(result, key=lambda pair: pair[0])


def play(buffer: JitterBuffer, units: list[tuple[float, AccessUnit]], seconds: float) -> Playout:
    """Push the units as they arrive; every 10 ms ask what is due, as the playout does."""
    seen = Playout()
    waiting = iter(units)
    upcoming = next(waiting, None)
    audio_ms: float | None = None
    for now_ms in range(0, int(seconds * 1000), STEP_MS):
        clock_ms = now_ms + CLOCK_OFFSET_MS
        while upcoming is not None and upcoming[0] <= now_ms:
            buffer.push(upcoming[1], upcoming[0] + CLOCK_OFFSET_MS)
            upcoming = next(waiting, None)
        media_ms = buffer.media_time_ms(clock_ms)
        seen.now_ms.append(now_ms)
        seen.media_ms.append(media_ms)
        seen.delay_ms.append(buffer.playout_delay_ms)
        if media_ms is None:
            audio_ms = None
            continue
        seen.motion += [(now_ms, unit.pts_ms) for unit in buffer.pop_motion(media_ms)]
        audio_ms = media_ms if audio_ms is None else audio_ms
        while audio_ms <= media_ms:
            unit = buffer.pop_audio(audio_ms)
            if unit is not None:
                seen.audio.append((now_ms, unit.pts_ms))
            audio_ms = audio_ms + 40 if unit is None else unit.pts_ms + unit.duration_ms
    return seen


def never_goes_back(seen: Playout) -> bool:
    known = [media_ms for media_ms in seen.media_ms if media_ms is not None]
    return all(late >= early for early, late in itertools.pairwise(known))


def test_a_steady_link_plays_everything_at_a_steady_pace() -> None:
    buffer = JitterBuffer()
    seen = play(buffer, arrivals(20, lambda _: 50), 20)
    assert buffer.state is JitterState.PLAYING
    assert set(seen.speed(3000, 20_000)) == {1.0}
    assert buffer.stats().late <= 1  # the first picture, before it is known how late motion is
    assert len(seen.audio) > 480
    # Audio waits up to 40 ms longer for its tick, motion 100 ms + up to a tick for its picture.
    assert INFERENCE_MS <= buffer.playout_delay_ms <= INFERENCE_MS + TICK_MS + 10


def test_motion_and_speech_of_one_moment_are_due_together() -> None:
    seen = play(JitterBuffer(), arrivals(10, lambda _: 50), 10)
    spoken = {pts_ms: now_ms for now_ms, pts_ms in seen.audio}
    skews = [now_ms - spoken[pts_ms] for now_ms, pts_ms in seen.motion if pts_ms > 2000 and pts_ms in spoken]
    assert len(skews) > 150
    assert max(map(abs, skews)) <= STEP_MS


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.1])
def test_lost_packets_cost_themselves_only(loss: float) -> None:
    rng = random.Random(3)
    units = arrivals(30, lambda _: None if rng.random() < loss else 40 + rng.uniform(0, 30))
    buffer = JitterBuffer()
    seen = play(buffer, units, 30)
    stats = buffer.stats()
    sent = sum(1 for _, unit in units if unit.kind is MediaKind.MOTION)
    assert len(seen.motion) >= 0.97 * sent - 10  # the last few still wait
    assert stats.late <= 0.05 * len(units)
    assert stats.resyncs == 0
    assert never_goes_back(seen)
    assert [pts for _, pts in seen.motion] == sorted(pts for _, pts in seen.motion)


def test_reordered_and_repeated_units_come_out_once_and_in_order() -> None:
    rng = random.Random(4)
    units = arrivals(10, lambda _: 40 + rng.uniform(0, 200))
    buffer = JitterBuffer()
    seen = play(buffer, sorted(units + [(at + 5, unit) for at, unit in units], key=lambda pair: pair[0]), 11)
    for played in (seen.motion, seen.audio):
        pts = [pts_ms for _, pts_ms in played]
        assert pts == sorted(set(pts))
    assert buffer.stats().accepted >= 0.9 * len(units)
    assert buffer.stats().accepted + buffer.stats().late + buffer.stats().duplicate == 2 * len(units)


def test_it_starves_and_recovers_from_a_stall_whose_packets_come_late() -> None:
    def delay(sent_ms: float) -> float:
        return max(50.0, 5350 - sent_ms) if 5000 <= sent_ms < 5300 else 50.0

    buffer = JitterBuffer()
    seen = play(buffer, arrivals(12, delay), 12)
    assert buffer.stats().resyncs == 0
    assert buffer.state is JitterState.PLAYING
    assert never_goes_back(seen)
    assert {round(speed, 3) for speed in seen.speed(7000, 9000)} <= {1.0, 0.95, 1.05}
    after = [pts for _, pts in seen.motion if pts > 5500]
    assert after == list(range(5520, after[-1] + 1, 40))  # nothing is missing once the stall is over


@pytest.mark.parametrize("stall_ms", [300, 1500])
def test_it_starves_and_recovers_from_a_stall_whose_packets_are_lost(stall_ms: int) -> None:
    def delay(sent_ms: float) -> float | None:
        return None if 5000 <= sent_ms < 5000 + stall_ms else 50.0

    buffer = JitterBuffer()
    states = []
    units = arrivals(12, delay)
    before = play(buffer, [pair for pair in units if pair[0] < 5000], 5)
    for now_ms in range(5000, 5000 + stall_ms, STEP_MS):
        buffer.media_time_ms(now_ms + CLOCK_OFFSET_MS)
        states.append(buffer.state)
    assert states[0] is JitterState.PLAYING
    assert states[-1] is JitterState.STARVED
    buffer.push(audio_unit(5000 + stall_ms), 5000 + stall_ms + 130 + CLOCK_OFFSET_MS)
    assert buffer.state is JitterState.PLAYING
    assert buffer.stats().starvations == 1
    last_ms = before.media_ms[-1]
    resumed_ms = buffer.media_time_ms(5000 + stall_ms + 130 + CLOCK_OFFSET_MS)
    assert last_ms is not None
    assert resumed_ms is not None
    assert resumed_ms - last_ms == pytest.approx(stall_ms + 140, abs=80)  # the clock ran on


def test_after_a_long_silence_it_fills_again() -> None:
    buffer = JitterBuffer()
    seen = play(buffer, arrivals(15, lambda sent: None if 4000 <= sent < 9000 else 50.0), 15)
    stats = buffer.stats()
    assert (stats.resyncs, stats.starvations) == (1, 1)
    assert stats.state is JitterState.PLAYING
    resumed = seen.media_ms[950:]
    assert None not in resumed
    assert max(pts for _, pts in seen.motion) > 14_500


def test_a_spike_raises_the_delay_at_once_and_gives_it_back_slowly() -> None:
    rng = random.Random(5)

    def delay(sent_ms: float) -> float:
        return 50 + (rng.uniform(0, 300) if 6000 <= sent_ms < 9000 else 0)

    buffer = JitterBuffer()
    seen = play(buffer, arrivals(35, delay), 35)
    calm, raised, end = seen.delay_at(5900), seen.delay_at(9000), seen.delay_at(34_000)
    assert raised > calm + 100
    assert end == pytest.approx(calm, abs=5)
    assert never_goes_back(seen)
    assert max(seen.speed(0, 35_000)) <= 1.05 + 1e-6
    assert max(seen.speed(19_000, 30_000)) == pytest.approx(1.05)  # it does catch up
    assert min(seen.speed(10_000, 35_000)) > 0.9  # and without a stop
    assert buffer.stats().resyncs == 0


def test_a_route_that_gets_longer_for_good_is_followed() -> None:
    buffer = JitterBuffer()
    seen = play(buffer, arrivals(40, lambda sent: 50.0 if sent < 8000 else 350.0), 40)
    assert buffer.stats().resyncs == 0
    late_end = [pts for now, pts in seen.motion if now > 12_000]
    assert late_end == list(range(late_end[0], late_end[-1] + 1, 40))
    assert seen.delay_at(39_000) == pytest.approx(seen.delay_at(7000), abs=5)
    assert min(seen.speed(12_000, 40_000)) >= 1.0 - 1e-6  # base rises, jitter falls: no second stop


def test_a_route_that_gets_shorter_is_caught_up_with_smoothly() -> None:
    buffer = JitterBuffer()
    seen = play(buffer, arrivals(40, lambda sent: 350.0 if sent < 8000 else 50.0), 40)
    speeds = seen.speed(8000, 39_000)
    assert max(speeds) == pytest.approx(1.05)
    assert min(speeds) >= 1.0 - 1e-6
    assert seen.delay_at(39_000) == pytest.approx(seen.delay_at(7000), abs=5)
    assert buffer.stats().late <= 1


@pytest.mark.parametrize("drift", [-300e-6, 300e-6])
def test_a_drifting_clock_is_followed_without_a_jump(drift: float) -> None:
    buffer = JitterBuffer()
    seconds = 120
    seen = play(buffer, arrivals(seconds, lambda _: 50.0, drift), seconds)
    assert set(map(bool, seen.media_ms[100:])) == {True}
    assert seen.delay_at(119_000) == pytest.approx(seen.delay_at(10_000), abs=10)
    speeds = seen.speed(10_000, 119_000)
    assert sum(speeds) / len(speeds) == pytest.approx(1 + drift, abs=1e-4)
    assert buffer.stats().late <= 5


def test_a_sender_clock_that_jumps_is_followed_after_a_second() -> None:
    jumped = [
        (at, unit if at < 5000 else audio_unit(unit.pts_ms + 600_000))
        for at, unit in arrivals(10, lambda _: 50.0)
        if unit.kind is MediaKind.AUDIO
    ]
    buffer = JitterBuffer()
    seen = play(buffer, jumped, 10)
    assert buffer.stats().resyncs == 1
    assert 20 <= buffer.stats().implausible <= 30
    last_ms = seen.media_ms[-1]
    assert last_ms is not None
    assert last_ms > 600_000
    assert buffer.state is JitterState.PLAYING


def test_one_absurd_pts_changes_nothing() -> None:
    units = arrivals(10, lambda _: 50.0)
    calm = play(JitterBuffer(), units, 10)
    buffer = JitterBuffer()
    absurd = [(5000.0, motion_unit(4_000_000_000)), (5001.0, audio_unit(3_000_000_000))]
    seen = play(buffer, sorted(units + absurd, key=lambda pair: pair[0]), 10)
    assert seen.media_ms == calm.media_ms
    assert buffer.stats().implausible == 2


def test_a_call_longer_than_the_limit_is_played_at_the_limit() -> None:
    rng = random.Random(6)
    buffer = JitterBuffer(JitterBufferConfig(max_delay_ms=200))
    play(buffer, arrivals(10, lambda _: rng.uniform(0, 1000)), 10)
    assert buffer.playout_delay_ms <= 200 + 50  # a falling base counts until the slow lowering follows
    assert buffer.stats().late > 0


def test_it_waits_for_the_delay_before_it_plays() -> None:
    buffer = JitterBuffer(JitterBufferConfig(min_delay_ms=100))
    assert buffer.media_time_ms(0) is None
    assert buffer.push(audio_unit(0), 10)
    assert buffer.media_time_ms(100) is None
    assert buffer.state is JitterState.FILLING
    assert buffer.media_time_ms(110) == 0
    assert buffer.state is JitterState.PLAYING


def test_capacity_is_bounded_and_the_oldest_go() -> None:
    buffer = JitterBuffer(JitterBufferConfig(capacity_units=10))
    for i in range(15):
        assert buffer.push(motion_unit(40 * i), 0)
    assert buffer.stats().buffered_motion == 10
    assert buffer.stats().overflowed == 5
    assert [unit.pts_ms for unit in buffer.pop_motion(1000)] == [40 * i for i in range(5, 15)]


def test_a_flood_pushes_old_transits_out_of_memory() -> None:
    buffer = JitterBuffer()
    for i in range(100):
        buffer.push(motion_unit(i), i + 300)
    assert buffer.push(motion_unit(1000), 1000)
    assert buffer.stats().jitter_ms == 300
    for i in range(1001, 1001 + MAX_TRANSITS):
        buffer.push(motion_unit(i), i)
    assert buffer.stats().jitter_ms == 0


def test_pop_audio_gives_the_unit_that_covers_the_moment() -> None:
    buffer = JitterBuffer()
    for pts_ms in (0, 40, 120, 160):
        buffer.push(audio_unit(pts_ms), 0)
    assert buffer.pop_audio(50) == audio_unit(40)
    assert buffer.pop_audio(80) is None
    assert buffer.pop_audio(120) == audio_unit(120)
    assert buffer.stats().skipped == 1
    assert buffer.stats().buffered_audio == 1


def test_late_is_what_no_longer_covers_the_moment() -> None:
    buffer = JitterBuffer()
    buffer.pop_audio(100)
    buffer.pop_motion(100)
    assert not buffer.push(audio_unit(60), 100)
    assert buffer.push(audio_unit(80), 100)
    assert buffer.pop_audio(100) == audio_unit(80)
    assert not buffer.push(audio_unit(80), 101)
    assert not buffer.push(motion_unit(60), 101)
    assert buffer.push(motion_unit(64), 101)
    assert buffer.stats().late == 2
    assert buffer.stats().duplicate == 1  # the one that was played already


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 500), st.booleans()), max_size=80))
def test_any_pts_keeps_memory_bounded_and_media_time_monotonic(pushes: list[tuple[int, int, bool]]) -> None:
    buffer = JitterBuffer(JitterBufferConfig(capacity_units=8))
    now_ms, before = 0.0, None
    for pts_ms, wait_ms, is_motion in pushes:
        now_ms += wait_ms
        resyncs = buffer.stats().resyncs
        buffer.push(motion_unit(pts_ms) if is_motion else audio_unit(pts_ms), now_ms)
        media_ms = buffer.media_time_ms(now_ms)
        if buffer.stats().resyncs == resyncs and before is not None and media_ms is not None:
            assert media_ms >= before
        before = media_ms
    stats = buffer.stats()
    assert stats.buffered_audio <= 8
    assert stats.buffered_motion <= 8
    assert stats.accepted + stats.late + stats.duplicate + stats.implausible == len(pushes)
