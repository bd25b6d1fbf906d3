"""The sender at work: two threads for picture and sound, one task that hands messages to the transport."""

import asyncio
import contextlib
import threading
from dataclasses import dataclass

from avcall.bitstream.control import Bye
from avcall.clock import Clock
from avcall.ending import Ending
from avcall.errors import AvcallError
from avcall.transport.base import Channel, Transport
from avcall.types import AccessUnit
from sender.capture import Camera
from sender.core import SenderCore, SenderStats
from sender.microphone import Microphone
from sender.picture import Pictured, PicturePath
from sender.speech import SpeechPath
from sender.track import FaceState

POLL_MS = 5.0  # how often the tick and the pacer are looked at
ADAPT_EVERY_MS = 100.0  # how often the rate is looked at
MAX_MEDIA_BACKLOG_BYTES = 1_300  # in the transport: about two messages; more waits where it can be dropped
DRAIN_MS = 400.0  # after the end of a file: the last units leave before the goodbye
THREAD_JOIN_S = 3.0
VIDEO_ENDED = "the video ended"


@dataclass(frozen=True, slots=True)
class SenderSnapshot:
    """A moment of the sender, for a status line and the summary."""

    stats: SenderStats
    face: FaceState
    frames: int
    detect_ms: float  # smoothed time of one frame through track, detect and encode
    elapsed_ms: float


class SenderPipeline:
    """Runs one call's sending side over a connected transport; owns and closes all that it is given."""

    def __init__(
        self,
        transport: Transport,
        core: SenderCore,
        clock: Clock,
        *,
        picture: PicturePath,
        camera: Camera,
        microphone: Microphone,
        speech: SpeechPath,
    ) -> None:
        self._transport, self._core, self._clock = transport, core, clock
        self._picture, self._camera = picture, camera
        self._microphone, self._speech = microphone, speech
        self._face = FaceState.SEARCHING
        self._frames = 0
        self._detect_ms = 0.0
        self._started_ms = clock.now_ms()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def snapshot(self) -> SenderSnapshot:
        """Where the sender stands now."""
        elapsed_ms = self._clock.now_ms() - self._started_ms
        return SenderSnapshot(self._core.stats(), self._face, self._frames, self._detect_ms, elapsed_ms)

    async def run(self, duration_s: float | None = None) -> str:
        """Send until the camera's file ends, the time is up, the peer hangs up, or the task is cancelled.

        Returns why it ended; raises the AvcallError that ended it otherwise. The peer is told in every case.
        """
        reason = "the sender failed"
        self._started_ms = self._clock.now_ms()
        try:
            reason = await self._run_tasks(duration_s)
        except asyncio.CancelledError:
            reason = "ended by the user"
            raise
        except AvcallError as error:
            reason = str(error)
            raise
        finally:
            await self._finish(reason)
        return reason

    async def _run_tasks(self, duration_s: float | None) -> str:
        ending = Ending("sender")
        loop = asyncio.get_running_loop()
        timer = None if duration_s is None else loop.call_later(duration_s, ending.end, "the time is up")
        tasks = [
            ending.task("sending", self._send_loop),
            ending.task("receiving", lambda: self._receive_loop(ending)),
        ]
        self._threads = [
            ending.thread("picture", lambda: self._picture_thread(ending)),
            ending.thread("sound", lambda: self._sound_thread(ending)),
        ]
        try:
            reason = await ending.reason
            if reason == VIDEO_ENDED:
                await asyncio.sleep(DRAIN_MS / 1000)
            return reason
        finally:
            self._stop.set()
            if timer is not None:
                timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _picture_thread(self, ending: Ending) -> None:
        while not self._stop.is_set():
            frame = self._camera.read()
            if frame is None:
                break
            began_ms = self._clock.now_ms()
            if self._core.keyframe_wanted:
                self._core.keyframe_wanted = False
                self._picture.want_keyframe(self._core.keyframe_index)
            if (sharper := self._core.take_sharper()) is not None:
                self._picture.sharpen(sharper)
            done = self._picture.process(frame, self._core.references)
            took_ms = self._clock.now_ms() - began_ms
            self._detect_ms += 0.1 * (took_ms - self._detect_ms)
            ending.post(self._on_pictured, done)
        self._picture.finish()
        ending.post(ending.end, VIDEO_ENDED)

    def _sound_thread(self, ending: Ending) -> None:
        while not self._stop.is_set():
            chunk = self._microphone.read()
            if chunk is None:
                return
            ending.post(self._on_sound, self._speech.process(chunk))

    def _on_pictured(self, done: Pictured) -> None:
        self._face = done.face
        self._frames += 1
        if done.keyframe is not None:
            self._core.push_keyframe(done.keyframe)
        self._core.push_estimates(done.estimates)
        if done.motion is not None:
            self._core.push_motion(done.motion)

    def _on_sound(self, units: list[AccessUnit]) -> None:
        for unit in units:
            self._core.push_audio(unit)

    async def _send_loop(self) -> None:
        next_adapt_ms = 0.0
        while True:
            now_ms = self._clock.now_ms()
            if now_ms >= next_adapt_ms:
                self._adapt(now_ms)
                next_adapt_ms = now_ms + ADAPT_EVERY_MS
            self._flush(now_ms)
            await asyncio.sleep(POLL_MS / 1000)

    async def _receive_loop(self, ending: Ending) -> None:
        while self._core.peer_bye is None:
            datagram = await self._transport.receive()
            self._core.on_message(datagram.data, datagram.arrival_ms)
        ending.end(f"the other side ended the call: {self._core.peer_bye}")

    def _adapt(self, now_ms: float) -> None:
        decision = self._core.adapt(
            now_ms,
            self._transport.counters().sent_bytes,
            self._transport.buffered_bytes(Channel.MEDIA),
        )
        if decision is not None:
            self._speech.set_bitrate(decision.rung.audio_bps)

    def _flush(self, now_ms: float) -> None:
        ready = self._core.poll(
            now_ms,
            media_open=self._transport.buffered_bytes(Channel.MEDIA) <= MAX_MEDIA_BACKLOG_BYTES,
            slices_open=self._transport.buffered_bytes(Channel.CONTROL) == 0,
        )
        for channel, data in ready:
            self._transport.send(channel, data)

    async def _finish(self, reason: str) -> None:
        """Say goodbye, as far as the connection still carries it, then close everything."""
        try:
            if self._core.peer_bye is None:
                self._core.push_control(Bye.of(reason))
            with contextlib.suppress(AvcallError):
                self._flush(self._clock.now_ms())
            await asyncio.to_thread(self._close_inputs)
        finally:
            await asyncio.shield(self._transport.close())

    def _close_inputs(self) -> None:
        with contextlib.ExitStack() as stack:  # one that fails to close must not keep the others open
            stack.callback(self._close_picture)
            stack.callback(self._microphone.close)
            stack.callback(self._camera.close)

    def _close_picture(self) -> None:
        for thread in self._threads:
            thread.join(THREAD_JOIN_S)
        # mediapipe crashes the process when it is freed while a thread still uses it.
        if not any(thread.is_alive() for thread in self._threads):
            self._picture.close()
