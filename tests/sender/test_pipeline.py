"""The sender's pipeline over a loopback in real time, with fakes at its inputs; a second or two each."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import pytest

from avcall.bitstream import control, packet
from avcall.bitstream.control import Bye, ControlMessage, KeyframeAck, KeyframeRequest, Report
from avcall.bitstream.keyframe import KeyframeAssembler
from avcall.bitstream.packet import MediaPacket, MessageType, message_type
from avcall.clock import SystemClock
from avcall.errors import AudioDeviceError, AvcallError, CameraError, NoFaceError, PeerLostError
from avcall.transport.base import Channel
from avcall.transport.loopback import LoopbackTransport, loopback_pair
from sender.core import SenderCore
from sender.detect import Detector
from sender.encode import KeyframeEncoder
from sender.picture import PicturePath
from sender.pipeline import VIDEO_ENDED, SenderPipeline
from sender.references import ReferenceSet
from sender.speech import SpeechPath
from sender.track import FaceState
from tests.fakes import FakeCamera, FakeMicrophone, FakeRuntime, FakeTracker, textured_crop

CLOCK = SystemClock()
SHARP_BYTES = 12_000


class Peer:
    """The other end: keeps what it hears and, if `polite`, acknowledges keyframes."""

    def __init__(self, transport: LoopbackTransport, polite: bool = True) -> None:
        self.transport, self.polite = transport, polite
        self.media: list[MediaPacket] = []
        self.control: list[ControlMessage] = []
        self.keyframes: list[int] = []
        self._assembler = KeyframeAssembler()
        self._task = asyncio.create_task(self._listen())

    @property
    def bye(self) -> str | None:
        return next((message.reason for message in self.control if isinstance(message, Bye)), None)

    def tell(self, message: ControlMessage) -> None:
        if isinstance(message, Report):
            self.transport.send(Channel.MEDIA, control.serialize_report(message, 0, 0))
        else:
            self.transport.send(Channel.CONTROL, control.serialize(message))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 (the condition changes in tasks and threads)
                await asyncio.sleep(0.01)

    async def drain(self) -> None:
        """Hear everything up to the end of the connection."""
        await asyncio.wait_for(self._task, 5)

    async def _listen(self) -> None:
        while True:
            try:
                data = (await self.transport.receive()).data
            except AvcallError:
                return
            kind = message_type(data)
            if kind is MessageType.MEDIA:
                self.media.append(packet.parse(data))
            elif kind is MessageType.CONTROL:
                self.control.append(control.parse(data))
            elif (keyframe := self._assembler.push(data)) is not None:
                self.keyframes.append(keyframe.index)
                if self.polite:
                    self.tell(KeyframeAck(keyframe.index))


class Bench:
    """A pipeline with its fakes and its peer."""

    def __init__(self, near: LoopbackTransport, far: LoopbackTransport) -> None:
        self.near, self.peer = near, Peer(far)
        self.camera, self.microphone = FakeCamera(CLOCK), FakeMicrophone(CLOCK)
        self.tracker = FakeTracker()
        self.core = SenderCore(80)

    def pipeline(self) -> SenderPipeline:
        detector = Detector(FakeRuntime())  # type: ignore[arg-type]
        keyframes = KeyframeEncoder(detector, 4000, sharp_bytes=SHARP_BYTES)
        picture = PicturePath(detector, self.tracker, keyframes)  # type: ignore[arg-type]
        return SenderPipeline(
            self.near,
            self.core,
            CLOCK,
            picture=picture,
            camera=self.camera,
            microphone=self.microphone,
            speech=SpeechPath(),
        )

    def assert_all_closed(self) -> None:
        assert self.camera.closed and self.microphone.closed and self.tracker.closed
        assert not self.near.send(Channel.CONTROL, b"x")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    near, far = loopback_pair(CLOCK)
    made = Bench(near, far)
    yield made
    await far.close()
    await made.peer.drain()


async def test_a_video_is_sent_to_its_end(bench: Bench) -> None:
    bench.camera = FakeCamera(CLOCK, frames=20)
    pipeline = bench.pipeline()
    assert await pipeline.run() == VIDEO_ENDED
    await bench.peer.drain()
    assert bench.peer.keyframes == [0]
    motion = [unit for media in bench.peer.media for unit in media.motion]
    audio = [unit for media in bench.peer.media for unit in media.audio]
    assert motion[-1].pts_ms == 19 * 40 and len(motion) >= 10 and len(audio) >= 15
    assert bench.peer.bye == VIDEO_ENDED
    snapshot = pipeline.snapshot()
    assert (snapshot.frames, snapshot.face) == (20, FaceState.TRACKED)
    assert snapshot.stats.motion_units == len(motion) and snapshot.elapsed_ms > 700
    bench.assert_all_closed()


async def test_the_first_picture_is_sent_once_more_and_sharper(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.tracker, "crop", lambda _: textured_crop())
    bench.core = SenderCore(80, references=ReferenceSet(sharp_bytes=SHARP_BYTES))
    task = asyncio.create_task(bench.pipeline().run())
    await bench.peer.until(lambda: bench.peer.media and bench.core.acknowledged_keyframe == 1)
    assert bench.peer.keyframes == [0, 1]
    bench.peer.tell(Bye(""))
    await asyncio.wait_for(task, 5)
    stats = bench.core.stats()
    assert stats.keyframes == 2 and 4000 + 4000 < stats.keyframe_bytes < 4000 + SHARP_BYTES + 1000


async def test_it_ends_when_the_peer_says_goodbye(bench: Bench) -> None:
    task = asyncio.create_task(bench.pipeline().run())
    await bench.peer.until(lambda: bench.peer.media)
    bench.peer.tell(Bye("have a nice day"))
    assert await asyncio.wait_for(task, 5) == "the other side ended the call: have a nice day"
    await bench.peer.drain()
    assert bench.peer.bye is None  # who has said goodbye needs no answer
    bench.assert_all_closed()


async def test_a_cancelled_call_tells_the_peer(bench: Bench) -> None:
    task = asyncio.create_task(bench.pipeline().run())
    await bench.peer.until(lambda: bench.peer.media)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await bench.peer.drain()
    assert bench.peer.bye == "ended by the user"
    bench.assert_all_closed()


async def test_it_ends_when_the_time_is_up(bench: Bench) -> None:
    assert await bench.pipeline().run(duration_s=0.3) == "the time is up"
    await bench.peer.drain()
    assert bench.peer.bye == "the time is up"


async def test_a_lost_peer_ends_the_call(bench: Bench) -> None:
    task = asyncio.create_task(bench.pipeline().run())
    await bench.peer.until(lambda: bench.peer.media)
    await bench.peer.transport.close()
    with pytest.raises(PeerLostError):
        await asyncio.wait_for(task, 5)
    bench.assert_all_closed()


@pytest.mark.parametrize(
    "error",
    [CameraError("camera 0 delivers no pictures; is it plugged in and free?"), NoFaceError("no face")],
)
async def test_a_camera_that_fails_ends_the_call_and_the_peer_hears_why(
    bench: Bench, error: AvcallError
) -> None:
    bench.camera = FakeCamera(CLOCK, frames=5, error=error)
    with pytest.raises(type(error)) as raised:
        await bench.pipeline().run()
    assert raised.value is error
    await bench.peer.drain()
    assert bench.peer.bye == str(error)
    bench.assert_all_closed()


async def test_a_microphone_that_fails_ends_the_call(bench: Bench) -> None:
    bench.microphone = FakeMicrophone(CLOCK, chunks=3, error=AudioDeviceError("microphone 'x' is gone"))
    with pytest.raises(AudioDeviceError, match="is gone"):
        await bench.pipeline().run()
    bench.assert_all_closed()


async def test_a_microphone_that_ends_does_not_end_the_call(bench: Bench) -> None:
    bench.camera = FakeCamera(CLOCK, frames=20)
    bench.microphone = FakeMicrophone(CLOCK, chunks=3)
    assert await bench.pipeline().run() == VIDEO_ENDED


async def test_a_mistake_of_ours_is_logged_and_ends_the_call_in_one_line(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.camera = FakeCamera(CLOCK, frames=3, error=ZeroDivisionError("first line\nsecond line"))
    with (
        pytest.raises(AvcallError, match="the picture of the sender failed") as raised,
        caplog.at_level(logging.ERROR),
    ):
        await bench.pipeline().run()
    assert "\n" not in str(raised.value)
    assert caplog.records[0].exc_info is not None
    bench.assert_all_closed()


async def test_a_mistake_in_a_task_ends_the_call(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.core, "adapt", lambda *_: 1 / 0)
    with pytest.raises(AvcallError, match="the sending of the sender failed"):
        await bench.pipeline().run()
    bench.assert_all_closed()


async def test_one_input_that_fails_to_close_leaves_no_other_open(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        FakeCamera.close(bench.camera)
        raise CameraError("it does not close")

    monkeypatch.setattr(bench.camera, "close", fail)
    with pytest.raises(CameraError, match="does not close"):
        await bench.pipeline().run(duration_s=0.1)
    bench.assert_all_closed()


async def test_a_video_without_a_face_is_an_error_at_its_end(bench: Bench) -> None:
    bench.camera = FakeCamera(CLOCK, frames=5)
    bench.tracker = FakeTracker(blind=range(0, 1000, 40))
    with pytest.raises(NoFaceError, match="no face in the whole video"):
        await bench.pipeline().run()


async def test_motion_waits_for_a_peer_that_has_the_keyframe(bench: Bench) -> None:
    bench.peer.polite = False
    bench.camera = FakeCamera(CLOCK, frames=15)
    await bench.pipeline().run()
    await bench.peer.drain()
    assert bench.peer.keyframes == [0]
    assert not any(media.motion for media in bench.peer.media) and bench.peer.media


async def test_a_keyframe_that_is_asked_for_is_sent_again(bench: Bench) -> None:
    bench.peer.polite = False
    task = asyncio.create_task(bench.pipeline().run())
    await bench.peer.until(lambda: bench.peer.keyframes)
    while len(bench.peer.keyframes) < 2:
        bench.peer.tell(KeyframeRequest())
        await asyncio.sleep(0.1)
        assert not task.done()
    assert bench.peer.keyframes == [0, 0]
    bench.peer.tell(Bye("enough"))
    await task


async def test_a_report_tells_the_time_there_and_back(bench: Bench) -> None:
    pipeline = bench.pipeline()
    task = asyncio.create_task(pipeline.run())
    await bench.peer.until(lambda: bench.peer.media)
    newest = bench.peer.media[-1].sequence
    bench.peer.tell(Report(1, 0, 0, 0.0, 40.0, 0, 300, 0.0, newest, 0.0))
    await bench.peer.until(lambda: pipeline.snapshot().stats.rtt_ms is not None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
