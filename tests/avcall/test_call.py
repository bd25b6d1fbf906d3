"""Whole calls in one process: real signaling and WebRTC on the loopback, fake networks and tracker."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import av
import pytest

import avcall.call
from avcall.call import ENDED_HERE, Receiver, ReceiveResult, Sender, SendResult
from avcall.config import ReceiveConfig, SendConfig
from avcall.errors import (
    AudioDeviceError,
    AvcallError,
    CameraError,
    ConfigError,
    DisplayError,
    PeerBusyError,
    PeerUnreachableError,
    RecordingError,
    SignalingError,
    UnauthorizedError,
)
from avcall.transport.base import WireCounters
from receiver.pipeline import ReceiverSnapshot
from sender.pipeline import SenderSnapshot
from tests.clips import tone, write_clip, write_wav
from tests.fakes import FakeRuntime, FakeTracker

TOKEN = "a-token"


class Listener:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.url = ""
        self.invited = asyncio.Event()
        self.moments: list[SenderSnapshot | ReceiverSnapshot] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def invite(self, url: str, token: str | None) -> None:
        self.url = url
        self.invited.set()

    def sending(self, snapshot: SenderSnapshot, wire: WireCounters) -> None:
        self.moments.append(snapshot)

    def receiving(self, snapshot: ReceiverSnapshot, wire: WireCounters) -> None:
        self.moments.append(snapshot)


@pytest.fixture(autouse=True)
def trackers(monkeypatch: pytest.MonkeyPatch) -> list[FakeTracker]:
    """Fake networks, and the fake trackers that were made."""
    made: list[FakeTracker] = []

    def make_tracker() -> FakeTracker:
        made.append(FakeTracker())
        return made[-1]

    monkeypatch.setattr(avcall.call, "ModelRuntime", lambda *_, **__: FakeRuntime())
    monkeypatch.setattr(avcall.call, "FaceTracker", make_tracker)
    return made


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of video with sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    return write_clip(path, [number * 40 for number in range(25)], tone(440, 1000))


def receive_config(**changes: Any) -> ReceiveConfig:
    values: dict[str, Any] = {"listen": "127.0.0.1:0", "display": "none", "speaker": "none", "token": TOKEN}
    return ReceiveConfig(**(values | changes))


class Answering:
    """A receiver that waits for a call."""

    def __init__(self, **changes: Any) -> None:
        self.reporter = Listener()
        self.task = asyncio.create_task(Receiver(receive_config(**changes), self.reporter).run())

    async def url(self) -> str:
        waiting = asyncio.create_task(self.reporter.invited.wait())
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        waiting.cancel()
        return self.reporter.url

    async def result(self) -> ReceiveResult:
        return await asyncio.wait_for(self.task, 20)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (the condition changes in other tasks)
            await asyncio.sleep(0.02)


@pytest.fixture
async def answering() -> AsyncIterator[Answering]:
    made = Answering()
    yield made
    made.task.cancel()
    with contextlib.suppress(asyncio.CancelledError, AvcallError):
        await made.task


async def send(url: str, camera: Path, reporter: Listener | None = None, **changes: Any) -> SendResult:
    values: dict[str, Any] = {"peer": url, "camera": str(camera), "motion": "fp16", "token": TOKEN}
    config = SendConfig(**(values | changes))
    return await asyncio.wait_for(Sender(config, reporter or Listener()).run(), 30)


async def test_a_call_from_a_file_to_a_recording(
    clip: Path, tmp_path: Path, trackers: list[FakeTracker]
) -> None:
    answering, reporter = Answering(record=tmp_path / "call.mp4"), Listener()
    sent = await send(await answering.url(), clip, reporter, loop=True, duration_s=2.0)
    received = await answering.result()
    assert sent.reason == "the time is up"
    assert received.reason == "the other side ended the call: the time is up"
    assert (sent.provider, received.provider, received.failure) == ("fake", "fake", None)
    assert sent.snapshot.stats.motion_units > 20 and sent.snapshot.stats.audio_units > 20
    assert received.snapshot.pictures.shown > 15
    assert 0 < received.snapshot.stats.motion_units <= sent.snapshot.stats.motion_units
    assert sent.wire.sent_bytes > sent.snapshot.stats.media_bytes
    assert reporter.moments and answering.reporter.moments
    assert any("camera: clip.mkv" in line for line in reporter.said)
    assert trackers[0].closed
    with av.open(str(tmp_path / "call.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) > 15
    assert received.recording_start_ms is not None


async def test_a_sender_that_is_interrupted_gives_its_summary_and_the_other_side_hears_of_it(
    answering: Answering, clip: Path
) -> None:
    reporter = Listener()
    sending = asyncio.create_task(send(await answering.url(), clip, reporter, loop=True))
    await until(lambda: reporter.moments)
    sending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        assert (await sending).reason == ENDED_HERE
    assert (await answering.result()).reason == "the other side ended the call: ended by the user"


async def test_a_receiver_that_is_interrupted_ends_the_call_on_both_sides(
    answering: Answering, clip: Path
) -> None:
    sending = asyncio.create_task(send(await answering.url(), clip, loop=True))
    await until(lambda: answering.reporter.moments)
    answering.task.cancel()
    assert (await sending).reason == "the other side ended the call: ended by the user"
    assert (await answering.task).reason == ENDED_HERE


async def test_a_wrong_token_is_refused_and_the_right_one_still_gets_in(
    answering: Answering, clip: Path, trackers: list[FakeTracker]
) -> None:
    url = await answering.url()
    with pytest.raises(UnauthorizedError, match="--token"):
        await send(url, clip, token="wrong")
    assert trackers[0].closed
    assert (await send(url, clip)).reason == "the video ended"
    await answering.result()


async def test_a_second_caller_hears_that_the_line_is_busy(answering: Answering, clip: Path) -> None:
    url = await answering.url()
    first = asyncio.create_task(send(url, clip, loop=True, duration_s=2.0))
    await until(lambda: answering.reporter.moments)
    with pytest.raises(PeerBusyError, match="already in a call"):
        await send(url, clip)
    assert (await first).reason == "the time is up"


async def test_nobody_answers(clip: Path, trackers: list[FakeTracker]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(PeerUnreachableError, match="nobody answers at") as error:
        await send(f"http://127.0.0.1:{port}/call", clip)
    assert "\n" not in str(error.value)
    assert trackers[0].closed


async def test_inputs_are_checked_before_the_other_side_is_called(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(avcall.call, "post_offer", lambda *_: pytest.fail("it called"))
    silent = write_wav(tmp_path / "only-sound.wav", tone(440, 100))
    nowhere = "http://127.0.0.1:9/call"
    with pytest.raises(CameraError, match=r"no such camera or file: missing.mp4"):
        await send(nowhere, Path("missing.mp4"))
    with pytest.raises(CameraError, match="holds no video"):
        await send(nowhere, silent)
    with pytest.raises(AudioDeviceError, match=r"no such file: missing.wav"):
        await send(nowhere, clip, microphone="missing.wav")
    video = write_clip(tmp_path / "mute.mkv", [0, 40])
    with pytest.raises(AudioDeviceError, match="holds no sound"):
        await send(nowhere, clip, microphone=str(video))


async def test_a_microphone_that_fails_after_all_is_told_to_the_other_side(
    answering: Answering, clip: Path, monkeypatch: pytest.MonkeyPatch, trackers: list[FakeTracker]
) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise AudioDeviceError("microphone 'x' cannot be opened; try another")

    monkeypatch.setattr(avcall.call, "open_microphone", gone)
    with pytest.raises(AudioDeviceError, match="cannot be opened"):
        await send(await answering.url(), clip)
    assert trackers[0].closed
    received = await answering.result()
    assert received.reason == "the other side ended the call: microphone 'x' cannot be opened; try another"


async def test_a_file_without_sound_is_sent_without_sound(answering: Answering, tmp_path: Path) -> None:
    mute = write_clip(tmp_path / "mute.mkv", [number * 40 for number in range(20)])
    reporter = Listener()
    sent = await send(await answering.url(), mute, reporter)
    assert sent.snapshot.stats.audio_units == 0
    assert any("microphone: none" in line for line in reporter.said)


async def test_sound_from_another_file(answering: Answering, tmp_path: Path) -> None:
    mute = write_clip(tmp_path / "mute.mkv", [number * 40 for number in range(20)])
    sound = write_wav(tmp_path / "sound.wav", tone(300, 1000))
    sent = await send(await answering.url(), mute, microphone=str(sound))
    assert sent.snapshot.stats.audio_units > 10


async def test_a_port_that_is_taken_is_one_line_and_leaves_nothing_open(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answering = Answering(listen=f"127.0.0.1:{port}", speaker=str(tmp_path / "sound.wav"))
        with pytest.raises(AvcallError, match=str(port)) as error:
            await answering.result()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"display": "window"}, DisplayError),
        ({"display": "film.avi"}, DisplayError),
        ({"record": Path("/no/such/folder/call.mp4")}, RecordingError),
        ({"speaker": "/no/such/folder/sound.wav"}, RecordingError),
        ({"listen": "nonsense"}, ConfigError),
    ],
)
async def test_outputs_that_cannot_be_opened(
    change: dict[str, Any], error: type[AvcallError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(error) as raised:
        await Answering(**change).result()
    assert "\n" not in str(raised.value)


async def test_a_display_that_is_a_file_gets_sound(clip: Path, tmp_path: Path) -> None:
    answering = Answering(display=str(tmp_path / "shown.mp4"))
    await send(await answering.url(), clip)
    await answering.result()
    with av.open(str(tmp_path / "shown.mp4")) as container:
        assert container.streams.audio and container.streams.video


async def test_a_receiver_waits_on_when_a_call_does_not_come_through(
    answering: Answering, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await answering.url()
    monkeypatch.setattr(avcall.call, "CONNECT_TIMEOUT_MS", 300.0)
    caller = await avcall.call.WebRtcTransport.offer()
    await avcall.call.post_offer(url, caller.local_sdp, TOKEN)
    await until(lambda: any("did not come through" in line for line in answering.reporter.said))
    await caller.close()
    monkeypatch.setattr(avcall.call, "CONNECT_TIMEOUT_MS", 20_000.0)
    assert (await send(url, clip)).reason == "the video ended"
    await answering.result()


class ClosedRoom:
    """A room at a rendezvous that expires."""

    url = "http://rendezvous/room"

    async def start(self) -> None:
        pass

    async def wait_closed(self) -> str:
        return "the room at http://rendezvous is closed; start again for a new one"

    async def close(self) -> None:
        pass


async def test_a_room_that_closes_before_a_call_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Receiver, "_door", lambda _: ClosedRoom())
    with pytest.raises(SignalingError, match="start again for a new one"):
        await Answering(rendezvous="http://rendezvous").result()


async def test_a_loop_keeps_picture_and_sound_together(answering: Answering, clip: Path) -> None:
    """Two rounds of a clip: what is received is a single call without a jump."""
    await send(await answering.url(), clip, loop=True, duration_s=2.2)
    received = await answering.result()
    assert received.snapshot.playout.jitter.resyncs == 0
    assert received.snapshot.stats.packets.dropped == {}
    assert received.snapshot.pictures.last_pts_ms > 1000
