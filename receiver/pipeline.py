"""The receiver at work: the loop takes messages, the speaker pulls sound, one thread draws pictures."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from avcall.bitstream.keyframe import CodedKeyframe
from avcall.clock import Clock
from avcall.errors import AvcallError, RecordingError
from avcall.transport.base import Channel, Transport
from avcall.types import SAMPLE_RATE_HZ, MotionFrame, Pcm, U8Image, VideoFrame
from receiver.core import ReceiverCore, ReceiverStats
from receiver.display import Display
from receiver.playout import PlayoutStats
from receiver.record import Recorder
from receiver.speaker import Speaker
from receiver.synthesize import Synthesizer

NAP_S = 0.004  # of the picture thread when nothing is due
MARGIN_MS = 4.0  # a picture is started this much earlier than its drawing takes
MAX_LEAD_MS = 120.0
HEARTBEAT_EVERY_MS = 1_000.0
REQUEST_AFTER_FRAMES = 25  # of motion that names an unknown keyframe: a second
THREAD_JOIN_S = 3.0


@dataclass(frozen=True, slots=True)
class PictureStats:
    """Counts of the picture thread. `skew_ms` is positive when the sound leads the picture.

    `first_pts_ms` and `last_pts_ms` are those of the first and the last picture shown.
    """

    shown: int = 0
    skipped: int = 0
    draw_ms: float = 0.0
    skew_ms: float = 0.0
    worst_skew_ms: float = 0.0
    first_pts_ms: int = 0
    last_pts_ms: int = 0


@dataclass(frozen=True, slots=True)
class ReceiverSnapshot:
    """A moment of the receiver, for a status line and the summary."""

    stats: ReceiverStats
    playout: PlayoutStats
    pictures: PictureStats
    elapsed_ms: float


class PictureThread:
    """Draws what is due and shows it on time; owns the network, which is not thread-safe."""

    def __init__(
        self,
        core: ReceiverCore,
        synthesizer: Synthesizer,
        outputs: "Outputs",
        clock: Clock,
        on_keyframe: Callable[[int], object],
        on_missing: Callable[[], object],
    ) -> None:
        self._core, self._synthesizer, self._outputs, self._clock = core, synthesizer, outputs, clock
        self._on_keyframe, self._on_missing = on_keyframe, on_missing
        self._keyframes: queue.SimpleQueue[CodedKeyframe] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._unknown_in_row = 0
        self._shown = self._skipped = 0
        self._first_pts_ms = self._last_pts_ms = 0
        self._draw_ms, self._skew_ms, self._worst_skew_ms = 20.0, 0.0, 0.0

    def push_keyframe(self, coded: CodedKeyframe) -> None:
        """Hand over a keyframe; it is decoded and encoded for the network in this thread."""
        self._keyframes.put(coded)

    def stats(self) -> PictureStats:
        """Counts so far."""
        return PictureStats(self._shown, self._skipped, self._draw_ms, self._skew_ms, self._worst_skew_ms, self._first_pts_ms, self._last_pts_ms)

    def stop(self) -> None:
        """Make `run` return soon."""
        self._stop.set()

    def run(self) -> None:
        """Until stopped, or the window is closed."""
        while not self._stop.is_set():
            self._take_keyframes()
            lead_ms = min(self._draw_ms + MARGIN_MS, MAX_LEAD_MS)
            due = self._core.playout.due_motion(self._clock.now_ms(), lead_ms)
            if not due:
                self._stop.wait(NAP_S)
                continue
            self._skipped += len(due) - 1
            if self._synthesizer.can_draw(due[-1]):
                self._unknown_in_row = 0
                self._show(self._draw(due[-1]))
            else:
                self._miss()

    def _draw(self, motion: MotionFrame) -> VideoFrame:
        began_ms = self._clock.now_ms()
        picture = self._synthesizer.draw(motion)
        self._draw_ms += 0.1 * (self._clock.now_ms() - began_ms - self._draw_ms)
        return picture

    def _show(self, picture: VideoFrame) -> None:
        """Wait until the picture is due, then show it."""
        heard_ms = self._core.playout.clock_ms(self._clock.now_ms())
        while heard_ms is not None and heard_ms < picture.pts_ms and not self._stop.is_set():
            self._stop.wait(min(NAP_S, (picture.pts_ms - heard_ms) / 1000))
            heard_ms = self._core.playout.clock_ms(self._clock.now_ms())
        self._outputs.show(picture.rgb, picture.pts_ms)
        self._first_pts_ms = self._first_pts_ms if self._shown else picture.pts_ms
        self._last_pts_ms = picture.pts_ms
        self._shown += 1
        if heard_ms is not None:
            skew_ms = heard_ms - picture.pts_ms
            self._skew_ms += 0.1 * (skew_ms - self._skew_ms)
            self._worst_skew_ms = max(self._worst_skew_ms, skew_ms, key=abs)

    def _take_keyframes(self) -> None:
        while True:
            try:
                coded = self._keyframes.get_nowait()
            except queue.Empty:
                return
            keyframe = self._core.decode_keyframe(coded)
            if keyframe is not None:
                self._synthesizer.set_keyframe(keyframe)
                self._on_keyframe(keyframe.index)

    def _miss(self) -> None:
        self._unknown_in_row += 1
        if self._unknown_in_row >= REQUEST_AFTER_FRAMES:
            self._on_missing()


class Outputs:
    """Where pictures and sound go: the display, and a recording when one is wanted.

    A recording that fails (a full disk) stops, and the call goes on; `failure` keeps the error for the end.
    """

    def __init__(self, display: Display, recorder: Recorder | None) -> None:
        self._display = display
        self._recorder = recorder
        self.failure: RecordingError | None = None
        self.start_pts_ms: int | None = None  # media time of the first moment of the recording

    def show(self, rgb: U8Image, pts_ms: int) -> None:
        """A picture (256, 256, 3) that is due now."""
        with self._keeping_failure():
            self._display.show(rgb, pts_ms)
        if self._recorder is not None:
            self._mark_start(pts_ms)
            with self._keeping_failure():
                self._recorder.add_video(rgb, pts_ms)

    def hear(self, pcm: Pcm, pts_ms: int) -> None:
        """Sound (samples,) that is played now."""
        if self._recorder is not None:
            self._mark_start(pts_ms)
            with self._keeping_failure():
                self._recorder.add_audio(pcm, pts_ms)

    def poll(self) -> bool:
        """False once the user has closed the window."""
        return self._display.poll()

    def close(self) -> None:
        """Finish the files."""
        with self._keeping_failure():
            self._display.close()
        if self._recorder is not None:
            with self._keeping_failure():
                self._recorder.close()

    def _mark_start(self, pts_ms: int) -> None:
        if self.start_pts_ms is None:
            self.start_pts_ms = pts_ms

    @contextlib.contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        try:
            yield
        except RecordingError as error:
            self.failure = self.failure or error


class ReceiverPipeline:
    """Runs one call's receiving side over a connected transport."""

    def __init__(
        self,
        transport: Transport,
        core: ReceiverCore,
        synthesizer: Synthesizer,
        outputs: Outputs,
        speaker: Speaker,
        clock: Clock,
    ) -> None:
        self._transport, self._core, self._clock = transport, core, clock
        self._outputs, self._speaker = outputs, speaker
        self._synthesizer = synthesizer
        self._pictures: PictureThread | None = None
        self._started_ms = clock.now_ms()

    def snapshot(self) -> ReceiverSnapshot:
        """Where the receiver stands now."""
        pictures = self._pictures.stats() if self._pictures else PictureStats()
        elapsed_ms = self._clock.now_ms() - self._started_ms
        return ReceiverSnapshot(self._core.stats(), self._core.playout.stats(), pictures, elapsed_ms)

    async def run(self) -> str:
        """Receive until the peer says goodbye, the window is closed, or the task is cancelled.

        Returns why it ended; raises the AvcallError that ended it otherwise. The peer is told in every case.
        """
        reason = "the other side ended the call"
        self._started_ms = self._clock.now_ms()
        try:
            reason = await self._run_tasks()
        except asyncio.CancelledError:
            reason = "ended by the user"
            raise
        except AvcallError as error:
            reason = str(error)
            raise
        finally:
            await self._finish(reason)
        return reason

    async def _run_tasks(self) -> str:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = loop.create_future()

        def post(work: Callable[..., object], *arguments: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody is left to tell
                loop.call_soon_threadsafe(work, *arguments)

        self._pictures = PictureThread(
            self._core,
            self._synthesizer,
            self._outputs,
            self._clock,
            lambda index: post(self._core.acknowledge, index),
            lambda: post(self._core.request_keyframe, self._clock.now_ms()),
        )

        def draw() -> None:
            try:
                assert self._pictures is not None
                self._pictures.run()
            except Exception as error:  # handed to the loop, which raises it
                post(_fail, ended, error)

        thread = threading.Thread(target=draw, name="pictures", daemon=True)
        thread.start()
        self._speaker.start(self._pull)
        tasks = [
            asyncio.create_task(self._receive_loop(ended)),
            asyncio.create_task(self._answer_loop(ended)),
        ]
        try:
            return await ended
        finally:
            self._pictures.stop()
            await asyncio.to_thread(thread.join, THREAD_JOIN_S)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _pull(self, count: int) -> Pcm:
        """The speaker's pull, in the speaker's thread."""
        now_ms = self._clock.now_ms()
        pcm = self._core.playout.pull(count, now_ms, self._speaker.latency_ms)
        position_ms = self._core.playout.position_ms()
        if position_ms is not None:
            self._outputs.hear(pcm, position_ms - len(pcm) * 1000 // SAMPLE_RATE_HZ)
        return pcm

    async def _receive_loop(self, ended: asyncio.Future[str]) -> None:
        try:
            while self._core.peer_bye is None:
                datagram = await self._transport.receive()
                coded = self._core.on_message(datagram.data, datagram.arrival_ms)
                if coded is not None and self._pictures is not None:
                    self._pictures.push_keyframe(coded)
            _settle(ended, f"the other side ended the call: {self._core.peer_bye}")
        except AvcallError as error:
            _fail(ended, error)

    async def _answer_loop(self, ended: asyncio.Future[str]) -> None:
        next_ms = 0.0
        while True:
            now_ms = self._clock.now_ms()
            if now_ms >= next_ms and self._pictures is not None:
                self._core.ping(now_ms)
                self._core.report(self._pictures.stats().shown)
                next_ms = now_ms + HEARTBEAT_EVERY_MS
            self._send_answers()
            if not self._outputs.poll():
                _settle(ended, "the window was closed")
                return
            await asyncio.sleep(0.02)

    def _send_answers(self) -> None:
        for data in self._core.take_answers():
            self._transport.send(Channel.CONTROL, data)

    async def _finish(self, reason: str) -> None:
        with contextlib.suppress(AvcallError):
            if self._core.peer_bye is None:
                self._core.bye(reason)
            self._send_answers()
        await asyncio.to_thread(self._speaker.close)
        await asyncio.to_thread(self._outputs.close)
        await asyncio.shield(self._transport.close())


def _settle(ended: asyncio.Future[str], reason: str) -> None:
    if not ended.done():
        ended.set_result(reason)


def _fail(ended: asyncio.Future[str], error: BaseException) -> None:
    if not ended.done():
        ended.set_exception(error)
