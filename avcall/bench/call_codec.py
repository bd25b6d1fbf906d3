"""avcall as a codec: its own sender and receiver over a loopback in virtual time.

Encoding runs the sender against a receiver that acknowledges keyframes, and keeps every message that arrived;
decoding plays those messages to a fresh receiver, which draws. So everything passes through the bitstream,
the wire is counted as in a call, and the same input gives the same bytes.

The clip starts when the first keyframe is acknowledged: its bits count, the wait for it does not.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from avcall.bench.clip import Clip, ReadyCrops, video_frames
from avcall.bench.codec import Coded, Decoded
from avcall.bench.rates import clip_bill
from avcall.bench.speech import chunks
from avcall.bench.virtual_call import (
    DRAIN_MS,
    STEP_MS,
    Message,
    VirtualCall,
    read_messages,
    write_messages,
)
from avcall.errors import AvcallError, InputError
from avcall.stats import Bill
from avcall.types import FRAME_MS, SAMPLE_RATE_HZ, FaceCrop, U8Image, VideoFrame
from models.runtime import ModelRuntime, load_manifest, weights_folder
from receiver.core import ReceiverCore
from receiver.mel import MelWindows
from receiver.playout import Playout
from receiver.synthesize import Synthesizer
from sender.detect import Detector
from sender.encode import KeyframeEncoder
from sender.picture import Pictured, PicturePath
from sender.preview import Previewer
from sender.references import KeyframeBudget, ReferenceSet
from sender.speech import SpeechPath
from sender.track import FaceState

PULL_MS = 20  # what a speaker takes at a time
PICTURE_MS = 30  # from a frame to its motion unit, in virtual time: what the stages take on two cores
PLAY_ON_MS = 1_500  # after the last message, longer than any playout delay here
CONNECT_LIMIT_MS = 20_000
FIRST_KEYFRAMES = 2  # a preliminary one and the full one
LEAD_MS = 24.0  # a picture is drawn so long before it is shown


@dataclass(frozen=True, slots=True)
class CallSetting:
    """What a user can set in a call that changes bits or picture."""

    motion: str
    motion_step: int  # of coded motion, 0 (finest) to 7
    keyframe_bytes: int
    first_keyframe_bytes: int
    keyframe_budget_bits: int
    tick_ms: int
    audio_bitrate_bps: int
    audio_frame_ms: int


class CallCodec:
    """A call at one setting; with `photo`, the driver's motion animates the photo.

    `runtime` gives the networks of the calling thread: they are not thread-safe, and slow to open.
    """

    def __init__(
        self,
        setting: CallSetting,
        runtime: Callable[[], ModelRuntime],
        weights: Path | None = None,
        photo: FaceCrop | None = None,
    ) -> None:
        self._setting, self._runtime = setting, runtime
        self._weights, self._photo = weights, photo

    @property
    def name(self) -> str:
        """See Codec. A curve joins the keyframe sizes of one motion mode."""
        return f"avcall-{self._setting.motion}" + ("-photo" if self._photo else "")

    @property
    def setting(self) -> str:
        """See Codec."""
        return f"keyframe{self._setting.keyframe_bytes}"

    @property
    def identity(self) -> str:
        """See Codec."""
        sums = load_manifest(weights_folder(self._weights)).get("sha256")
        photo = "" if self._photo is None else hashlib.sha256(self._photo.rgb.tobytes()).hexdigest()
        return f"{self._command()} weights {sums} photo {photo}"

    def encode(self, clip: Clip) -> Coded:
        """See Codec."""
        path = self._picture_path(clip)
        began_s = time.thread_time()
        try:
            messages, bill = self._send(clip, path)
        finally:
            path.close()
        encode_s = time.thread_time() - began_s
        return Coded(write_messages(len(clip.crops), messages), bill, self._command(), encode_s)

    def decode(self, data: bytes) -> Decoded:
        """See Codec."""
        count, messages = read_messages(data)
        pictures = _Receiving(self._runtime()).run(messages)
        return _in_order(pictures, count)

    def _send(self, clip: Clip, path: PicturePath) -> tuple[list[Message], Bill]:
        """The whole clip through the sender: every message that arrived, and the bill."""
        setting = self._setting
        step = setting.motion_step if setting.motion == "coded" else None
        # A photo is one picture: there is nothing to make a new keyframe of.
        budget = KeyframeBudget(0 if self._photo else setting.keyframe_budget_bits)
        references = ReferenceSet(budget, setting.keyframe_bytes)
        call = VirtualCall(setting.tick_ms, self._runtime().motion_coder(), step, references)
        frames = video_frames(clip)
        first = _greet(call, path, next(frames), clip.name)
        start_ms = call.now_ms
        frame_ms = setting.audio_frame_ms
        sounds = deque(chunks(clip, frame_ms))
        voice = SpeechPath(setting.audio_bitrate_bps, frame_ms)

        def speak_until(media_ms: int) -> None:
            while sounds and sounds[0].pts_ms + frame_ms <= media_ms:
                chunk = sounds.popleft()
                call.run_until(start_ms + chunk.pts_ms + frame_ms)
                for unit in voice.process(chunk):
                    call.sender.push_audio(unit)

        for number in range(len(clip.crops)):
            shown_ms = number * FRAME_MS + PICTURE_MS
            speak_until(shown_ms)
            call.run_until(start_ms + shown_ms)
            _show(call, first if number == 0 else _picture(call, path, next(frames)))
        speak_until(clip.duration_ms + frame_ms)
        call.run_until(start_ms + clip.duration_ms + DRAIN_MS)
        return call.messages, _bill(call, len(clip.crops))

    def _picture_path(self, clip: Clip) -> PicturePath:
        detector = Detector(self._runtime())
        setting = self._setting
        keyframes = KeyframeEncoder(detector, setting.keyframe_bytes, setting.first_keyframe_bytes)
        previewer = Previewer(self._runtime()) if self._runtime().has_preview else None
        return PicturePath(detector, ReadyCrops(clip), keyframes, self._photo, previewer=previewer)

    def _command(self) -> str:
        setting = self._setting
        return (
            f"avcall send --motion {setting.motion} --motion-step {setting.motion_step} "
            f"--keyframe-bytes {setting.keyframe_bytes} "
            f"--first-keyframe-bytes {setting.first_keyframe_bytes} "
            f"--keyframe-budget {setting.keyframe_budget_bits} --tick-ms {setting.tick_ms} "
            f"--audio-bps {setting.audio_bitrate_bps}"
        )


class _Receiving:
    """A receiver that hears recorded messages and draws every picture that is due."""

    def __init__(self, runtime: ModelRuntime) -> None:
        speech = MelWindows()
        self._playout = Playout(speech)
        coder = runtime.motion_coder()
        self._core = ReceiverCore(self._playout, coder, coder.digest)
        self._synthesizer = Synthesizer(runtime, speech)
        self._pictures: dict[int, U8Image] = {}

    def run(self, messages: list[Message]) -> dict[int, U8Image]:
        """The pictures that were drawn, by pts."""
        left = iter(messages)
        coming = next(left, None)
        end_ms = int(messages[-1].arrival_ms + PLAY_ON_MS) if messages else 0
        for now_ms in range(0, end_ms, STEP_MS):
            while coming is not None and coming.arrival_ms <= now_ms:
                self._hear(coming)
                coming = next(left, None)
            if now_ms % PULL_MS == 0:
                self._playout.pull(PULL_MS * SAMPLE_RATE_HZ // 1000, now_ms, 0.0)
            for motion in self._playout.due_motion(now_ms, LEAD_MS):
                if self._synthesizer.can_draw(motion):
                    self._pictures[motion.pts_ms] = self._synthesizer.draw(motion).rgb
        return self._pictures

    def _hear(self, message: Message) -> None:
        coded = self._core.on_message(message.data, message.arrival_ms)
        keyframe = None if coded is None else self._core.decode_keyframe(coded)
        if keyframe is not None:
            self._synthesizer.set_keyframe(keyframe)


def _greet(call: VirtualCall, path: PicturePath, frame: VideoFrame, name: str) -> Pictured:
    """Send the keyframes of the first frame, and wait for the best of them to be acknowledged."""
    made = Pictured(FaceState.SEARCHING)
    for _ in range(FIRST_KEYFRAMES):
        made = path.process(frame)
        if made.keyframe is not None:
            call.sender.push_keyframe(made.keyframe)
            if not made.keyframe.preliminary:
                break
    if made.keyframe is None:
        raise InputError(f"{name}: the first frame does not make a keyframe")
    while call.sender.acknowledged_keyframe != made.keyframe.index:
        if call.now_ms > CONNECT_LIMIT_MS:
            raise AvcallError(f"{name}: the keyframe was never acknowledged")
        call.step()
    return replace(made, keyframe=None)


def _picture(call: VirtualCall, path: PicturePath, frame: VideoFrame) -> Pictured:
    """One frame, with a keyframe if the sender wants a new one."""
    if call.sender.keyframe_wanted:
        call.sender.keyframe_wanted = False
        path.want_keyframe(call.sender.keyframe_index)
    return path.process(frame, call.sender.references)


def _show(call: VirtualCall, made: Pictured) -> None:
    """Hand over what a frame gave."""
    if made.keyframe is not None:
        call.sender.push_keyframe(made.keyframe)
    call.sender.push_estimates(made.estimates)
    if made.motion is not None:
        call.sender.push_motion(made.motion)


def _bill(call: VirtualCall, frames: int) -> Bill:
    stats, wire = call.sender.stats(), call.counters()
    return clip_bill(
        frames,
        motion_bytes=stats.motion_bytes,
        keyframe_bytes=stats.keyframe_bytes,
        audio_bytes=stats.audio_bytes,
        control_bytes=stats.control_bytes,
        wire_bytes=wire.sent_bytes,
        back_bytes=wire.received_bytes,
    )


def _in_order(pictures: dict[int, U8Image], count: int) -> Decoded:
    """One picture for each frame; where none was drawn, the one before stays, as on a screen."""
    if not pictures:
        raise AvcallError("the receiver drew nothing")
    shown = pictures[min(pictures)]
    frames, held = [], 0
    for number in range(count):
        drawn = pictures.get(number * FRAME_MS)
        held += drawn is None
        shown = shown if drawn is None else drawn
        frames.append(shown)
    return Decoded(np.stack(frames), held)
