"""A whole call in virtual time: both cores over a loopback, with real Opus and fake networks."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from avcall.bitstream.motion_coded import MotionCoder
from avcall.clock import ManualClock
from avcall.transport.base import Channel, Datagram
from avcall.transport.loopback import LinkConfig, loopback_pair
from avcall.types import FRAME_MS, FaceCrop, MotionFrame, Pcm
from receiver.core import ReceiverCore
from receiver.mel import MelWindows
from receiver.playout import Playout
from receiver.synthesize import Synthesizer
from sender.core import SenderCore
from sender.detect import Detector
from sender.encode import EncodedKeyframe, KeyframeEncoder, MotionGroupEncoder, encode_motion
from sender.pipeline import ADAPT_EVERY_MS, MAX_MEDIA_BACKLOG_BYTES
from sender.ratecontrol import RateConfig
from sender.references import ReferenceSet
from sender.speech import SpeechPath
from tests.fakes import FakeRuntime, make_crop, still_keypoints, tone_chunks

STEP_MS = 2
PULL_MS = 20
DETECT_MS = 35  # from the capture of a picture to its motion
DRAW_MS = 25


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture on the screen: when, which, and by how much the sound led it."""

    at_ms: float
    motion: MotionFrame
    skew_ms: float


@dataclass
class VirtualCall:
    """Both ends and the link. `run_until` plays the call; what was seen and heard piles up."""

    link: LinkConfig = field(default_factory=LinkConfig)
    tick_ms: int = 80
    latency_ms: float = 0.0
    audio: bool = True
    stall: range = range(0)  # ms: what arrives then is held back until its end
    keyframes: tuple[EncodedKeyframe, ...] = ()  # sent at the start; default: a small one
    coder: MotionCoder | None = None  # without it motion travels in half floats
    audio_bitrate_bps: int = 10_000
    pause: range = range(0)  # ms of media time in which nobody speaks
    rate: RateConfig | None = None  # rate control
    sharp_of: tuple[FaceCrop, int] | None = None  # the first keyframe's crop, and its size when sent again
    hidden_queue: bool = False  # the narrow place is far away: the transport does not know what waits there

    def __post_init__(self) -> None:
        self.clock = ManualClock()
        self.near, self.far = loopback_pair(self.clock, self.link)
        group = MotionGroupEncoder(self.coder, 2) if self.coder else None
        sharp_bytes = self.sharp_of[1] if self.sharp_of else 0
        references = ReferenceSet(sharp_bytes=sharp_bytes)
        self.sender = SenderCore(self.tick_ms, group, references=references, rate=self.rate)
        self.playout = Playout(speech := MelWindows())
        self.receiver = ReceiverCore(self.playout, self.coder)
        self.runtime = FakeRuntime()
        self.synthesizer = Synthesizer(self.runtime, speech)  # type: ignore[arg-type]
        detector = Detector(self.runtime)  # type: ignore[arg-type]
        self.encoder = KeyframeEncoder(detector, 4_000, sharp_bytes=sharp_bytes)
        self.speech = SpeechPath(self.audio_bitrate_bps)
        self.shown: list[Shown] = []
        self.heard: list[Pcm] = []
        self.delays_ms: list[float] = []
        self._chunks: Iterator = tone_chunks(100_000)
        self._drawing: tuple[MotionFrame, float] | None = None
        self._held: list[Datagram] = []
        self.stills_ms: list[float] = []  # when keyframes came; the first is shown at once
        for keyframe in self.keyframes or (self.encoder.encode(make_crop(grey=90)),):
            self.sender.push_keyframe(keyframe)

    def run_until(self, end_ms: float, *, motion: bool = True) -> None:
        """Play on in steps of 2 ms."""
        while self.clock.now_ms() < end_ms:
            self._send(self.clock.now_ms(), motion=motion)
            self._receive(self.clock.now_ms())
            self._play(self.clock.now_ms())
            self.clock.advance(STEP_MS)

    def inject(self, data: bytes, channel: Channel = Channel.MEDIA) -> None:
        """A message that the sender's avcall would never send."""
        self.near.send(channel, data)

    def _send(self, now_ms: float, *, motion: bool) -> None:
        since_ms = now_ms - DETECT_MS
        number = int(since_ms // FRAME_MS)
        if motion and since_ms >= 0 and since_ms - number * FRAME_MS < STEP_MS:
            keypoints = still_keypoints(x_at(number * FRAME_MS))
            self.sender.push_motion(encode_motion(keypoints, number * FRAME_MS))
        self._sharpen()
        if self.audio and now_ms and now_ms % 40 == 0:
            chunk = next(self._chunks)
            if chunk.pts_ms in self.pause:
                chunk = replace(chunk, pcm=np.zeros_like(chunk.pcm))
            for unit in self.speech.process(chunk):
                self.sender.push_audio(unit)
        if now_ms % ADAPT_EVERY_MS == 0:
            sent_bytes = self.near.counters().sent_bytes
            decision = self.sender.adapt(now_ms, sent_bytes, self._backlog(Channel.MEDIA))
            if decision is not None:
                self.speech.set_bitrate(decision.rung.audio_bps)
        ready = self.sender.poll(
            now_ms,
            media_open=self._backlog(Channel.MEDIA) <= MAX_MEDIA_BACKLOG_BYTES,
            slices_open=self._backlog(Channel.CONTROL) == 0,
        )
        for channel, data in ready:
            self.near.send(channel, data)
        while (datagram := self.near.poll()) is not None:
            self.sender.on_message(datagram.data, now_ms)

    def _sharpen(self) -> None:
        index = self.sender.take_sharper()
        if index is not None and self.sharp_of is not None:
            made = self.encoder.sharpen(self.sharp_of[0], index, self.keyframes[-1])
            assert made is not None
            self.sender.push_keyframe(made)

    def _backlog(self, channel: Channel) -> int:
        return 0 if self.hidden_queue else self.near.buffered_bytes(channel)

    def _receive(self, now_ms: float) -> None:
        while (datagram := self.far.poll()) is not None:
            self._held.append(datagram)
        if now_ms in self.stall:
            return
        held, self._held = self._held, []
        for datagram in held:
            coded = self.receiver.on_message(datagram.data, now_ms)
            if coded is None:
                continue
            keyframe = self.receiver.decode_keyframe(coded)
            if keyframe is None:
                self.receiver.request_keyframe(now_ms)
                continue
            self.stills_ms.append(now_ms)
            self.synthesizer.set_keyframe(keyframe)
            self.receiver.acknowledge(keyframe.index)
        if self.receiver.report_is_due(now_ms):
            self.receiver.report(len(self.shown), now_ms)
        self.receiver.check_keyframe(now_ms)
        for channel, data in self.receiver.take_answers():
            self.far.send(channel, data)

    def _play(self, now_ms: float) -> None:
        if now_ms % PULL_MS == 0:
            self.heard.append(self.playout.pull(PULL_MS * 16, now_ms, self.latency_ms).pcm)
            self.delays_ms.append(self.playout.stats().jitter.playout_delay_ms)
        if self._drawing is None:
            due = self.playout.due_motion(now_ms, DRAW_MS + 4)
            if due and self.synthesizer.can_draw(due[-1]):
                self.synthesizer.draw(due[-1])
                self._drawing = (due[-1], now_ms + DRAW_MS)
            elif due:
                self.receiver.request_keyframe(now_ms)
            return
        motion, done_ms = self._drawing
        heard_ms = self.playout.clock_ms(now_ms)
        if now_ms < done_ms or (heard_ms is not None and heard_ms < motion.pts_ms):
            return
        self.shown.append(Shown(now_ms, motion, 0.0 if heard_ms is None else heard_ms - motion.pts_ms))
        self._drawing = None

    def shown_between(self, start_ms: float, end_ms: float) -> list[Shown]:
        """The pictures that came on the screen in that time."""
        return [shown for shown in self.shown if start_ms <= shown.at_ms < end_ms]

    def heard_between(self, start_ms: int, end_ms: int) -> Pcm:
        """The sound of that time."""
        return np.concatenate(self.heard[start_ms // PULL_MS : end_ms // PULL_MS])


def x_at(pts_ms: float) -> float:
    """Where the head is: it sways once a second."""
    return 0.4 * float(np.sin(2 * np.pi * pts_ms / 1000))
