"""Playout on its own: both media by hand, pulls every 20 ms."""

from collections.abc import Iterator

import numpy as np
import pytest

from avcall.bitstream import motion
from avcall.bitstream.motion import MotionMode
from avcall.types import FRAME_MS, AccessUnit, MediaKind, MotionFrame, Pcm
from receiver.mel import MelWindows
from receiver.playout import AUDIO_GONE_MS, MAX_CONCEALED_FRAMES, Playout, Sound
from sender.audio_encode import OpusEncoder
from tests.clips import tone_level
from tests.fakes import still_keypoints, tone_chunks

PULL_MS = 20


def motion_at(pts_ms: int, x: float = 0.0) -> AccessUnit:
    payload = motion.encode(MotionMode.FP16, still_keypoints(x))
    return AccessUnit(MediaKind.MOTION, pts_ms, FRAME_MS, payload)


def speech_units(count: int) -> Iterator[AccessUnit]:
    encoder = OpusEncoder()
    for chunk in tone_chunks(count):
        yield from encoder.encode(chunk)


class Bench:
    """A playout with units that arrive `transit_ms` after their end; pulls when the time runs."""

    def __init__(self, transit_ms: int = 50, latency_ms: float = 0.0) -> None:
        self.speech = MelWindows()
        self.playout = Playout(self.speech)
        self.now_ms = 0
        self.latency_ms = latency_ms
        self.sounds: list[tuple[int, Sound]] = []
        self.motion: list[tuple[int, MotionFrame]] = []
        self.arrivals: dict[int, list[AccessUnit]] = {}
        self.transit_ms = transit_ms
        self.pulling = True

    def expect(self, unit: AccessUnit, late_ms: int = 0) -> None:
        due_ms = unit.pts_ms + unit.duration_ms + self.transit_ms + late_ms
        self.arrivals.setdefault(due_ms, []).append(unit)

    def run_until(self, end_ms: int, lead_ms: float = 0.0) -> None:
        while self.now_ms < end_ms:
            for unit in self.arrivals.pop(self.now_ms, []):
                self.playout.push(unit, self.now_ms)
            if self.pulling and self.now_ms % PULL_MS == 0:
                sound = self.playout.pull(PULL_MS * 16, self.now_ms, self.latency_ms)
                self.sounds.append((self.now_ms, sound))
            for frame in self.playout.due_motion(self.now_ms, lead_ms):
                self.motion.append((self.now_ms, frame))
            self.now_ms += 1

    def pcm(self, start_ms: int, end_ms: int) -> Pcm:
        return np.concatenate([sound.pcm for at_ms, sound in self.sounds if start_ms <= at_ms < end_ms])


def talking(seconds: int = 3, **options: float) -> Bench:
    bench = Bench(**options)  # type: ignore[arg-type]
    for unit in speech_units(seconds * 25):
        bench.expect(unit)
    return bench


def test_before_anything_came_there_is_silence_and_no_clock() -> None:
    playout = Playout(MelWindows())
    sound = playout.pull(320, 0, 0)
    assert sound.pts_ms is None and len(sound.pcm) == 320 and not sound.pcm.any()
    assert playout.clock_ms(10) is None and playout.due_motion(10, 30) == []


def test_every_sample_is_heard_once_and_named_by_its_time() -> None:
    bench = talking()
    bench.run_until(2800)
    named = [(at_ms, sound.pts_ms) for at_ms, sound in bench.sounds if sound.pts_ms is not None]
    assert len(named) > 125
    assert np.diff([pts_ms for _, pts_ms in named]).tolist() == [PULL_MS] * (len(named) - 1)
    assert tone_level(bench.pcm(500, 2500), 440) > 7500
    stats = bench.playout.stats()
    assert (stats.concealed_audio_ms, stats.corrections, stats.waits) == (0, 0, 0)


def test_the_sound_lies_where_its_pts_says() -> None:
    bench = talking()
    bench.run_until(2000)
    pcm = np.concatenate([sound.pcm for _, sound in bench.sounds if sound.pts_ms is not None]).astype(float)
    first = next(sound.pts_ms for _, sound in bench.sounds if sound.pts_ms is not None)
    sent = np.concatenate([chunk.pcm for chunk in tone_chunks(75)]).astype(float)
    part = pcm[8000:16_000]
    lags = range(-20, 21)
    scores = [float(part @ sent[first * 16 + 8000 + lag :][:8000]) for lag in lags]
    assert abs(lags[int(np.argmax(scores))]) <= 8  # half a millisecond


@pytest.mark.parametrize("latency_ms", [0.0, 60.0])
def test_the_clock_is_what_is_heard_now(latency_ms: float) -> None:
    bench = talking(latency_ms=latency_ms)
    bench.run_until(1001)
    at_ms, sound = bench.sounds[-1]
    assert at_ms == 1000 and sound.pts_ms is not None
    for later_ms in (0, 7, 19):
        assert bench.playout.clock_ms(1000 + later_ms) == sound.pts_ms + later_ms - latency_ms
    # Sound that was not pulled yet cannot be heard, however late the pull is.
    assert bench.playout.clock_ms(1300) == sound.pts_ms + PULL_MS


def test_without_pulls_the_clock_goes_on_by_itself() -> None:
    bench = talking()
    bench.run_until(1000)
    bench.pulling = False
    stuck = bench.playout.clock_ms(1400)
    assert stuck == bench.playout.clock_ms(1450)
    free = bench.playout.clock_ms(1000 + AUDIO_GONE_MS + 100)
    later = bench.playout.clock_ms(1000 + AUDIO_GONE_MS + 200)
    assert free is not None and later is not None and stuck is not None
    assert free > stuck + 100 and later == free + 100


def test_a_lost_unit_is_concealed() -> None:
    bench = Bench()
    for number, unit in enumerate(speech_units(75)):
        if number != 30:
            bench.expect(unit)
    bench.run_until(2800)
    assert bench.playout.stats().concealed_audio_ms == 40
    assert tone_level(bench.pcm(500, 2500), 440) > 7000


def test_silence_that_was_never_sent_is_not_counted_as_concealed() -> None:
    bench = talking(seconds=1)
    bench.run_until(10_000)
    assert bench.playout.stats().concealed_audio_ms <= 1000


def test_without_a_microphone_there_is_no_speech_to_go_by() -> None:
    bench = Bench()
    for pts_ms in range(0, 2000, FRAME_MS):
        bench.expect(motion_at(pts_ms))
    bench.run_until(2000)
    assert bench.playout.stats().concealed_audio_ms == 0
    assert bench.speech.window(1000)[1] is False
    assert len(bench.motion) > 40


def test_a_unit_that_does_not_decode_is_counted_and_bridged(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    for number, unit in enumerate(speech_units(50)):
        broken = AccessUnit(MediaKind.AUDIO, unit.pts_ms, 60, unit.payload)  # it lasts 40 ms
        bench.expect(broken if number == 25 else unit)
    bench.run_until(2000)
    assert bench.playout.stats().dropped == {"AudioFormatError": 1}
    assert tone_level(bench.pcm(1300, 1900), 440) > 7000


def test_speech_is_decoded_ahead_for_the_mel_window() -> None:
    bench = talking(transit_ms=0)
    for pts_ms in range(0, 3000, FRAME_MS):
        bench.expect(motion_at(pts_ms), late_ms=150)  # so that speech is early
    bench.run_until(2000)
    clock_ms = bench.playout.clock_ms(2000)
    assert clock_ms is not None
    ahead = bench.speech.window(int(clock_ms) + 60)[0]
    assert (ahead.max(0) > 0.3).all()  # no part of the window is silent yet


def test_a_speaker_that_is_slow_or_fast_is_followed() -> None:
    for pull_ms in (20.2, 19.8):
        bench = talking(seconds=10)
        due_ms, drifts_ms = 0.0, []
        for now_ms in range(9500):
            for unit in bench.arrivals.pop(now_ms, []):
                bench.playout.push(unit, now_ms)
            if now_ms >= due_ms:
                due_ms += pull_ms
                sound = bench.playout.pull(320, now_ms, 0)
                if sound.pts_ms is not None:
                    drifts_ms.append(now_ms - sound.pts_ms)
        assert bench.playout.stats().corrections >= 4
        assert max(drifts_ms) - min(drifts_ms) < 50
        assert bench.playout.stats().concealed_audio_ms < 100


def test_when_the_delay_grows_the_sound_waits_instead_of_slurring() -> None:
    bench = Bench()
    for number, unit in enumerate(speech_units(150)):
        bench.expect(unit, late_ms=200 if number >= 50 else 0)
    bench.run_until(5900)
    stats = bench.playout.stats()
    assert 4 <= stats.waits <= 12
    fillers = [at_ms for at_ms, sound in bench.sounds if sound.pts_ms is None and at_ms > 1000]
    assert len(fillers) == stats.waits
    assert tone_level(bench.pcm(4000, 5500), 440) > 6000
    assert bench.playout.stats().jitter.playout_delay_ms >= 190


def test_motion_is_handed_out_its_drawing_time_early() -> None:
    bench = talking()
    for number, pts_ms in enumerate(range(0, 2800, FRAME_MS)):
        bench.expect(motion_at(pts_ms, number / 100))
    bench.run_until(2500, lead_ms=30)
    for at_ms, frame in bench.motion[10:]:
        clock_ms = next(s.pts_ms + at_ms - t for t, s in reversed(bench.sounds) if t <= at_ms and s.pts_ms)
        assert -31 <= clock_ms - frame.pts_ms <= -29
    assert bench.playout.stats().concealed_frames == 0


def test_motion_that_takes_long_to_draw_is_waited_for() -> None:
    for lead_ms in (10, 90):
        bench = talking()
        for pts_ms in range(0, 2800, FRAME_MS):
            bench.expect(motion_at(pts_ms))
        bench.run_until(1000, lead_ms=lead_ms)
        late_at_first = bench.playout.stats().late_frames  # until the delay has grown
        bench.run_until(2500, lead_ms=lead_ms)
        stats = bench.playout.stats()
        assert late_at_first <= 3 and stats.late_frames == late_at_first
        assert stats.concealed_frames == 0
        assert len([at_ms for at_ms, _ in bench.motion if at_ms > 1000]) >= 37


def test_a_missing_frame_is_made_up_and_the_picture_then_holds() -> None:
    bench = talking()
    for number, pts_ms in enumerate(range(0, 1200, FRAME_MS)):
        bench.expect(motion_at(pts_ms, number * 0.01))
    bench.run_until(2500)
    assert bench.playout.stats().concealed_frames == MAX_CONCEALED_FRAMES
    made_up = [frame for _, frame in bench.motion][-MAX_CONCEALED_FRAMES:]
    assert [frame.pts_ms for frame in made_up] == [1200, 1240, 1280]
    xs = [float(frame.keypoints.values[0, 0]) for frame in made_up]
    assert 0.29 < xs[0] < xs[1] < xs[2] < 0.30  # it goes on, ever slower


def test_a_frame_that_comes_after_it_was_made_up_is_not_shown_again() -> None:
    bench = talking()
    for pts_ms in range(0, 2800, FRAME_MS):
        bench.expect(motion_at(pts_ms), late_ms=120 if pts_ms == 1600 else 0)
    bench.run_until(2500)
    shown = [frame.pts_ms for _, frame in bench.motion]
    assert shown == sorted(set(shown)) and 1600 in shown
    assert bench.playout.stats().concealed_frames == 1


def test_an_irregular_camera_gets_no_made_up_frames() -> None:
    """30 frames a second thinned to one in each 40 ms: 33 and 67 ms apart."""
    bench = talking()
    times = sorted({number * 100 // 3 // 40: number * 100 // 3 for number in range(80, -1, -1)}.values())
    for pts_ms in times:
        bench.expect(motion_at(pts_ms))
    bench.run_until(2400)
    assert max(np.diff(times)) > 60
    assert bench.playout.stats().concealed_frames == 0


def test_motion_that_does_not_parse_is_counted() -> None:
    bench = talking()
    bench.expect(AccessUnit(MediaKind.MOTION, 400, FRAME_MS, b"\xff" * 120))
    bench.run_until(1000)
    assert bench.playout.stats().dropped == {"MotionError": 1}


@pytest.mark.parametrize("restart_ms", [0, 600_000])
def test_a_sender_whose_clock_jumps_is_followed(restart_ms: int) -> None:
    bench = Bench()
    for unit in speech_units(125):
        bench.expect(unit)
    for pts_ms in range(0, 5000, FRAME_MS):
        bench.expect(motion_at(pts_ms))
    bench.run_until(5000, lead_ms=30)
    shown_before = len(bench.motion)
    for start in (speech_units(200), (motion_at(pts_ms) for pts_ms in range(0, 8000, FRAME_MS))):
        for unit in start:
            moved = AccessUnit(unit.kind, unit.pts_ms + restart_ms, unit.duration_ms, unit.payload)
            bench.arrivals.setdefault(5000 + unit.pts_ms + 90, []).append(moved)
    bench.run_until(12_000, lead_ms=30)
    assert bench.playout.stats().jitter.resyncs == 1
    recent = [(at_ms, frame) for at_ms, frame in bench.motion[shown_before:] if at_ms > 8000]
    assert len(recent) >= 95
    assert all(0 <= frame.pts_ms - restart_ms <= 8000 for _, frame in recent)
    assert tone_level(bench.pcm(8000, 11_000), 440) > 7000
