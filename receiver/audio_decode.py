"""Opus to speech: exactly the samples that each access unit stands for."""

import av
import av.error
import numpy as np

from avcall.errors import AudioFormatError
from avcall.types import SAMPLE_RATE_HZ, AccessUnit, F32Array, Pcm
from receiver.conceal import HISTORY_SAMPLES, conceal_audio, crossfade

OPUS_RATE_HZ = 48_000  # what an Opus decoder puts out, whatever went in (RFC 7845 section 4)
DECIMATION = OPUS_RATE_HZ // SAMPLE_RATE_HZ
# Odd and linear-phase: its delay is 24 samples at 48 kHz, exactly 0.5 ms. Together with Opus's own 6.5 ms
# that is the 7 ms which the sender takes off the pts.
FILTER_TAPS = 49
FILTER_CUTOFF = 7_600 / OPUS_RATE_HZ  # below the 8 kHz that 16 kHz can hold, with room for the slope
CROSSFADE_SAMPLES = (
    SAMPLE_RATE_HZ // 200
)  # 5 ms from made-up sound back to the real one, so that it does not click


def _decimation_filter() -> F32Array:
    """A windowed-sinc low-pass of unit gain, (49,) float32."""
    n = np.arange(FILTER_TAPS) - FILTER_TAPS // 2
    taps = np.sinc(2 * FILTER_CUTOFF * n) * np.hamming(FILTER_TAPS)
    return np.asarray(taps / taps.sum(), dtype=np.float32)


class OpusDecoder:
    """Opus frames in, 16 kHz mono out. Feed the units in order; call `conceal` for each that is missing."""

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("libopus", "r")
        self._codec.sample_rate = OPUS_RATE_HZ
        self._codec.layout = "mono"
        self._codec.open()
        self._taps = _decimation_filter()
        self._past = np.zeros(FILTER_TAPS - 1, np.float32)
        self._history = np.zeros(0, np.int16)
        self._concealed = 0  # samples made up since the last real one

    def decode(self, unit: AccessUnit) -> Pcm:
        """The sound of one unit, (duration_ms * 16,) int16.

        Raises AudioFormatError when the payload is not an Opus frame of that duration.
        """
        wide = self._decode_48k(unit.payload)
        if len(wide) != unit.duration_ms * OPUS_RATE_HZ // 1000:
            got_ms = len(wide) * 1000 / OPUS_RATE_HZ
            raise AudioFormatError(f"an audio unit of {unit.duration_ms} ms holds {got_ms:g} ms")
        padded = np.concatenate([self._past, wide])
        self._past = padded[-len(self._past) :]
        filtered = np.convolve(padded, self._taps, mode="valid")[::DECIMATION]
        pcm: Pcm = np.clip(np.rint(filtered), -32768, 32767).astype(np.int16)
        if self._concealed:
            tail = conceal_audio(self._history, CROSSFADE_SAMPLES, self._concealed)
            pcm = crossfade(tail, pcm)
            self._concealed = 0
        self._history = np.concatenate([self._history, pcm])[-HISTORY_SAMPLES:]
        return pcm

    def conceal(self, duration_ms: int) -> Pcm:
        """Sound for a unit that did not come, (duration_ms * 16,) int16: the voice goes on and fades."""
        count = duration_ms * SAMPLE_RATE_HZ // 1000
        pcm = conceal_audio(self._history, count, self._concealed)
        self._concealed += count
        return pcm

    def _decode_48k(self, payload: bytes) -> F32Array:
        if not payload:
            raise AudioFormatError("an audio unit is empty")
        try:
            frames = self._codec.decode(av.Packet(payload))
        except (av.error.FFmpegError, ValueError) as cause:
            raise AudioFormatError(f"an audio unit of {len(payload)} bytes is not Opus") from cause
        blocks = [frame.to_ndarray().reshape(-1) for frame in frames]
        return np.concatenate(blocks).astype(np.float32) if blocks else np.zeros(0, np.float32)
