"""The receiver's pipeline over a loopback in real time, with fakes at its outputs; a second or two each."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from avcall.bitstream.control import Bye, Hello, KeyframeAck, KeyframeRequest, Report
from avcall.clock import ManualClock
from avcall.errors import AudioDeviceError, AvcallError, PeerLostError, RecordingError, VersionError
from avcall.transport.base import Channel
from avcall.transport.loopback import loopback_pair
from avcall.types import VideoFrame
from receiver.pipeline import Outputs, Screen
from receiver.playout import Playout
from receiver.record import Recorder
from tests.clips import tone_level
from tests.fakes import FakeDisplay, FakeSpeaker, grey_picture
from tests.receiver_bench import CLOCK, ReceiverBench
from tests.units import make_still


@pytest.fixture
async def bench() -> AsyncIterator[ReceiverBench]:
    near, far = loopback_pair(CLOCK)
    made = ReceiverBench(near, far)
    yield made
    await made.caller.stop()


class StoppedPlayout:
    """A playout whose clock reads `heard_ms`."""

    heard_ms: float | None = 1000.0

    def clock_ms(self, now_ms: float) -> float | None:
        return self.heard_ms


class ScreenBench:
    """A screen with clocks that are set by hand."""

    def __init__(self) -> None:
        self.playout, self.clock, self.display = StoppedPlayout(), ManualClock(), FakeDisplay()
        core = SimpleNamespace(playout=self.playout)
        self.screen = Screen(core, Outputs(self.display, None), self.clock, threading.Event())  # type: ignore[arg-type]

    def push(self, *pts_ms: int) -> None:
        for pts in pts_ms:
            self.screen.push(VideoFrame(grey_picture(0), pts))

    def run(self) -> list[int]:
        """Everything that is due now; the pts of all that were shown so far."""
        while self.screen.step():
            pass
        return [pts_ms for pts_ms, _ in self.display.shown]


def test_a_picture_waits_for_its_sound() -> None:
    bench = ScreenBench()
    bench.push(1000, 1040)
    assert bench.run() == [1000]
    bench.playout.heard_ms = 1039.0
    assert bench.run() == [1000]
    bench.playout.heard_ms = 1040.0
    assert bench.run() == [1000, 1040]
    assert bench.screen.stats().worst_skew_ms == 0


def test_of_two_pictures_that_are_due_the_newer_is_shown() -> None:
    bench = ScreenBench()
    bench.push(960, 1000, 1040)
    assert bench.run() == [1000]
    assert bench.screen.stats().skipped == 1


def test_a_picture_that_lags_the_sound_too_much_is_left_out_unless_the_screen_stands_still() -> None:
    bench = ScreenBench()
    bench.push(955)
    assert bench.run() == [955]
    bench.push(954)
    assert bench.run() == [955]
    bench.clock.advance(600)
    bench.push(953)
    assert bench.run() == [955, 953]
    stats = bench.screen.stats()
    assert (stats.shown, stats.skipped, stats.worst_skew_ms) == (2, 1, 47)


def test_pictures_of_another_time_do_not_hold_the_screen_up() -> None:
    bench = ScreenBench()
    bench.push(600_000)
    assert bench.run() == [600_000]
    bench.playout.heard_ms = None
    bench.push(600_040)
    assert bench.run() == [600_000, 600_040]


async def test_it_shows_and_plays_until_the_caller_hangs_up(bench: ReceiverBench) -> None:
    task = await bench.talking(pictures=25)
    bench.caller.tell(Bye("done"))
    assert await asyncio.wait_for(task, 5) == "the other side ended the call: done"
    await bench.caller.drain()
    assert bench.caller.told(KeyframeAck) and bench.caller.told(Hello) and bench.caller.bye is None
    assert bench.caller.told(Report)
    times = [pts_ms for pts_ms, _ in bench.display.shown]
    assert times == sorted(set(times))
    for pts_ms, rgb in bench.display.shown[-5:]:
        assert abs(int(rgb[0, 0, 0]) - (pts_ms % 1000 / 1000 + 1) * 127.5) < 6
    assert tone_level(np.concatenate(bench.speaker.heard[-20:]), 440) > 2000
    bench.assert_all_closed()


async def test_the_snapshot_counts_what_was_shown(bench: ReceiverBench) -> None:
    pipeline = bench.pipeline()
    assert pipeline.snapshot().pictures.shown == 0
    task = asyncio.create_task(pipeline.run())
    bench.caller.send_keyframe()
    bench.caller.talk()
    await bench.caller.until(lambda: len(bench.display.shown) >= 20)
    bench.caller.tell(Bye("done"))
    await task
    snapshot = pipeline.snapshot()
    assert snapshot.pictures.shown == len(bench.display.shown)
    assert snapshot.pictures.first_pts_ms == bench.display.shown[0][0]
    assert snapshot.pictures.last_pts_ms == bench.display.shown[-1][0]
    assert snapshot.stats.keyframes == 1 and snapshot.stats.packets.received_packets > 8
    assert snapshot.elapsed_ms > 700


async def test_a_cancelled_call_tells_the_caller(bench: ReceiverBench) -> None:
    task = await bench.talking()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await bench.caller.drain()
    assert bench.caller.bye == "ended by the user"
    bench.assert_all_closed()


async def test_a_lost_caller_ends_the_call(bench: ReceiverBench) -> None:
    task = await bench.talking()
    await bench.caller.transport.close()
    with pytest.raises(PeerLostError):
        await asyncio.wait_for(task, 5)
    bench.assert_all_closed()


async def test_a_closed_window_ends_the_call(bench: ReceiverBench) -> None:
    task = await bench.talking()
    bench.display.close_by_user = True
    assert await asyncio.wait_for(task, 5) == "the window was closed"
    await bench.caller.drain()
    assert bench.caller.bye == "the window was closed"


async def test_a_caller_of_another_version_ends_the_call(bench: ReceiverBench) -> None:
    task = asyncio.create_task(bench.pipeline().run())
    bench.caller.transport.send(Channel.CONTROL, b"\x21\x00")
    with pytest.raises(VersionError, match="install the same avcall on both sides"):
        await asyncio.wait_for(task, 5)
    await bench.caller.drain()
    assert bench.caller.bye is not None and "version 2" in bench.caller.bye
    bench.assert_all_closed()


async def test_a_keyframe_that_does_not_decode_is_asked_for_again(bench: ReceiverBench) -> None:
    task = asyncio.create_task(bench.pipeline().run())
    bench.caller.send_keyframe(index=1, image=bytes(500))
    await bench.caller.until(lambda: bench.caller.told(KeyframeRequest))
    assert not bench.caller.told(KeyframeAck) and not task.done()
    bench.caller.send_keyframe(index=1)
    await bench.caller.until(lambda: bench.caller.told(KeyframeAck))
    bench.caller.tell(Bye("done"))
    await task
    assert bench.core.stats().packets.dropped == {"KeyframeError": 1}


async def test_a_face_shows_as_soon_as_its_keyframe_is_there(bench: ReceiverBench) -> None:
    task = asyncio.create_task(bench.pipeline().run())
    bench.caller.send_keyframe(index=0)
    await bench.caller.until(lambda: bench.display.stills)
    assert np.abs(bench.display.stills[0].astype(int) - make_still()).mean() < 6
    bench.caller.talk()
    await bench.caller.until(lambda: bench.display.shown)
    bench.caller.send_keyframe(index=1)
    await bench.caller.until(lambda: bench.runtime.has_keyframe(1))
    bench.caller.tell(Bye("done"))
    await task
    assert len(bench.display.stills) == 1


async def test_motion_of_an_unknown_keyframe_is_asked_about(bench: ReceiverBench) -> None:
    task = asyncio.create_task(bench.pipeline().run())
    bench.caller.send_keyframe(index=0)
    bench.caller.talk(index=9)
    await bench.caller.until(lambda: bench.caller.told(KeyframeRequest))
    assert bench.display.shown == []
    bench.caller.send_keyframe(index=9)
    await bench.caller.until(lambda: bench.display.shown)
    bench.caller.tell(Bye("done"))
    await task


async def test_a_recording_that_fails_is_reported_and_the_call_goes_on(
    bench: ReceiverBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.recorder = Recorder(tmp_path / "call.mp4")
    added = bench.recorder.add_video

    def full_disk(rgb: np.ndarray, pts_ms: int) -> None:
        if len(bench.display.shown) == 5:
            raise RecordingError("cannot record to call.mp4 (No space left on device); free some space")
        added(rgb, pts_ms)

    monkeypatch.setattr(bench.recorder, "add_video", full_disk)
    task = await bench.talking(pictures=12)
    assert not task.done()
    bench.caller.tell(Bye("done"))
    await task
    assert isinstance(bench.outputs.failure, RecordingError)
    assert "No space left" in str(bench.outputs.failure)
    bench.assert_all_closed()


async def test_a_recording_holds_picture_and_sound_from_its_start(
    bench: ReceiverBench, tmp_path: Path
) -> None:
    bench.recorder = Recorder(tmp_path / "call.mp4")
    task = await bench.talking(pictures=12)
    bench.caller.tell(Bye("done"))
    await task
    assert bench.outputs.failure is None
    assert bench.outputs.start_pts_ms is not None and bench.outputs.start_pts_ms < 1000
    assert (tmp_path / "call.mp4").stat().st_size > 2000


async def test_a_speaker_file_that_fails_at_the_end_closes_the_rest(bench: ReceiverBench) -> None:
    bench.speaker = FakeSpeaker(CLOCK, close_error=RecordingError("cannot write sound.wav"))
    task = await bench.talking()
    bench.caller.tell(Bye("done"))
    assert await task == "the other side ended the call: done"
    assert str(bench.outputs.failure) == "cannot write sound.wav"
    bench.assert_all_closed()


async def test_a_speaker_that_does_not_start_ends_the_call(bench: ReceiverBench) -> None:
    bench.speaker = FakeSpeaker(CLOCK, start_error=AudioDeviceError("speaker 'x' is gone"))
    with pytest.raises(AudioDeviceError, match="is gone"):
        await bench.pipeline().run()
    await bench.caller.drain()
    assert bench.caller.bye == "speaker 'x' is gone"
    bench.assert_all_closed()


async def test_a_network_that_fails_is_logged_and_ends_the_call_in_one_line(
    bench: ReceiverBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.runtime.fails_with = RuntimeError("first line\nsecond line")
    with caplog.at_level(logging.ERROR):
        task = await bench.talking()
        with pytest.raises(AvcallError, match="the picture of the receiver failed") as raised:
            await asyncio.wait_for(task, 5)
    assert "\n" not in str(raised.value) and caplog.records[0].exc_info is not None
    bench.assert_all_closed()


async def test_sound_that_fails_ends_the_call(bench: ReceiverBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Playout, "pull", lambda *_: 1 / 0)
    with pytest.raises(AvcallError, match="the sound of the receiver failed"):
        await asyncio.wait_for(bench.pipeline().run(), 5)
    bench.assert_all_closed()


async def test_hostile_messages_in_mid_call_are_dropped(bench: ReceiverBench) -> None:
    task = await bench.talking()
    for data in (b"\x11", b"\x12\x00\x00\xff\x00", b"\x13\xff", b"\x1f\x00", b"\x11" + bytes(900)):
        bench.caller.transport.send(Channel.CONTROL, data)
    shown = len(bench.display.shown)
    await bench.caller.until(lambda: len(bench.display.shown) > shown + 10 or task.done())
    assert not task.done()
    assert sum(bench.core.stats().packets.dropped.values()) == 5
    bench.caller.tell(Bye("done"))
    await task


async def test_a_flood_of_keyframes_is_bounded(bench: ReceiverBench) -> None:
    task = asyncio.create_task(bench.pipeline().run())
    for index in range(30):
        bench.caller.send_keyframe(index=index)
    await bench.caller.until(lambda: bench.caller.told(KeyframeAck))
    acknowledged = sum(isinstance(message, KeyframeAck) for message in bench.caller.control)
    assert acknowledged < 30 and len(bench.runtime.keyframes) <= 4
    bench.caller.tell(Bye("done"))
    await task
