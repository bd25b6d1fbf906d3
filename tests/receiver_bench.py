"""The two ends of a receiver test: a caller that sends in real time, and a pipeline with fakes around it."""

import asyncio
import threading
from collections.abc import Callable

from avcall.bitstream import control, keyframe, motion, packet
from avcall.bitstream.control import Bye, ControlMessage
from avcall.bitstream.keyframe import CodedKeyframe, StillCodec, encode_still
from avcall.bitstream.motion import MotionMode
from avcall.bitstream.packet import MediaPacket
from avcall.clock import SystemClock
from avcall.errors import AvcallError
from avcall.transport.base import Channel
from avcall.transport.loopback import LoopbackTransport
from avcall.types import AccessUnit, MediaKind
from receiver.core import ReceiverCore
from receiver.mel import MelWindows
from receiver.pipeline import Outputs, ReceiverPipeline
from receiver.playout import Playout
from receiver.record import Recorder
from receiver.synthesize import Synthesizer
from sender.audio_encode import OpusEncoder
from tests.fakes import FakeDisplay, FakeRuntime, FakeSpeaker, still_keypoints, tone_chunks
from tests.units import make_keypoints, make_still

CLOCK = SystemClock()
STILL = encode_still(make_still(), 3000)


class Caller:
    """The other end: sends a keyframe and then media in real time, and keeps what it is told."""

    def __init__(self, transport: LoopbackTransport) -> None:
        self.transport = transport
        self.control: list[ControlMessage] = []
        self._tasks = [asyncio.create_task(self._listen())]

    @property
    def bye(self) -> str | None:
        return next((message.reason for message in self.control if isinstance(message, Bye)), None)

    def told(self, kind: type[ControlMessage]) -> bool:
        return any(isinstance(message, kind) for message in self.control)

    def tell(self, message: ControlMessage) -> None:
        self.transport.send(Channel.CONTROL, control.serialize(message))

    def send_keyframe(self, index: int = 0, image: bytes = STILL) -> None:
        coded = CodedKeyframe(index, StillCodec.AVIF, image, make_keypoints())
        for message in keyframe.slice_keyframe(keyframe.serialize(coded), index):
            self.transport.send(Channel.CONTROL, message)

    def talk(self, index: int = 0) -> None:
        self._tasks.append(asyncio.create_task(self._talk(index)))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(8):
            while not condition():  # noqa: ASYNC110 (the condition changes in tasks and threads)
                await asyncio.sleep(0.01)

    async def drain(self) -> None:
        """Hear everything up to the end of the connection."""
        await asyncio.wait_for(self._tasks[0], 5)

    async def stop(self) -> None:
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks[1:], return_exceptions=True)
        await self.transport.close()
        await self.drain()

    async def _listen(self) -> None:
        while True:
            try:
                datagram = await self.transport.receive()
            except AvcallError:
                return
            self.control.append(control.parse(datagram.data))

    async def _talk(self, index: int) -> None:
        opus, chunks = OpusEncoder(), tone_chunks(10_000)
        start_ms = CLOCK.now_ms()
        for number in range(5000):
            due_ms = start_ms + (number + 1) * 80
            await asyncio.sleep(max(0.0, due_ms - CLOCK.now_ms()) / 1000)
            audio = [unit for _ in range(2) for unit in opus.encode(next(chunks))]
            pictures = [self._motion(number * 80 + offset_ms, index) for offset_ms in (0, 40)]
            pts_ms = min(unit.pts_ms for unit in (*audio, *pictures))
            media = MediaPacket(number, pts_ms, tuple(pictures), tuple(audio))
            self.transport.send(Channel.MEDIA, packet.serialize(media))

    @staticmethod
    def _motion(pts_ms: int, index: int) -> AccessUnit:
        payload = motion.encode(MotionMode.FP16, still_keypoints(pts_ms % 1000 / 1000))
        return AccessUnit(MediaKind.MOTION, pts_ms, 40, payload, index)


class ReceiverBench:
    """A pipeline with its fakes and its caller."""

    def __init__(self, near: LoopbackTransport, far: LoopbackTransport) -> None:
        self.near, self.caller = near, Caller(far)
        self.runtime, self.display, self.speaker = FakeRuntime(), FakeDisplay(), FakeSpeaker(CLOCK)
        self.recorder: Recorder | None = None

    def pipeline(self) -> ReceiverPipeline:
        speech = MelWindows()
        self.core = ReceiverCore(Playout(speech))
        self.outputs = Outputs(self.display, self.recorder)
        return ReceiverPipeline(
            self.near,
            self.core,
            CLOCK,
            synthesizer=Synthesizer(self.runtime, speech),  # type: ignore[arg-type]
            outputs=self.outputs,
            speaker=self.speaker,
        )

    async def talking(self, pictures: int = 10) -> asyncio.Task[str]:
        """A call in which that many pictures were shown."""
        task = asyncio.create_task(self.pipeline().run())
        self.caller.send_keyframe()
        self.caller.talk()
        await self.caller.until(lambda: len(self.display.shown) >= pictures or task.done())
        return task

    def assert_all_closed(self) -> None:
        assert self.speaker.closed and self.display.closed
        assert not self.near.send(Channel.CONTROL, b"x")
        assert not {"picture", "screen"} & {thread.name for thread in threading.enumerate()}
