"""The sender at work: two threads for picture and sound, one task that hands messages to the transport."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from avcall.bitstream.control import Bye
from avcall.clock import Clock
from avcall.errors import AvcallError
from avcall.transport.base import Transport
from avcall.types import AccessUnit
from sender.audio_encode import OpusEncoder
from sender.capture import Camera
from sender.core import SenderCore, SenderStats
from sender.microphone import Microphone
from sender.picture import Pictured, PicturePath
from sender.track import FaceState

POLL_MS = 5.0  # how often the tick and the pacer are looked at
PING_EVERY_MS = 1_000.0
DRAIN_MS = 400.0  # after the end of a file: the last units leave before the goodbye
THREAD_JOIN_S = 3.0


@dataclass(frozen=True, slots=True)
class SenderSnapshot:
    """A moment of the sender, for a status line and the summary."""

    stats: SenderStats
    face: FaceState
    frames: int
    detect_ms: float  # smoothed time of one frame through track, detect and encode
    elapsed_ms: float


class SenderPipeline:
    """Runs one call's sending side over a connected transport."""

    def __init__(
        self,
        transport: Transport,
        core: SenderCore,
        picture: PicturePath,
        camera: Camera,
        microphone: Microphone,
        encoder: OpusEncoder,
        clock: Clock,
    ) -> None:
        self._transport, self._core, self._clock = transport, core, clock
        self._picture, self._camera = picture, camera
        self._microphone, self._encoder = microphone, encoder
        self._face = FaceState.SEARCHING
        self._frames = 0
        self._detect_ms = 0.0
        self._started_ms = clock.now_ms()
        self._stop = threading.Event()

    def snapshot(self) -> SenderSnapshot:
        """Where the sender stands now."""
        elapsed_ms = self._clock.now_ms() - self._started_ms
        return SenderSnapshot(self._core.stats(), self._face, self._frames, self._detect_ms, elapsed_ms)

    async def run(self, duration_s: float | None = None) -> str:
        """Send until the camera's file ends, `duration_s` is over, the peer hangs up, or the task is cancelled.

        Returns why it ended. Raises the AvcallError that ended the call otherwise. The peer is told in every case.
        """
        reason = "the other side ended the call"
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
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = loop.create_future()

        def settle(result: str | BaseException) -> None:
            if ended.done():
                return
            if isinstance(result, BaseException):
                ended.set_exception(result)
            else:
                ended.set_result(result)

        def in_thread(name: str, work: Callable[[Callable[..., object]], None]) -> threading.Thread:
            def guarded() -> None:
                try:
                    work(loop.call_soon_threadsafe)
                except BaseException as error:  # handed to the loop, which raises it
                    with contextlib.suppress(RuntimeError):  # the loop is gone: nobody is left to tell
                        loop.call_soon_threadsafe(settle, error)

            thread = threading.Thread(target=guarded, name=name, daemon=True)
            thread.start()
            return thread

        threads = [
            in_thread(
                "picture", lambda post: self._picture_thread(post, lambda: post(settle, "the video ended"))
            ),
            in_thread("sound", self._sound_thread),
        ]
        tasks = [
            asyncio.create_task(self._send_loop(settle)),
            asyncio.create_task(self._receive_loop(settle)),
        ]
        if duration_s is not None:
            loop.call_later(duration_s, settle, "the time is up")
        try:
            reason = await ended
            if reason == "the video ended":
                await asyncio.sleep(DRAIN_MS / 1000)
            return reason
        finally:
            self._stop.set()
            await asyncio.to_thread(self._close_inputs, threads)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _close_inputs(self, threads: list[threading.Thread]) -> None:
        self._camera.close()
        self._microphone.close()
        for thread in threads:
            thread.join(THREAD_JOIN_S)
        self._picture.close()

    def _picture_thread(self, post: Callable[..., object], on_end: Callable[[], object]) -> None:
        while not self._stop.is_set():
            frame = self._camera.read()
            if frame is None:
                break
            began_ms = self._clock.now_ms()
            if self._core.keyframe_wanted:
                self._core.keyframe_wanted = False
                self._picture.want_keyframe()
            done = self._picture.process(frame)
            took_ms = self._clock.now_ms() - began_ms
            self._detect_ms += 0.1 * (took_ms - self._detect_ms)
            post(self._on_pictured, done)
        on_end()

    def _sound_thread(self, post: Callable[..., object]) -> None:
        while not self._stop.is_set():
            chunk = self._microphone.read()
            if chunk is None:
                return
            post(self._on_sound, self._encoder.encode(chunk))

    def _on_pictured(self, done: Pictured) -> None:
        self._face = done.face
        self._frames += 1
        if done.keyframe is not None:
            self._core.push_keyframe(done.keyframe)
        if done.motion is not None:
            self._core.push_motion(done.motion)

    def _on_sound(self, units: list[AccessUnit]) -> None:
        for unit in units:
            self._core.push_audio(unit)

    async def _send_loop(self, settle: Callable[[str | BaseException], None]) -> None:
        next_ping_ms = 0.0
        while True:
            now_ms = self._clock.now_ms()
            if now_ms >= next_ping_ms:
                self._core.ping(now_ms)
                next_ping_ms = now_ms + PING_EVERY_MS
            try:
                self._flush(now_ms)
            except AvcallError as error:
                settle(error)
                return
            await asyncio.sleep(POLL_MS / 1000)

    async def _receive_loop(self, settle: Callable[[str | BaseException], None]) -> None:
        try:
            while self._core.peer_bye is None:
                datagram = await self._transport.receive()
                self._core.on_message(datagram.data, datagram.arrival_ms)
            settle(f"the other side ended the call: {self._core.peer_bye}")
        except AvcallError as error:
            settle(error)

    def _flush(self, now_ms: float) -> None:
        for channel, data in self._core.poll(now_ms):
            self._transport.send(channel, data)

    async def _finish(self, reason: str) -> None:
        """Say goodbye, as far as the connection still carries it, and close."""
        with contextlib.suppress(AvcallError):
            if self._core.peer_bye is None:
                self._core.push_control(Bye.of(reason))
            self._flush(self._clock.now_ms())
        await asyncio.shield(self._transport.close())
