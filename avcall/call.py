"""Composition root: builds each end's pipeline around one transport and runs the call."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from avcall.bitstream import control
from avcall.clock import Clock, SystemClock
from avcall.config import NetworkConfig, ReceiveConfig, SendConfig
from avcall.ending import watched
from avcall.errors import AvcallError, SignalingError
from avcall.transport.base import Channel, Transport, WireCounters
from avcall.transport.webrtc import IceConfig, WebRtcTransport
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
from sender.capture import check_camera, is_device, open_camera
from sender.core import SenderCore
from sender.detect import Detector
from sender.encode import KeyframeEncoder, MotionGroupEncoder
from sender.media_file import probe_video
from sender.microphone import check_microphone, open_microphone
from sender.photo import load_photo
from sender.picture import PicturePath
from sender.pipeline import SenderPipeline, SenderSnapshot
from sender.preview import Previewer
from sender.ratecontrol import RateConfig
from sender.references import KeyframeBudget, ReferenceSet
from sender.speech import SpeechPath
from sender.track import FaceTracker
from signaling.client import RoomHost, delete_session, post_offer
from signaling.messages import RefusedError
from signaling.server import WhipServer, parse_address

CONNECT_TIMEOUT_MS = 20_000.0
ENDED_HERE = "the call was ended on this side"
DETECT_THREADS = 1  # the detector takes milliseconds; the other cores are for the rest of the call
SYNTHESIZE_THREADS = 2
MAX_CALLERS = 2  # connections that wait; the door lets in one at a time


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


def _ice(network: NetworkConfig) -> IceConfig:
    return IceConfig(network.stun_url, network.turn_url, network.turn_user, network.turn_password)


@dataclass(frozen=True, slots=True)
class _SenderParts:
    """What is loaded before the other side is called."""

    picture: PicturePath
    core: SenderCore
    provider: str


class Sender:
    """One sent call, from the configuration to the result."""

    def __init__(self, config: SendConfig, reporter: Reporter, clock: Clock | None = None) -> None:
        self._config, self._reporter = config, reporter
        self._clock = clock or SystemClock()

    async def run(self) -> SendResult:
        """Call, send until the end, and say how it went. Raises AvcallError in one line."""
        self._check_inputs()
        loaded = await asyncio.to_thread(self._load)
        try:
            self._reporter.say(f"keypoint detector on {loaded.provider}")
            transport, location = await self._connect()
            pipeline = await self._open_inputs(transport, location, loaded)
        except BaseException:
            loaded.picture.close()
            raise
        try:
            reason = await watched(
                pipeline.run(self._config.duration_s),
                lambda: self._reporter.sending(pipeline.snapshot(), transport.counters()),
            )
        except asyncio.CancelledError:
            reason = ENDED_HERE  # the pipeline has said goodbye; what is left is the summary
        finally:
            await self._leave(location)
        return SendResult(reason, pipeline.snapshot(), transport.counters(), loaded.provider)

    def _check_inputs(self) -> None:
        """Raise CameraError or AudioDeviceError before the other side is called for nothing."""
        config = self._config
        check_camera(config.camera)
        if config.microphone is not None:
            check_microphone(config.microphone)
        elif is_device(config.camera):
            check_microphone("default")

    def _load(self) -> _SenderParts:
        """The networks, warmed up; takes a second or two."""
        config = self._config
        photo = load_photo(config.source) if config.source else None
        runtime = ModelRuntime(
            (Graph.DETECT, Graph.REFINE, Graph.PREVIEW),
            device=Device(config.device),
            threads=DETECT_THREADS,
            weights=config.weights,
        )
        runtime.warm_up()
        detector = Detector(runtime)
        sharp_bytes = config.sharp_keyframe_bytes
        keyframes = KeyframeEncoder(
            detector, config.keyframe_bytes, config.first_keyframe_bytes, sharp_bytes=sharp_bytes
        )
        coder = runtime.motion_coder()
        group = MotionGroupEncoder(coder, config.motion_step) if config.motion == "coded" else None
        # A photo is one picture: there is nothing to make a new keyframe of.
        budget = KeyframeBudget(0 if photo else config.keyframe_budget_bits)
        references = ReferenceSet(budget, config.keyframe_bytes, sharp_bytes)
        core = SenderCore(config.tick_ms, group, coder.digest, references, rate=self._rate())
        previewer = Previewer(runtime) if runtime.has_preview else None
        picture = PicturePath(detector, FaceTracker(), keyframes, photo, previewer=previewer, threaded=True)
        return _SenderParts(picture, core, runtime.provider)

    async def _connect(self) -> tuple[Transport, str | None]:
        """A connected transport, and the URL that ends the session."""
        config = self._config
        transport = await WebRtcTransport.offer(_ice(config.network), self._clock)
        location = None
        try:
            session = await post_offer(config.peer, transport.local_sdp, config.token)
            location = session.location
            await transport.set_answer(session.answer_sdp)
            await transport.wait_connected(CONNECT_TIMEOUT_MS)
        except BaseException:
            await transport.close()
            await self._leave(location)
            raise
        self._reporter.say(f"connected to {config.peer}")
        return transport, location

    async def _leave(self, location: str | None) -> None:
        """Free the receiver's door for the next caller."""
        if location is not None:
            await delete_session(location, self._config.token)

    async def _open_inputs(
        self, transport: Transport, location: str | None, loaded: _SenderParts
    ) -> SenderPipeline:
        """The pipeline with camera and microphone, which may take seconds to open: in a thread."""
        try:
            return await asyncio.to_thread(self._build, transport, loaded)
        except BaseException as error:
            reason = str(error) if isinstance(error, AvcallError) else ENDED_HERE
            transport.send(Channel.CONTROL, control.serialize(control.Bye.of(reason)))
            await transport.close()
            await self._leave(location)
            raise

    def _build(self, transport: Transport, loaded: _SenderParts) -> SenderPipeline:
        config = self._config
        origin_ms = self._clock.now_ms()
        camera = open_camera(config.camera, self._clock, origin_ms, config.loop)
        try:
            microphone = open_microphone(
                self._microphone_spec(),
                self._clock,
                origin_ms,
                config.speech_frame_ms,
                loop=config.loop,
                duration_hint_ms=getattr(camera, "duration_ms", None),
            )
        except BaseException:
            camera.close()
            raise
        self._reporter.say(f"camera: {camera.description}   microphone: {microphone.description}")
        return SenderPipeline(
            transport,
            loaded.core,
            self._clock,
            picture=loaded.picture,
            camera=camera,
            microphone=microphone,
            speech=SpeechPath(config.audio_bitrate_bps, config.speech_frame_ms),
        )

    def _rate(self) -> RateConfig:
        config = self._config
        return RateConfig(
            tick_ms=config.tick_ms,
            motion_step=config.motion_step if config.motion == "coded" else None,
            audio_bps=config.audio_bitrate_bps,
            audio_frame_ms=config.speech_frame_ms,
            max_bps=None if config.max_kbps is None else config.max_kbps * 1000,
        )

    def _microphone_spec(self) -> str:
        """The user's choice, else the camera file's own sound, else the default device."""
        config = self._config
        if config.microphone is not None:
            return config.microphone
        if is_device(config.camera):
            return "default"
        return config.camera if probe_video(config.camera).has_audio else "none"


class Receiver:
    """One received call: opens the outputs, waits for a caller, plays until the end."""

    def __init__(self, config: ReceiveConfig, reporter: Reporter, clock: Clock | None = None) -> None:
        self._config, self._reporter = config, reporter
        self._clock = clock or SystemClock()
        self._called: asyncio.Queue[WebRtcTransport] = asyncio.Queue(MAX_CALLERS)

    async def run(self) -> ReceiveResult:
        """Wait for one call and take it. Raises AvcallError in one line."""
        config = self._config
        runtime = await asyncio.to_thread(self._load)
        coder = runtime.motion_coder()
        door = self._door()
        speech = MelWindows()
        playout = Playout(speech, JitterBufferConfig(max_delay_ms=float(config.max_delay_ms)))
        try:
            # What is opened here belongs to the pipeline once that exists.
            with contextlib.ExitStack() as unowned:
                outputs = self._open_outputs()
                unowned.callback(outputs.close)
                speaker = open_speaker(config.speaker, self._clock)
                unowned.callback(speaker.close)
                await door.start()
                self._reporter.say(f"face synthesis on {runtime.provider}")
                self._reporter.invite(door.url, config.token)
                transport = await self._wait_for_call(door)
                pipeline = ReceiverPipeline(
                    transport,
                    ReceiverCore(playout, coder, coder.digest),
                    self._clock,
                    synthesizer=Synthesizer(runtime, speech),
                    outputs=outputs,
                    speaker=speaker,
                )
                unowned.pop_all()
            try:
                reason = await watched(
                    pipeline.run(),
                    lambda: self._reporter.receiving(pipeline.snapshot(), transport.counters()),
                )
            except asyncio.CancelledError:
                reason = ENDED_HERE  # the pipeline has said goodbye; what is left is the summary
        finally:
            await door.close()
            await self._turn_away()
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
        if self._called.full():
            raise RefusedError(409, "already in a call")
        transport = await WebRtcTransport.accept(offer_sdp, _ice(self._config.network), self._clock)
        try:
            self._called.put_nowait(transport)
        except asyncio.QueueFull:
            await transport.close()
            raise RefusedError(409, "already in a call") from None
        return transport.local_sdp

    async def _on_delete(self) -> None:
        """The caller ends the session over HTTP; its goodbye on the control channel has said so already."""

    async def _wait_for_call(self, door: WhipServer | RoomHost) -> WebRtcTransport:
        """The first caller whose connection really opens. Raises SignalingError when the room closes."""
        while True:
            transport = await self._next_caller(door)
            try:
                await transport.wait_connected(CONNECT_TIMEOUT_MS)
            except AvcallError as error:
                self._reporter.say(f"a call did not come through: {error}")
                await transport.close()
                door.end_session()
                continue
            except BaseException:
                await transport.close()
                raise
            self._reporter.say("connected")
            return transport

    async def _next_caller(self, door: WhipServer | RoomHost) -> WebRtcTransport:
        if isinstance(door, WhipServer):
            return await self._called.get()
        caller = asyncio.ensure_future(self._called.get())
        closed = asyncio.ensure_future(door.wait_closed())
        try:
            await asyncio.wait({caller, closed}, return_when=asyncio.FIRST_COMPLETED)
            if not caller.done():
                raise SignalingError(closed.result())
            return caller.result()
        finally:
            caller.cancel()
            closed.cancel()

    async def _turn_away(self) -> None:
        """Close the connections of those who called while the line was busy."""
        while not self._called.empty():
            await self._called.get_nowait().close()
