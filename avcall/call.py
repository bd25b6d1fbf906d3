"""Composition root: builds each end's pipeline around one transport and runs the call."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import av
import av.error

from avcall.bitstream.motion import MotionMode
from avcall.clock import Clock, SystemClock
from avcall.config import NetworkConfig, ReceiveConfig, SendConfig
from avcall.errors import AvcallError, PhotoError
from avcall.transport.base import Transport, WireCounters
from avcall.transport.webrtc import IceConfig, WebRtcTransport
from avcall.types import FaceCrop
from models.priors import PriorExtractor
from models.runtime import Device, Graph, ModelRuntime
from receiver.core import ReceiverCore
from receiver.display import open_display
from receiver.jitterbuffer import JitterBufferConfig
from receiver.mel import MelWindows
from receiver.pipeline import Outputs, ReceiverPipeline, ReceiverSnapshot
from receiver.playout import Playout
from receiver.record import Recorder
from receiver.speaker import open_speaker
from receiver.synthesize import Synthesizer
from sender.audio_encode import OpusEncoder
from sender.capture import check_camera, open_camera
from sender.core import SenderCore
from sender.detect import Detector
from sender.encode import KeyframeEncoder
from sender.microphone import open_microphone
from sender.picture import PicturePath
from sender.pipeline import SenderPipeline, SenderSnapshot
from sender.track import FaceTracker, crop_photo
from signaling.client import RoomHost, delete_session, post_offer
from signaling.server import WhipServer, parse_address

CONNECT_TIMEOUT_MS = 20_000.0
STATUS_EVERY_S = 0.5
ENDED_HERE = "the call was ended on this side"
DETECT_THREADS = 1  # the detector takes milliseconds; the other cores are for the rest of the call
SYNTHESIZE_THREADS = 2
MAX_PHOTO_SIDE_PX = 4096


class Reporter(Protocol):
    """Whoever shows the call to the user."""

    def say(self, text: str) -> None:
        """One line worth reading."""
        ...

    def invite(self, url: str, token: str | None) -> None:
        """The receiver waits for a call at `url`."""
        ...

    def sending(self, snapshot: SenderSnapshot, wire: WireCounters) -> None:
        """A moment of the sender."""
        ...

    def receiving(self, snapshot: ReceiverSnapshot, wire: WireCounters) -> None:
        """A moment of the receiver."""
        ...


@dataclass(frozen=True, slots=True)
class SendResult:
    """How a sent call went."""

    reason: str
    snapshot: SenderSnapshot
    wire: WireCounters
    provider: str


@dataclass(frozen=True, slots=True)
class ReceiveResult:
    """How a received call went; `failure` is what went wrong beside the call, such as a full disk."""

    reason: str
    snapshot: ReceiverSnapshot
    wire: WireCounters
    provider: str
    failure: AvcallError | None
    recording_start_ms: int | None  # media time of the first moment of the recording


def load_photo(path: Path) -> FaceCrop:
    """The one face of a photo, cropped. Raises PhotoError in one line."""
    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
    except (av.error.FFmpegError, OSError, IndexError, StopIteration) as error:
        reason = getattr(error, "strerror", None) or "no picture inside"
        raise PhotoError(
            f"--source {path} cannot be read ({reason}); give a JPEG or PNG of one face"
        ) from None
    if max(frame.width, frame.height) > MAX_PHOTO_SIDE_PX:
        raise PhotoError(
            f"--source {path} is {frame.width}x{frame.height}; at most {MAX_PHOTO_SIDE_PX} pixels a side"
        )
    with PriorExtractor(tracking=False, max_faces=2) as extractor:
        crop, count = crop_photo(frame.to_ndarray(format="rgb24"), extractor)
    if crop is None:
        what = "no face" if count == 0 else f"{count} faces"
        raise PhotoError(
            f"--source {path} shows {what}; give a photo of exactly one face, seen from the front"
        )
    return crop


def _ice(network: NetworkConfig) -> IceConfig:
    return IceConfig(network.stun_url, network.turn_url, network.turn_user, network.turn_password)


async def _watched(work: Awaitable[str], show: Callable[[], None]) -> str:
    """Await `work` while `show` is called twice a second."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=STATUS_EVERY_S)
            show()
        return task.result()
    finally:
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


class Sender:
    """One sent call, from the configuration to the result."""

    def __init__(self, config: SendConfig, reporter: Reporter, clock: Clock | None = None) -> None:
        self._config, self._reporter = config, reporter
        self._clock = clock or SystemClock()

    async def run(self) -> SendResult:
        """Call, send until the end, and say how it went. Raises AvcallError in one line."""
        config = self._config
        check_camera(config.camera)
        picture, runtime = await asyncio.to_thread(self._load)
        self._reporter.say(f"keypoint detector on {runtime.provider}")
        try:
            transport, location = await self._connect()
        except BaseException:
            picture.close()
            raise
        try:
            pipeline = self._build(transport, picture)
        except BaseException:
            await transport.close()
            raise
        try:
            reason = await _watched(
                pipeline.run(config.duration_s),
                lambda: self._reporter.sending(pipeline.snapshot(), transport.counters()),
            )
        except asyncio.CancelledError:
            reason = ENDED_HERE  # the pipeline has said goodbye; what is left is the summary
        finally:
            if location is not None:
                await delete_session(location, config.token)
        return SendResult(reason, pipeline.snapshot(), transport.counters(), runtime.provider)

    def _load(self) -> tuple[PicturePath, ModelRuntime]:
        """The networks, warmed up; takes a second or two."""
        config = self._config
        photo = load_photo(config.source) if config.source else None
        runtime = ModelRuntime(
            (Graph.DETECT,), device=Device(config.device), threads=DETECT_THREADS, weights=config.weights
        )
        runtime.warm_up()
        detector = Detector(runtime)
        keyframes = KeyframeEncoder(detector, config.keyframe_bytes)
        mode = MotionMode[config.motion.upper()]
        return PicturePath(detector, FaceTracker(), keyframes, mode, photo), runtime

    async def _connect(self) -> tuple[Transport, str | None]:
        config = self._config
        transport = await WebRtcTransport.offer(_ice(config.network), self._clock)
        try:
            session = await post_offer(config.peer, transport.local_sdp, config.token)
            await transport.set_answer(session.answer_sdp)
            await transport.wait_connected(CONNECT_TIMEOUT_MS)
        except BaseException:
            await transport.close()
            raise
        self._reporter.say(f"connected to {config.peer}")
        return transport, session.location

    def _build(self, transport: Transport, picture: PicturePath) -> SenderPipeline:
        config = self._config
        origin_ms = self._clock.now_ms()
        camera = open_camera(config.camera, self._clock, origin_ms, config.loop)
        try:
            microphone = open_microphone(
                self._microphone_spec(getattr(camera, "has_audio", None)),
                self._clock,
                origin_ms,
                config.audio_frame_ms,
                loop=config.loop,
                duration_hint_ms=getattr(camera, "duration_ms", None),
            )
        except BaseException:
            camera.close()
            raise
        self._reporter.say(f"camera: {camera.description}   microphone: {microphone.description}")
        encoder = OpusEncoder(config.audio_bitrate_bps, config.audio_frame_ms)
        core = SenderCore(config.tick_ms)
        return SenderPipeline(transport, core, picture, camera, microphone, encoder, self._clock)

    def _microphone_spec(self, file_has_audio: bool | None) -> str:
        """The user's choice, else the camera file's own sound, else the default device."""
        if self._config.microphone is not None:
            return self._config.microphone
        if file_has_audio is None:
            return "default"
        return self._config.camera if file_has_audio else "none"


class Receiver:
    """One received call: opens the outputs, waits for a caller, plays until the end."""

    def __init__(self, config: ReceiveConfig, reporter: Reporter, clock: Clock | None = None) -> None:
        self._config, self._reporter = config, reporter
        self._clock = clock or SystemClock()
        self._called: asyncio.Queue[WebRtcTransport] = asyncio.Queue(1)

    async def run(self) -> ReceiveResult:
        """Wait for one call and take it. Raises AvcallError in one line."""
        config = self._config
        runtime = await asyncio.to_thread(self._load)
        outputs = self._open_outputs()
        try:
            speaker = open_speaker(config.speaker, self._clock)
        except BaseException:
            outputs.close()
            raise
        speech = MelWindows()
        playout = Playout(speech, JitterBufferConfig(max_delay_ms=float(config.max_delay_ms)))
        try:
            door = self._door()
            await door.start()
        except BaseException:
            speaker.close()
            outputs.close()
            raise
        self._reporter.say(f"face synthesis on {runtime.provider}")
        try:
            self._reporter.invite(door.url, config.token)
            transport = await self._wait_for_call(door)
            core = ReceiverCore(playout)
            pipeline = ReceiverPipeline(
                transport, core, Synthesizer(runtime, speech), outputs, speaker, self._clock
            )
            try:
                reason = await _watched(
                    pipeline.run(),
                    lambda: self._reporter.receiving(pipeline.snapshot(), transport.counters()),
                )
            except asyncio.CancelledError:
                reason = ENDED_HERE  # the pipeline has said goodbye; what is left is the summary
        except BaseException:
            speaker.close()
            outputs.close()
            raise
        finally:
            await door.close()
        return ReceiveResult(
            reason,
            pipeline.snapshot(),
            transport.counters(),
            runtime.provider,
            outputs.failure,
            outputs.start_pts_ms,
        )

    def _open_outputs(self) -> Outputs:
        """The display and the recording; a display that is a file is a recording, and so has sound."""
        display, record = self._config.display, self._config.record
        if display.lower().endswith(".mp4"):
            record = record or Path(display)
            display = "none"
        shown = open_display(display)
        try:
            recorder = Recorder(record) if record is not None else None
        except BaseException:
            shown.close()
            raise
        return Outputs(shown, recorder)

    def _load(self) -> ModelRuntime:
        runtime = ModelRuntime(
            (Graph.ENCODE_KEYFRAME, Graph.SYNTHESIZE),
            device=Device(self._config.device),
            threads=SYNTHESIZE_THREADS,
            weights=self._config.weights,
        )
        runtime.warm_up()
        return runtime

    def _door(self) -> WhipServer | RoomHost:
        config = self._config
        if config.rendezvous is not None:
            return RoomHost(
                config.rendezvous, config.token, self._on_offer, self._on_delete, config.host_token
            )
        host, port = parse_address(config.listen)
        return WhipServer(host, port, config.token, self._on_offer, self._on_delete)

    async def _on_offer(self, offer_sdp: str) -> str:
        transport = await WebRtcTransport.accept(offer_sdp, _ice(self._config.network), self._clock)
        self._called.put_nowait(transport)
        return transport.local_sdp

    async def _on_delete(self) -> None:
        """The caller ends the session over HTTP; its goodbye on the control channel has said so already."""

    async def _wait_for_call(self, door: WhipServer | RoomHost) -> WebRtcTransport:
        """The first caller whose connection really opens."""
        while True:
            transport = await self._called.get()
            try:
                await transport.wait_connected(CONNECT_TIMEOUT_MS)
            except AvcallError as error:
                self._reporter.say(f"a call did not come through: {error}")
                await transport.close()
                door.end_session()
                continue
            self._reporter.say("connected")
            return transport
