"""Speech to Opus: one access unit for each chunk."""

from fractions import Fraction

import av

from avcall.errors import ConfigError
from avcall.types import SAMPLE_RATE_HZ, AccessUnit, AudioChunk, MediaKind

FRAME_DURATIONS_MS = (20, 40, 60)  # RFC 6716 section 2.1.4; longer ones are several frames in one packet
MIN_BITRATE_BPS = 6_000  # RFC 6716 section 2.1.1: the lowest that Opus has
MAX_BITRATE_BPS = (
    16_000  # above, libopus puts two frames into a packet of 40 ms, which the wire format refuses
)
# Media time by which decoded sound lags the chunk that went in: 6.5 ms of look-ahead in the encoder (RFC 6716
# section 2: 2.5 ms of CELT overlap and 4 ms for SILK) and 0.5 ms of the receiver's decimation filter.
CODEC_DELAY_MS = 7


class OpusEncoder:
    """16 kHz mono in, Opus frames out (libopus, tuned for speech).

    The pts of a unit is that of the sound which comes out of the decoder: `CODEC_DELAY_MS` before the pts of
    the chunk. A unit that would begin before 0 holds mostly the encoder's warm-up and is not given out.
    """

    def __init__(self, bitrate_bps: int = MIN_BITRATE_BPS, frame_ms: int = 40) -> None:
        if frame_ms not in FRAME_DURATIONS_MS:
            raise ConfigError(f"audio frame_ms is {frame_ms}; choose one of {FRAME_DURATIONS_MS}")
        self._frame_ms = frame_ms
        self._samples = frame_ms * SAMPLE_RATE_HZ // 1000
        self._next_pts = 0
        self._codec = self._open(bitrate_bps)
        self._bitrate_bps = bitrate_bps

    @property
    def bitrate_bps(self) -> int:
        """The rate of the chunks to come."""
        return self._bitrate_bps

    def set_bitrate(self, bitrate_bps: int) -> None:
        """Code the chunks to come at another rate.

        PyAV cannot tell libopus so, hence a new encoder, which costs 6.5 ms of sound. It starts cold, as the
        decoder does: below 10 kbit/s speech is narrowband, and where the band changes, SILK forgets the past.
        """
        if bitrate_bps == self._bitrate_bps:
            return
        self._codec = self._open(bitrate_bps)
        self._bitrate_bps = bitrate_bps
        self._next_pts = 0

    def encode(self, chunk: AudioChunk) -> list[AccessUnit]:
        """The Opus frame of one chunk of exactly `frame_ms`; empty for the first chunk of a call."""
        if chunk.pcm.shape != (self._samples,):
            raise ValueError(f"a chunk holds {chunk.pcm.shape} samples, not ({self._samples},)")
        pts_ms = chunk.pts_ms - CODEC_DELAY_MS
        return [
            AccessUnit(kind=MediaKind.AUDIO, pts_ms=pts_ms, duration_ms=self._frame_ms, payload=payload)
            for payload in self._code(chunk)
            if pts_ms >= 0
        ]

    def _open(self, bitrate_bps: int) -> av.AudioCodecContext:
        if not MIN_BITRATE_BPS <= bitrate_bps <= MAX_BITRATE_BPS:
            raise ConfigError(
                f"audio bitrate_bps is {bitrate_bps}; it goes from {MIN_BITRATE_BPS} to {MAX_BITRATE_BPS}"
            )
        codec: av.AudioCodecContext = av.CodecContext.create("libopus", "w")
        codec.sample_rate = SAMPLE_RATE_HZ
        codec.layout = "mono"
        codec.format = "s16"
        codec.bit_rate = bitrate_bps
        codec.time_base = Fraction(1, SAMPLE_RATE_HZ)
        # Constrained: a frame that is far above the average would delay the motion that shares its packet.
        codec.options = {"application": "voip", "frame_duration": str(self._frame_ms), "vbr": "constrained"}
        codec.open()
        return codec

    def _code(self, chunk: AudioChunk) -> list[bytes]:
        frame = av.AudioFrame.from_ndarray(chunk.pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.time_base = Fraction(1, SAMPLE_RATE_HZ)
        frame.pts = self._next_pts
        self._next_pts += self._samples
        return [bytes(packet) for packet in self._codec.encode(frame)]
