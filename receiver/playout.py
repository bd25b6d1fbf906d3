"""Playout: what is heard and shown now. The speaker's pull is the master clock; pictures follow it.

The jitter buffer says what media time is due; sound is read at a position of its own that follows it in small
steps, since a loudspeaker pulls at the pace of its own crystal. Speech is decoded a little ahead of its time,
because the mel window of a picture looks 100 ms into its future.
"""

import threading
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from avcall.bitstream import motion
from avcall.bitstream.motion import MotionMode
from avcall.errors import BitstreamError
from avcall.types import FRAME_MS, SAMPLE_RATE_HZ, AccessUnit, MotionFrame, Pcm
from receiver.audio_decode import OpusDecoder
from receiver.conceal import conceal_motion, crossfade
from receiver.jitterbuffer import JitterBuffer, JitterBufferConfig, JitterState, JitterStats
from receiver.mel import MelWindows

SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000
AHEAD_MS = 120  # speech is decoded this far ahead where it has arrived
CONCEAL_STEP_MS = 20
MAX_DRIFT_MS = 40.0  # between the position of the sound and the time that is due; then it is corrected
JUMP_DRIFT_MS = 400.0  # a larger drift is a new start, not a drift
CORRECTION_MS = 10  # of sound left out or repeated at a time, crossfaded
AUDIO_GONE_MS = 500.0  # without a pull for so long, the clock goes on without the speaker
MAX_CONCEALED_FRAMES = 3  # then the picture holds
CROSSFADE_SAMPLES = 5 * SAMPLES_PER_MS


@dataclass(frozen=True, slots=True)
class PlayoutStats:
    """Counts since the start."""

    jitter: JitterStats
    concealed_audio_ms: int
    concealed_frames: int
    corrections: int
    dropped: dict[str, int]


class Playout:
    """Thread-safe: messages come from the loop, pulls from the speaker, pictures from their own thread."""

    def __init__(self, speech: MelWindows, config: JitterBufferConfig | None = None) -> None:
        self._lock = threading.Lock()
        self._buffer = JitterBuffer(config)
        self._decoder = OpusDecoder()
        self._speech = speech
        self._pcm: Pcm = np.zeros(0, np.int16)  # decoded and not yet played, from _position on
        self._position: int | None = None  # sample that is played next, in media time
        self._pulled_ms = 0.0
        self._latency_ms = 0.0
        self._last: MotionFrame | None = None
        self._before: MotionFrame | None = None
        self._concealed_in_row = 0
        self._concealed_audio_ms = 0
        self._concealed_frames = 0
        self._corrections = 0
        self._resyncs = 0
        self._dropped: Counter[str] = Counter()

    def push(self, unit: AccessUnit, now_ms: float) -> bool:
        """Take a unit that arrived at `now_ms`; False when it is late or a repeat."""
        with self._lock:
            return self._buffer.push(unit, now_ms)

    def pull(self, count: int, now_ms: float, latency_ms: float) -> Pcm:
        """The next `count` samples for the speaker, which are heard `latency_ms` from now."""
        with self._lock:
            self._pulled_ms, self._latency_ms = now_ms, latency_ms
            due_ms = self._buffer.media_time_ms(now_ms)
            self._follow_resync()
            if due_ms is None:
                return np.zeros(count, np.int16)
            self._follow(due_ms)
            self._decode_until(count)
            pcm, self._pcm = self._pcm[:count], self._pcm[count:]
            assert self._position is not None
            self._position += count
            return pcm

    def position_ms(self) -> int | None:
        """The media time of the sample that the next pull begins with; None while nothing is due."""
        with self._lock:
            return None if self._position is None else self._position // SAMPLES_PER_MS

    def clock_ms(self, now_ms: float) -> float | None:
        """The media time that is heard now; None while nothing is due."""
        with self._lock:
            return self._clock_ms(now_ms)

    def due_motion(self, now_ms: float, lead_ms: float) -> list[MotionFrame]:
        """Motion to be drawn now so that it can be shown `lead_ms` later, oldest first.

        Where the next unit did not come in time, up to three frames are concealed, one at a time.
        """
        with self._lock:
            clock_ms = self._clock_ms(now_ms)
            if clock_ms is None:
                return []
            until_ms = clock_ms + lead_ms
            frames = [frame for unit in self._buffer.pop_motion(until_ms) if (frame := self._parse(unit))]
            for frame in frames:
                self._before = self._last if self._concealed_in_row == 0 else None
                self._last, self._concealed_in_row = frame, 0
            return frames or self._conceal(until_ms - lead_ms)

    def stats(self) -> PlayoutStats:
        """Counts so far."""
        with self._lock:
            return PlayoutStats(
                self._buffer.stats(),
                self._concealed_audio_ms,
                self._concealed_frames,
                self._corrections,
                dict(self._dropped),
            )

    def _clock_ms(self, now_ms: float) -> float | None:
        if self._position is None or now_ms - self._pulled_ms > AUDIO_GONE_MS:
            return self._buffer.media_time_ms(now_ms)
        return self._position / SAMPLES_PER_MS + (now_ms - self._pulled_ms) - self._latency_ms

    def _follow_resync(self) -> None:
        """Forget the position when the buffer has started anew."""
        resyncs = self._buffer.stats().resyncs
        if resyncs != self._resyncs:
            self._resyncs, self._position = resyncs, None
            self._last = self._before = None

    def _follow(self, due_ms: float) -> None:
        """Keep the position of the sound near the time that is due."""
        if self._position is None or abs(due_ms - self._position / SAMPLES_PER_MS) > JUMP_DRIFT_MS:
            self._position = int(due_ms) * SAMPLES_PER_MS
            self._pcm = np.zeros(0, np.int16)
            return
        drift_ms = due_ms - self._position / SAMPLES_PER_MS
        step = CORRECTION_MS * SAMPLES_PER_MS
        if abs(drift_ms) <= MAX_DRIFT_MS:
            return
        self._corrections += 1
        if drift_ms > 0:
            self._decode_until(step + CROSSFADE_SAMPLES)
            self._pcm = crossfade(self._pcm[:CROSSFADE_SAMPLES], self._pcm[step:])
            self._position += step
        else:
            repeated = self._pcm[:step]
            self._pcm = np.concatenate([repeated, crossfade(repeated[:CROSSFADE_SAMPLES], self._pcm)])
            self._position -= len(repeated)

    def _decode_until(self, needed: int) -> None:
        """Decode what has arrived, up to `AHEAD_MS`; make up what is missing of the first `needed` samples."""
        assert self._position is not None
        while len(self._pcm) < needed + AHEAD_MS * SAMPLES_PER_MS:
            end_ms = (self._position + len(self._pcm)) // SAMPLES_PER_MS
            unit = self._buffer.pop_audio(end_ms)
            if unit is None and len(self._pcm) >= needed:
                return
            pcm = self._decode(unit, end_ms) if unit else self._decoder.conceal(CONCEAL_STEP_MS)
            if unit is None and self._speech_expected():
                self._concealed_audio_ms += CONCEAL_STEP_MS
            self._speech.push(pcm, end_ms)
            self._pcm = np.concatenate([self._pcm, pcm])

    def _decode(self, unit: AccessUnit, end_ms: int) -> Pcm:
        """The sound of a unit from `end_ms` on; concealment when it does not decode."""
        try:
            pcm = self._decoder.decode(unit)
        except BitstreamError as error:
            self._dropped[type(error).__name__] += 1
            pcm = self._decoder.conceal(unit.duration_ms)
        return pcm[(end_ms - unit.pts_ms) * SAMPLES_PER_MS :]

    def _speech_expected(self) -> bool:
        return self._buffer.state is not JitterState.FILLING and len(self._pcm) > 0

    def _parse(self, unit: AccessUnit) -> MotionFrame | None:
        try:
            return MotionFrame(motion.decode(MotionMode.FP16, unit.payload), unit.pts_ms, unit.keyframe_index)
        except BitstreamError as error:
            self._dropped[type(error).__name__] += 1
            return None

    def _conceal(self, shown_ms: float) -> list[MotionFrame]:
        """A made-up frame when the one after the last should be on the screen by now."""
        if self._last is None or self._concealed_in_row >= MAX_CONCEALED_FRAMES:
            return []
        steps = self._concealed_in_row + 1
        pts_ms = self._last.pts_ms + steps * FRAME_MS
        if shown_ms < pts_ms + FRAME_MS / 2:
            return []
        self._concealed_in_row = steps
        self._concealed_frames += 1
        before = self._before.keypoints if self._before else None
        return [
            replace(self._last, keypoints=conceal_motion(self._last.keypoints, before, steps), pts_ms=pts_ms)
        ]
