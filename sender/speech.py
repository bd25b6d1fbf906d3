"""Speech: the sound's way through the sender, chunk after chunk: Opus, and nothing in the pauses."""

import threading

from avcall.types import AccessUnit, AudioChunk
from sender.audio_encode import MIN_BITRATE_BPS, OpusEncoder
from sender.silence import SilenceGate, SilenceStats


class SpeechPath:
    """Chunks of sound in, the audio units that are worth sending out.

    Chunks come from one thread; the rate may be set from another.
    """

    def __init__(self, bitrate_bps: int = MIN_BITRATE_BPS, frame_ms: int = 40) -> None:
        self._encoder = OpusEncoder(bitrate_bps, frame_ms)
        self._gate = SilenceGate()
        self._lock = threading.Lock()

    def set_bitrate(self, bitrate_bps: int) -> None:
        """Code from the next chunk on at `bitrate_bps`."""
        with self._lock:
            self._encoder.set_bitrate(bitrate_bps)

    def process(self, chunk: AudioChunk) -> list[AccessUnit]:
        """What to send now; see OpusEncoder and SilenceGate."""
        with self._lock:
            # Silence is coded too: the encoder goes on from what was heard last when speech comes back.
            units = self._encoder.encode(chunk)
            return [sent for unit in units for sent in self._gate.push(unit, chunk.pcm)]

    def stats(self) -> SilenceStats:
        """How much of the call was speech."""
        return self._gate.stats()
