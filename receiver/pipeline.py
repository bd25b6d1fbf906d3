"""The receiver at work: the loop takes messages, the speaker pulls sound, a thread draws, another shows."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from avcall.bitstream.keyframe import CodedKeyframe
from avcall.clock import Clock
from avcall.ending import Ending
from avcall.errors import AvcallError, RecordingError
from avcall.transport.base import Transport
from avcall.types import MotionFrame, Pcm, U8Image, VideoFrame
from receiver.core import ReceiverCore, ReceiverStats
from receiver.display import Display
from receiver.playout import PlayoutStats
from receiver.record import Recorder
from receiver.speaker import Speaker
from receiver.synthesize import Synthesizer

NAP_S = 0.004  # of a picture thread when nothing is due
MARGIN_MS = 4.0  # a picture is started this much earlier than its drawing is expected to take,
SPREADS = 2.0  # and so many mean deviations of that time
MAX_LEAD_MS = 250.0
MAX_LAG_MS = 45.0  # a picture that lags the sound by more is left out (ITU-R BT.1359: people notice),
LONGEST_HOLD_MS = 500.0  # unless nothing was shown for so long: a machine that is too slow shows what it can
MAX_WAIT_MS = 500.0  # for a drawn picture to be due
MAX_DRAWN_PICTURES = 8  # more than are drawn within the longest lead
FIRST_DRAW_MS = 20.0  # until it was measured
SMOOTHING = 0.1  # weight of a new reading
POLL_S = 0.02  # how often answers are sent and the window is looked at
REQUEST_AFTER_FRAMES = 5  # of motion that names an unknown keyframe: motion may overtake its keyframe
MAX_WAITING_KEYFRAMES = 4  # as many as may be live at once
THREAD_JOIN_S = 3.0

Post = Callable[..., None]


@dataclass(frozen=True, slots=True)
class PictureStats:
    """Counts of pictures. `skew_ms` is positive when the sound leads the picture.

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


class Screen:
    """Shows drawn pictures when the sound has come to them; drawing goes on meanwhile."""

    def __init__(self, core: ReceiverCore, outputs: "Outputs", clock: Clock, stop: threading.Event) -> None:
        self._core, self._outputs, self._clock, self._stop = core, outputs, clock, stop
        self._drawn: deque[VideoFrame] = deque(maxlen=MAX_DRAWN_PICTURES)
        self._still: U8Image | None = None
        self._shown_ms = float("-inf")
        self._stats = PictureStats()

    def push(self, picture: VideoFrame) -> None:
        """Hand over a picture; pts increase."""
        self._drawn.append(picture)

    def push_still(self, rgb: U8Image) -> None:
        """Hand over a keyframe: on a slow link it is there long before the first motion."""
        self._still = rgb

    def stats(self) -> PictureStats:
        """Counts so far."""
        return self._stats

    def run(self) -> None:
        """Until stopped; in a thread of its own."""
        while not self._stop.is_set():
            if not self.step():
                self._stop.wait(NAP_S)

    def step(self) -> bool:
        """Show the next picture, or leave it out; False when none is due."""
        still, self._still = self._still, None
        if still is not None and not self._stats.shown:
            self._outputs.show_still(still)
        heard_ms = self._core.playout.clock_ms(self._clock.now_ms())
        if not self._drawn or not self._is_due(self._drawn[0], heard_ms):
            return False
        picture = self._drawn.popleft()
        overtaken = bool(self._drawn) and heard_ms is not None and self._drawn[0].pts_ms <= heard_ms
        self._show(picture, 0.0 if heard_ms is None else heard_ms - picture.pts_ms, overtaken)
        return True

    @staticmethod
    def _is_due(picture: VideoFrame, heard_ms: float | None) -> bool:
        # A difference that is too large to wait for means that the media time has started anew.
        return heard_ms is None or not 0 < picture.pts_ms - heard_ms <= MAX_WAIT_MS

    def _show(self, picture: VideoFrame, skew_ms: float, overtaken: bool) -> None:
        before, now_ms = self._stats, self._clock.now_ms()
        late = skew_ms > MAX_LAG_MS and now_ms - self._shown_ms < LONGEST_HOLD_MS
        if overtaken or late:
            self._stats = replace(before, skipped=before.skipped + 1)
            return
        self._shown_ms = now_ms
        self._outputs.show(picture.rgb, picture.pts_ms)
        self._stats = replace(
            before,
            shown=before.shown + 1,
            skew_ms=before.skew_ms + SMOOTHING * (skew_ms - before.skew_ms),
            worst_skew_ms=max(before.worst_skew_ms, skew_ms, key=abs),
            first_pts_ms=before.first_pts_ms if before.shown else picture.pts_ms,
            last_pts_ms=picture.pts_ms,
        )


class Painter:
    """Draws what is due, in a thread of its own; owns the network, which is not thread-safe."""

    def __init__(
        self, core: ReceiverCore, synthesizer: Synthesizer, outputs: "Outputs", clock: Clock, post: Post
    ) -> None:
        """`post` has the loop call a method of `core`, which is not thread-safe either."""
        self._core, self._synthesizer, self._clock, self._post = core, synthesizer, clock, post
        self._keyframes: deque[CodedKeyframe] = deque(maxlen=MAX_WAITING_KEYFRAMES)
        self._stop = threading.Event()
        self.screen = Screen(core, outputs, clock, self._stop)
        self._unknown_in_row = 0
        self._skipped = 0
        self._draw_ms, self._spread_ms = FIRST_DRAW_MS, 0.0

    def push_keyframe(self, coded: CodedKeyframe) -> None:
        """Hand over a keyframe; it is decoded and encoded for the network in this thread."""
        self._keyframes.append(coded)

    def stats(self) -> PictureStats:
        """Counts so far, of what was drawn and of what was shown."""
        shown = self.screen.stats()
        return replace(shown, skipped=shown.skipped + self._skipped, draw_ms=self._draw_ms)

    def stop(self) -> None:
        """Make `run`, and that of the screen, return soon."""
        self._stop.set()

    def run(self) -> None:
        """Until stopped."""
        while not self._stop.is_set():
            self._take_keyframe()
            lead_ms = min(self._draw_ms + SPREADS * self._spread_ms + MARGIN_MS, MAX_LEAD_MS)
            due = self._core.playout.due_motion(self._clock.now_ms(), lead_ms)
            if not due:
                self._stop.wait(NAP_S)
            elif self._synthesizer.can_draw(due[-1]):
                self._unknown_in_row = 0
                self._skipped += len(due) - 1
                self.screen.push(self._draw(due[-1]))
            else:
                self._miss()

    def _draw(self, motion: MotionFrame) -> VideoFrame:
        began_ms = self._clock.now_ms()
        picture = self._synthesizer.draw(motion)
        off_ms = self._clock.now_ms() - began_ms - self._draw_ms
        self._spread_ms += SMOOTHING * (abs(off_ms) - self._spread_ms)
        self._draw_ms += SMOOTHING * off_ms
        return picture

    def _take_keyframe(self) -> None:
        if not self._keyframes:
            return
        keyframe = self._core.decode_keyframe(self._keyframes.popleft())
        if keyframe is None:
            self._post(self._core.request_keyframe, self._clock.now_ms())
            return
        self.screen.push_still(keyframe.rgb)
        self._synthesizer.set_keyframe(keyframe)
        self._post(self._core.acknowledge, keyframe.index)

    def _miss(self) -> None:
        self._unknown_in_row += 1
        if self._unknown_in_row >= REQUEST_AFTER_FRAMES:
            self._post(self._core.request_keyframe, self._clock.now_ms())


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

    def show_still(self, rgb: U8Image) -> None:
        """A keyframe, before there is motion; it has no media time and is not recorded."""
        with self._keeping_failure():
            self._display.show_still(rgb)

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
    """Runs one call's receiving side over a connected transport; owns and closes all that it is given."""

    def __init__(
        self,
        transport: Transport,
        core: ReceiverCore,
        clock: Clock,
        *,
        synthesizer: Synthesizer,
        outputs: Outputs,
        speaker: Speaker,
    ) -> None:
        self._transport, self._core, self._clock = transport, core, clock
        self._outputs, self._speaker = outputs, speaker
        self._synthesizer = synthesizer
        self._painter: Painter | None = None
        self._threads: list[threading.Thread] = []
        self._started_ms = clock.now_ms()

    def snapshot(self) -> ReceiverSnapshot:
        """Where the receiver stands now."""
        pictures = self._painter.stats() if self._painter else PictureStats()
        elapsed_ms = self._clock.now_ms() - self._started_ms
        return ReceiverSnapshot(self._core.stats(), self._core.playout.stats(), pictures, elapsed_ms)

    async def run(self) -> str:
        """Receive until the peer says goodbye, the window is closed, or the task is cancelled.

        Returns why it ended; raises the AvcallError that ended it otherwise. The peer is told in every case.
        """
        reason = "the receiver failed"
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
        ending = Ending("receiver")
        painter = Painter(self._core, self._synthesizer, self._outputs, self._clock, ending.post)
        self._painter = painter
        self._threads = [
            ending.thread("picture", painter.run),
            ending.thread("screen", painter.screen.run),
        ]
        tasks = [
            ending.task("receiving", lambda: self._receive_loop(painter, ending)),
            ending.task("answering", lambda: self._answer_loop(painter, ending)),
        ]
        try:
            self._start_speaker(ending)
            return await ending.reason
        finally:
            painter.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start_speaker(self, ending: Ending) -> None:
        try:
            self._speaker.start(lambda count: self._pull(count, ending))
        except Exception as error:
            ending.fail(error, "speaker")

    def _pull(self, count: int, ending: Ending) -> Pcm:
        """The speaker's pull, in the speaker's thread, which would swallow an error."""
        try:
            sound = self._core.playout.pull(count, self._clock.now_ms(), self._speaker.latency_ms)
            if sound.pts_ms is not None:
                self._outputs.hear(sound.pcm, sound.pts_ms)
            return sound.pcm
        except Exception as error:
            ending.post(ending.fail, error, "sound")
            raise

    async def _receive_loop(self, painter: Painter, ending: Ending) -> None:
        while self._core.peer_bye is None:
            datagram = await self._transport.receive()
            coded = self._core.on_message(datagram.data, datagram.arrival_ms)
            if coded is not None:
                painter.push_keyframe(coded)
        ending.end(f"the other side ended the call: {self._core.peer_bye}")

    async def _answer_loop(self, painter: Painter, ending: Ending) -> None:
        while self._outputs.poll():
            now_ms = self._clock.now_ms()
            if self._core.report_is_due(now_ms):
                self._core.report(painter.stats().shown, now_ms)
            self._core.check_keyframe(now_ms)
            self._send_answers()
            await asyncio.sleep(POLL_S)
        ending.end("the window was closed")

    def _send_answers(self) -> None:
        for channel, data in self._core.take_answers():
            self._transport.send(channel, data)

    async def _finish(self, reason: str) -> None:
        """Say goodbye, as far as the connection still carries it, then close everything."""
        try:
            if self._core.peer_bye is None:
                self._core.bye(reason)
            with contextlib.suppress(AvcallError):
                self._send_answers()
            await asyncio.to_thread(self._close_outputs)
        finally:
            await asyncio.shield(self._transport.close())

    def _close_outputs(self) -> None:
        for thread in self._threads:
            thread.join(THREAD_JOIN_S)
        with contextlib.ExitStack() as stack:  # one that fails to close must not keep the others open
            stack.callback(self._outputs.close)
            stack.callback(self._close_speaker)

    def _close_speaker(self) -> None:
        try:
            self._speaker.close()
        except RecordingError as error:
            self._outputs.failure = self._outputs.failure or error
