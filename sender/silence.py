"""Silence: decides which chunks of sound are worth sending.

PyAV does not pass the DTX option on to Opus, so pauses are found here: the loudest 10 ms of a chunk against a
noise floor that follows the quietest sound of the last seconds. What is sent of a pause is a marker now and
then: the TOC byte alone, a frame that the encoder left out (RFC 6716 section 3.2.1).
"""

from dataclasses import dataclass, replace

import numpy as np

from avcall.bitstream.audio import SILENCE_EVERY_MS, silence_marker
from avcall.types import SAMPLE_RATE_HZ, AccessUnit, F32Array, Pcm

BLOCK_SAMPLES = SAMPLE_RATE_HZ // 100  # 10 ms: short enough for the burst of a plosive
FULL_SCALE = 32768.0
FLOOR_MIN_DB = -70.0  # of full scale: below, it is digital silence, which says nothing of the room's noise
FLOOR_MAX_DB = -30.0  # a louder room is left to the encoder: better bits than a word lost
FLOOR_RISE_DB_S = 3.0  # slower than any sentence is without a gap, faster than a fan is switched on twice
SPEECH_DB = 6.0  # above the floor; the loudest 10 ms of steady noise stay within 3 dB of each other
HANGOVER_MS = 200  # after the last speech: words fade, and short gaps between them are not worth a change


@dataclass(frozen=True, slots=True)
class SilenceStats:
    """Media time since the start that was sent, and that was left out as silence."""

    speech_ms: int = 0
    silence_ms: int = 0


class SilenceGate:
    """Units in with the sound that they were made of, out what is to be sent of them.

    A pause starts with a marker, and so does every 400 ms of it. The last silent unit is kept back, and sent
    after all when speech follows: the quiet beginning of a word belongs to it.
    """

    def __init__(self) -> None:
        self._floor_db = FLOOR_MIN_DB
        self._hangover_ms = HANGOVER_MS  # a call starts as if somebody had just spoken
        self._since_marker_ms: int | None = None  # None while speech is sent
        self._held: AccessUnit | None = None
        self._stats = SilenceStats()

    def push(self, unit: AccessUnit, pcm: Pcm) -> list[AccessUnit]:
        """What to send now, by increasing pts: `unit`, a marker, both of the last two units, or nothing.

        `pcm` (samples,) int16 is the sound that the unit was made of.
        """
        if self._is_speech(level_db(pcm), unit.duration_ms):
            held, self._held, self._since_marker_ms = self._held, None, None
            kept = [unit] if held is None else [held, unit]
            self._count(speech_ms=sum(u.duration_ms for u in kept))
            return kept
        held, self._held = self._held, unit
        if self._since_marker_ms is not None:
            self._since_marker_ms += unit.duration_ms
        if held is None:
            return []
        self._count(silence_ms=held.duration_ms)
        if self._since_marker_ms is not None and self._since_marker_ms < SILENCE_EVERY_MS:
            return []
        self._since_marker_ms = 0
        return [replace(held, payload=silence_marker(held.payload))]

    def stats(self) -> SilenceStats:
        """Totals so far."""
        return self._stats

    def _is_speech(self, level: float, duration_ms: int) -> bool:
        """Whether a chunk is speech or follows it closely."""
        loud = level > self._floor_db + SPEECH_DB
        risen_db = self._floor_db + FLOOR_RISE_DB_S * duration_ms / 1000
        self._floor_db = min(max(min(level, risen_db), FLOOR_MIN_DB), FLOOR_MAX_DB)
        self._hangover_ms = HANGOVER_MS if loud else max(0, self._hangover_ms - duration_ms)
        return self._hangover_ms > 0

    def _count(self, speech_ms: int = 0, silence_ms: int = 0) -> None:
        before = self._stats
        self._stats = SilenceStats(before.speech_ms + speech_ms, before.silence_ms + silence_ms)


def level_db(pcm: Pcm) -> float:
    """The loudest 10 ms of `pcm` (samples,) int16, in dB of full scale; -inf for digital silence."""
    whole = pcm[: len(pcm) // BLOCK_SAMPLES * BLOCK_SAMPLES].astype(np.float32) / FULL_SCALE
    powers: F32Array = (whole.reshape(-1, BLOCK_SAMPLES) ** 2).mean(axis=1)
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(powers.max(initial=0.0)))
