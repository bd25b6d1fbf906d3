"""Playout: what is heard and shown now. The speaker's pull is the master clock; pictures follow it.

The jitter buffer says what media time is due; sound is read at a position of its own that follows it, since a
loudspeaker pulls at the pace of its own crystal. Small drifts are mended 10 ms at a time; where the due time
stands still, because the playout delay grows, the position waits for it. Speech is decoded ahead of its time,
because the mel window of a picture looks 140 ms into its future.
"""

import math
import threading
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from avcall.bitstream import motion
from avcall.bitstream.audio import SILENCE_LASTS_MS, is_silence
from avcall.bitstream.motion import MotionMode
from avcall.errors import BitstreamError
from avcall.types import FRAME_MS, SAMPLE_RATE_HZ, AccessUnit, MediaKind, MotionFrame, Pcm
from receiver.audio_decode import OpusDecoder
from receiver.conceal import HISTORY_SAMPLES, conceal_audio, conceal_motion, crossfade
from receiver.interpolate import interpolate_motion
from receiver.jitterbuffer import JitterBuffer, JitterBufferConfig, JitterStats
from receiver.mel import MelWindows

SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000
AHEAD_MS = 200  # speech is decoded this far ahead where it has arrived
CONCEAL_STEP_MS = 20
LONGEST_GAP_MS = 1_000  # of speech; what is missing beyond it was never sent, and is not counted as concealed
DRIFT_SMOOTHING = 0.1  # weight of a new reading: threads wake up unevenly, and pulls come in bursts
MAX_BEHIND_MS = 20.0  # between the position of the sound and the time that is due; then it is mended
MAX_AHEAD_MS = 10.0  # the other way round; less, because there units come late
CORRECTION_MS = 10  # of sound left out or repeated at a time, crossfaded
WAIT_AHEAD_MS = 60.0  # so far ahead, the position stands still until the due time has caught up
JUMP_MS = 400.0  # so far behind, the position starts anew
AUDIO_GONE_MS = 500.0  # without a pull for so long, the clock goes on without the speaker
CONCEAL_AFTER_MS = 20.0  # how late motion may be before a frame is made up in its place
MAX_LATE_MS = 40.0  # a picture that would lag the sound by more is left out (45 ms is where people notice)
HALF_RATE_GAP_MS = 100  # between frames of a sender that saves bits; a longer gap is a loss
MAX_BRIDGED_MS = 260  # between two frames: nobody moves along a straight line for longer
MAX_CONCEALED_FRAMES = 3  # then the picture holds
CROSSFADE_SAMPLES = 5 * SAMPLES_PER_MS
FIRST_BLOCK_MS = 20.0  # of a pull, until one has come


@dataclass(frozen=True, slots=True)
class Sound:
    """What the speaker plays next: `pcm` (samples,) int16.

    `pts_ms` is the media time of its first sample; None for a filler, while media time stands still.
    """

    pcm: Pcm
    pts_ms: int | None


@dataclass(frozen=True, slots=True)
class PlayoutStats:
    """Counts since the start.

    `concealed_frames` were guessed from the frames before, or drawn across a gap; `interpolated_frames` lie
    between two frames of a sender that sends every second one. `late_frames` came too late to be shown in
    step with the sound; `waits` are pulls that got a filler.
    """

    jitter: JitterStats
    concealed_audio_ms: int
    concealed_frames: int
    interpolated_frames: int
    late_frames: int
    corrections: int
    waits: int
    dropped: dict[str, int]


class _SoundPath:
    """The position of the sound, and the decoded speech from there on. Not safe to share between threads."""

    def __init__(self, buffer: JitterBuffer, speech: MelWindows) -> None:
        self._buffer = buffer
        self._speech = speech
        self._decoder = OpusDecoder()
        self._tail: Pcm = np.zeros(0, np.int16)  # what was played last
        self._waited = 0  # samples of filler since then
        self._spoken = False
        self._gap_ms = 0
        self.dropped: Counter[str] = Counter()
        self.concealed_ms = self.corrections = self.waits = 0
        self.reset()

    def reset(self) -> None:
        """Forget the position: the media time has started anew."""
        self._pcm: Pcm = np.zeros(0, np.int16)  # decoded and not yet played, from `position` on
        self._silent_until_ms = -math.inf  # the sender said that there is nothing to hear until then
        self._drift_ms = 0.0  # smoothed
        self._waiting = False
        self.position: int | None = None  # sample that is played next, in media time

    def pull(self, count: int, due_ms: float) -> Sound:
        """The next `count` samples, when `due_ms` is due."""
        drift_ms = self._drift(due_ms)
        self._waiting = drift_ms < -(MAX_AHEAD_MS if self._waiting else WAIT_AHEAD_MS)
        if self._waiting:
            self._drift_ms = drift_ms
            filler = conceal_audio(self._tail, count, self._waited)
            self._waited += count
            self.waits += 1
            return Sound(filler, None)
        self._mend()
        self._decode_until(count)
        if self._waited:
            self._pcm = crossfade(conceal_audio(self._tail, CROSSFADE_SAMPLES, self._waited), self._pcm)
            self._waited = 0
        assert self.position is not None
        sound = Sound(self._pcm[:count], self.position // SAMPLES_PER_MS)
        self._pcm = self._pcm[count:]
        self.position += count
        self._tail = np.concatenate([self._tail, sound.pcm])[-HISTORY_SAMPLES:]
        return sound

    def _drift(self, due_ms: float) -> float:
        """How far the position is behind the due time, once it was brought there if need be."""
        if self.position is None or due_ms - self.position / SAMPLES_PER_MS > JUMP_MS:
            self.reset()
            self.position = int(due_ms) * SAMPLES_PER_MS
        drift_ms = due_ms - self.position / SAMPLES_PER_MS
        self._drift_ms += DRIFT_SMOOTHING * (drift_ms - self._drift_ms)
        return drift_ms

    def _mend(self) -> None:
        """Leave out or repeat a little sound when the position has drifted."""
        if -MAX_AHEAD_MS <= self._drift_ms <= MAX_BEHIND_MS:
            return
        assert self.position is not None
        step = CORRECTION_MS * SAMPLES_PER_MS
        self._decode_until(step + CROSSFADE_SAMPLES)
        if self._drift_ms > MAX_BEHIND_MS:
            self._pcm = crossfade(self._pcm[:CROSSFADE_SAMPLES], self._pcm[step:])
            self.position += step
            self._drift_ms -= CORRECTION_MS
        else:
            again = crossfade(self._pcm[step : step + CROSSFADE_SAMPLES], self._pcm)
            self._pcm = np.concatenate([self._pcm[:step], again])
            self.position -= step
            self._drift_ms += CORRECTION_MS
        self.corrections += 1

    def _decode_until(self, needed: int) -> None:
        """Decode what has arrived, up to `AHEAD_MS`; make up what is missing of the `needed` samples."""
        assert self.position is not None
        while len(self._pcm) < needed + AHEAD_MS * SAMPLES_PER_MS:
            end_ms = (self.position + len(self._pcm)) // SAMPLES_PER_MS
            unit = self._buffer.pop_audio(end_ms)
            if unit is not None:
                pcm = self._decode(unit, end_ms)
                self._spoken, self._gap_ms = True, 0
            elif len(self._pcm) < needed:
                pcm = self._conceal(end_ms)
            else:
                return
            if self._spoken:
                self._speech.push(pcm, end_ms)
            self._pcm = np.concatenate([self._pcm, pcm])

    def _decode(self, unit: AccessUnit, end_ms: int) -> Pcm:
        """The sound of a unit from `end_ms` on; concealment when it is silence or does not decode."""
        silent = is_silence(unit.payload)
        self._silent_until_ms = unit.pts_ms + SILENCE_LASTS_MS if silent else -math.inf
        if silent:  # the room's noise, which was heard until now, fades away
            return self._decoder.conceal(unit.pts_ms + unit.duration_ms - end_ms)
        try:
            pcm = self._decoder.decode(unit)
        except BitstreamError as error:
            self.dropped[type(error).__name__] += 1
            pcm = self._decoder.conceal(unit.duration_ms)
        return pcm[(end_ms - unit.pts_ms) * SAMPLES_PER_MS :]

    def _conceal(self, end_ms: int) -> Pcm:
        """Sound from `end_ms` on that was not sent, or did not come; up to the next unit, if that is near."""
        next_ms = self._buffer.next_audio_pts_ms()
        step_ms = CONCEAL_STEP_MS if next_ms is None else min(CONCEAL_STEP_MS, max(1, next_ms - end_ms))
        if end_ms >= self._silent_until_ms:
            self._gap_ms += step_ms
            if self._spoken and self._gap_ms <= LONGEST_GAP_MS:
                self.concealed_ms += step_ms
        return self._decoder.conceal(step_ms)


class _MotionPath:
    """Motion frames by the time they are due, and made-up ones where they are missing."""

    def __init__(self, buffer: JitterBuffer) -> None:
        self._buffer = buffer
        self.dropped: Counter[str] = Counter()
        self.concealed = self.interpolated = self.late = 0
        self.reset()

    def reset(self) -> None:
        """Forget the past: the media time has started anew."""
        self._last: MotionFrame | None = None
        self._before: MotionFrame | None = None
        self._given_pts_ms = -1  # of the newest frame that was given out

    def due(self, until_ms: float) -> list[MotionFrame]:
        """The frames with pts <= `until_ms`, oldest first; a made-up one when the next is missing."""
        frames = []
        for unit in self._buffer.pop_motion(until_ms):
            frame = self._parse(unit)
            if frame is None:
                continue
            self._before, self._last = self._last, frame
            if frame.pts_ms > self._given_pts_ms:
                frames.append(frame)
            else:
                self.late += 1
        if frames and until_ms - frames[-1].pts_ms > MAX_LATE_MS:
            self.late += len(frames)
            frames = []
        if not frames:
            frames = self._between(until_ms) or self._conceal(until_ms)
        if frames:
            self._given_pts_ms = frames[-1].pts_ms
        return frames

    def _parse(self, unit: AccessUnit) -> MotionFrame | None:
        try:
            return MotionFrame(motion.decode(MotionMode.FP16, unit.payload), unit.pts_ms, unit.keyframe_index)
        except BitstreamError as error:
            self.dropped[type(error).__name__] += 1
            return None

    def _between(self, until_ms: float) -> list[MotionFrame]:
        """A frame that nobody sent, or that was lost, when the next one is there already."""
        last, unit = self._last, self._buffer.next_motion()
        if last is None or unit is None:
            return []
        gap_ms = unit.pts_ms - last.pts_ms
        pts_ms = max(self._given_pts_ms, last.pts_ms) + FRAME_MS
        if gap_ms > MAX_BRIDGED_MS or not 0 <= until_ms - pts_ms <= MAX_LATE_MS:
            return []
        if pts_ms > unit.pts_ms - FRAME_MS:  # nothing is missing: the camera is not quite regular
            return []
        following = self._parse(unit)
        if following is None:
            return []
        before = self._before
        if (
            gap_ms <= HALF_RATE_GAP_MS
            and before is not None
            and last.pts_ms - before.pts_ms > FRAME_MS * 3 // 2
        ):
            self.interpolated += 1
        else:
            self.concealed += 1
        share = (pts_ms - last.pts_ms) / gap_ms
        between = interpolate_motion(last.keypoints, following.keypoints, share)
        return [replace(last, keypoints=between, pts_ms=pts_ms)]

    def _conceal(self, until_ms: float) -> list[MotionFrame]:
        last, before = self._last, self._before
        if last is None:
            return []
        steps = max(0, self._given_pts_ms - last.pts_ms) // FRAME_MS + 1
        pts_ms = last.pts_ms + steps * FRAME_MS
        if steps > MAX_CONCEALED_FRAMES or not CONCEAL_AFTER_MS <= until_ms - pts_ms <= MAX_LATE_MS:
            return []
        following = self._buffer.next_motion()
        if following is not None and following.pts_ms < pts_ms + FRAME_MS:
            return []  # nothing is missing: the camera is not quite regular
        # Only two frames in a row tell a speed.
        known = before is not None and last.pts_ms - before.pts_ms <= FRAME_MS * 3 // 2
        past = before.keypoints if known and before is not None else None
        self.concealed += 1
        return [replace(last, keypoints=conceal_motion(last.keypoints, past, steps), pts_ms=pts_ms)]


class Playout:
    """Thread-safe: messages come from the loop, pulls from the speaker, pictures from their own thread."""

    def __init__(self, speech: MelWindows, config: JitterBufferConfig | None = None) -> None:
        self._lock = threading.Lock()
        self._buffer = JitterBuffer(config)
        self._sound = _SoundPath(self._buffer, speech)
        self._motion = _MotionPath(self._buffer)
        self._resyncs = 0
        self._lead_ms = 0.0
        self._block_ms = FIRST_BLOCK_MS
        self._motion_pts_ms = 0  # of the newest motion
        self._pulled_ms = 0.0  # when the speaker last came
        self._latency_ms = 0.0
        self._anchor_ms = 0.0  # when it last took sound that moves the media time on,
        self._anchor_position = 0  # and the first sample of it

    def push(self, unit: AccessUnit, now_ms: float) -> bool:
        """Take a unit that arrived at `now_ms`; False when it is late or a repeat."""
        with self._lock:
            # Speech is taken a block at a time, so its last sample must be there a block early. Motion must
            # first be drawn; but what the speaker took is heard later, and a picture has that much more time.
            is_motion = unit.kind is MediaKind.MOTION
            ready_in_ms = max(0.0, self._lead_ms - self._latency_ms) if is_motion else self._block_ms
            if is_motion:
                gap_ms = unit.pts_ms - self._motion_pts_ms
                self._motion_pts_ms = max(self._motion_pts_ms, unit.pts_ms)
                if FRAME_MS < gap_ms <= HALF_RATE_GAP_MS:
                    ready_in_ms += gap_ms - FRAME_MS  # the frame between the last one and this is due earlier
            return self._buffer.push(unit, now_ms, ready_in_ms)

    def pull(self, count: int, now_ms: float, latency_ms: float) -> Sound:
        """The next `count` samples for the speaker, which are heard `latency_ms` from now."""
        with self._lock:
            self._follow_resync()
            self._pulled_ms, self._latency_ms = now_ms, latency_ms
            self._block_ms = count / SAMPLES_PER_MS
            due_ms = self._buffer.media_time_ms(now_ms)
            if due_ms is None:
                return Sound(np.zeros(count, np.int16), None)
            sound = self._sound.pull(count, due_ms)
            if sound.pts_ms is not None and self._sound.position is not None:
                self._anchor_ms, self._anchor_position = now_ms, self._sound.position - count
            return sound

    def clock_ms(self, now_ms: float) -> float | None:
        """The media time that is heard now; None while nothing is due."""
        with self._lock:
            return self._clock_ms(now_ms)

    def due_motion(self, now_ms: float, lead_ms: float) -> list[MotionFrame]:
        """Motion to be drawn now so that it can be shown `lead_ms` later, oldest first.

        Where the next unit did not come in time, up to three frames are concealed, one at a time.
        """
        with self._lock:
            self._lead_ms = lead_ms
            clock_ms = self._clock_ms(now_ms)
            return [] if clock_ms is None else self._motion.due(clock_ms + lead_ms)

    def stats(self) -> PlayoutStats:
        """Counts so far."""
        with self._lock:
            return PlayoutStats(
                jitter=self._buffer.stats(),
                concealed_audio_ms=self._sound.concealed_ms,
                concealed_frames=self._motion.concealed,
                interpolated_frames=self._motion.interpolated,
                late_frames=self._motion.late,
                corrections=self._sound.corrections,
                waits=self._sound.waits,
                dropped=dict(self._sound.dropped + self._motion.dropped),
            )

    def _clock_ms(self, now_ms: float) -> float | None:
        self._follow_resync()
        position = self._sound.position
        if position is None or now_ms - self._pulled_ms > AUDIO_GONE_MS:
            return self._buffer.media_time_ms(now_ms)
        heard_ms = self._anchor_position / SAMPLES_PER_MS + now_ms - self._anchor_ms - self._latency_ms
        return min(heard_ms, position / SAMPLES_PER_MS)  # what was not taken yet cannot be heard

    def _follow_resync(self) -> None:
        """Forget where playout stood when the buffer has started anew: its times mean nothing any more."""
        resyncs = self._buffer.stats().resyncs
        if resyncs != self._resyncs:
            self._resyncs = resyncs
            self._sound.reset()
            self._motion.reset()
