"""What a minute of a call costs on the wire: clips, looped, through both cores in virtual time.

    python -m tests.call_rate [--tick-ms 80] [--motion-step 2] [--keyframe-budget 96000] CLIP...

The detector, the keyframes, the motion coder and Opus are the real ones; the link is perfect. Not in it:
connecting (ICE and DTLS, about 2 kB a direction) and STUN (0.15 kbit/s).
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from avcall.clock import ManualClock
from avcall.config import SendConfig
from avcall.stats import Bill
from avcall.summary import sender_bill
from avcall.transport.loopback import LinkConfig, loopback_pair
from avcall.types import FRAME_MS, AudioChunk, FaceCrop, Keypoints
from models.runtime import Device, Graph, ModelRuntime
from receiver.core import ReceiverCore
from receiver.mel import MelWindows
from receiver.playout import Playout
from sender.capture import read_video
from sender.core import SenderCore
from sender.detect import Detector
from sender.encode import KeyframeEncoder, MotionGroupEncoder, encode_motion
from sender.microphone import read_audio
from sender.pipeline import SenderSnapshot
from sender.ratecontrol import RateConfig
from sender.references import KeyframeBudget, ReferenceSet
from sender.speech import SpeechPath
from sender.track import FaceState, FaceTracker

DEFAULTS = SendConfig(peer="")
CALL_MS, STEP_MS, DETECT_MS = 60_000, 5, 35
MAX_FRAMES = 250  # of a clip
PARTS = ("motion", "audio", "keyframe", "control", "headers", "ack", "wire", "back")


def crops(clip: Path) -> list[FaceCrop]:
    """The faces of the clip's first ten seconds."""
    tracker = FaceTracker()
    found = [tracker.crop(frame) for frame, _ in zip(read_video(clip), range(MAX_FRAMES), strict=False)]
    tracker.close()
    return [crop for crop in found if crop is not None]


class Minute:
    """One call of a minute."""

    def __init__(self, config: SendConfig, runtime: ModelRuntime, clip: Path) -> None:
        self._detector, coder = Detector(runtime), runtime.motion_coder()
        self._crops = crops(clip)
        self._looked: dict[
            tuple[int, int | None], Keypoints
        ] = {}  # by frame of the clip and keyframe's index
        self._chunks = list(read_audio(clip, config.speech_frame_ms))
        self._frame_ms = config.speech_frame_ms
        self._clock = ManualClock()
        self._near, self._far = loopback_pair(self._clock, LinkConfig(delay_ms=30))
        rate = RateConfig(
            config.tick_ms, config.motion_step, config.audio_bitrate_bps, config.speech_frame_ms
        )
        budget, sharp_bytes = KeyframeBudget(config.keyframe_budget_bits), config.sharp_keyframe_bytes
        references = ReferenceSet(budget, config.keyframe_bytes, sharp_bytes)
        group = MotionGroupEncoder(coder, config.motion_step)
        self._sender = SenderCore(config.tick_ms, group, coder.digest, references, rate=rate)
        self._receiver = ReceiverCore(Playout(MelWindows()), coder, coder.digest)
        self._speech = SpeechPath(config.audio_bitrate_bps, config.speech_frame_ms)
        self._stills = KeyframeEncoder(
            self._detector, config.keyframe_bytes, config.first_keyframe_bytes, sharp_bytes=sharp_bytes
        )

    def run(self) -> Bill:
        """Its bill."""
        if self._stills.progressive:
            self._sender.push_keyframe(self._stills.encode(self._crops[0], preliminary=True))
        self._first = self._stills.encode(self._crops[0])
        self._sender.push_keyframe(self._first)
        frame, chunks = 0, self._looped()
        chunk = next(chunks)
        while (now_ms := self._clock.now_ms()) < CALL_MS:
            if now_ms >= frame * FRAME_MS + DETECT_MS:
                self._show(frame)
                frame += 1
            if now_ms >= chunk.pts_ms + self._frame_ms:
                for unit in self._speech.process(chunk):
                    self._sender.push_audio(unit)
                chunk = next(chunks)
            self._exchange(now_ms)
            self._clock.advance(STEP_MS)
        snapshot = SenderSnapshot(self._sender.stats(), FaceState.TRACKED, frame, 0.0, CALL_MS)
        return sender_bill(snapshot, self._near.counters())

    def _looped(self) -> Iterator[AudioChunk]:
        for number in range(10**6):
            yield replace(self._chunks[number % len(self._chunks)], pts_ms=number * self._frame_ms)

    def _show(self, frame: int) -> None:
        here = frame % len(self._crops)
        self._sender.push_motion(encode_motion(self._look(here), frame * FRAME_MS))
        if self._sender.keyframe_wanted:
            self._sender.keyframe_wanted = False
            made = self._stills.encode(self._crops[here], self._sender.keyframe_index)
            self._sender.push_keyframe(made)
        if (index := self._sender.take_sharper()) is not None:
            sharper = self._stills.sharpen(self._crops[0], index, self._first)
            if sharper is not None:
                self._sender.push_keyframe(sharper)

    def _look(self, here: int) -> Keypoints:
        crop, held = self._crops[here], self._sender.references[:1]
        key = (here, held[0].index if held else None)
        if key not in self._looked:
            self._looked[key] = (
                self._detector.beside(held[0].held, crop) if held else self._detector.keypoints(crop)
            )
        return self._looked[key]

    def _exchange(self, now_ms: float) -> None:
        if now_ms % 100 == 0:
            self._sender.adapt(now_ms, self._near.counters().sent_bytes, 0)
        for channel, data in self._sender.poll(now_ms):
            self._near.send(channel, data)
        while (datagram := self._far.poll()) is not None:
            coded = self._receiver.on_message(datagram.data, now_ms)
            if coded is not None:
                self._receiver.acknowledge(coded.index)
        if self._receiver.report_is_due(now_ms):
            self._receiver.report(0, now_ms)
        for channel, data in self._receiver.take_answers():
            self._far.send(channel, data)
        while (datagram := self._near.poll()) is not None:
            self._sender.on_message(datagram.data, now_ms)


def kbps(bill: Bill, part: str) -> float:
    """A part of the bill in kbit/s."""
    return bill.kbps(getattr(bill, f"{part}_bytes"))


def main() -> None:
    """Print a row for each clip, and their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--tick-ms", type=int, default=80)
    parser.add_argument("--motion-step", type=int, default=DEFAULTS.motion_step)
    parser.add_argument("--keyframe-budget", type=int, default=DEFAULTS.keyframe_budget_bits)
    parser.add_argument("--sharp-keyframe-bytes", type=int, default=DEFAULTS.sharp_keyframe_bytes)
    parser.add_argument("--audio-bps", type=int, default=DEFAULTS.audio_bitrate_bps)
    options = parser.parse_args()
    config = SendConfig(
        peer="",
        tick_ms=options.tick_ms,
        motion_step=options.motion_step,
        keyframe_budget_bits=options.keyframe_budget,
        sharp_keyframe_bytes=options.sharp_keyframe_bytes,
        audio_bitrate_bps=options.audio_bps,
    )
    runtime = ModelRuntime((Graph.DETECT, Graph.REFINE), device=Device.CPU, threads=1)
    runtime.warm_up()
    print("clip", *PARTS, sep="\t")  # noqa: T201 (a tool)
    bills = []
    for clip in options.clips:
        bills.append(Minute(config, runtime, clip).run())
        print(clip.stem, *(f"{kbps(bills[-1], part):.2f}" for part in PARTS), sep="\t", flush=True)  # noqa: T201
    means = (sum(kbps(bill, part) for bill in bills) / len(bills) for part in PARTS)
    print("mean", *(f"{mean:.2f}" for mean in means), sep="\t")  # noqa: T201


if __name__ == "__main__":
    main()
