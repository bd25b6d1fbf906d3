"""The conventional codecs, as good as their encoders make them: H.266 (libvvenc), HEVC (x265), AV1 (SVT-AV1).

Each runs through FFmpeg as a separate process on one core, ten bits deep, with one intra picture at the
start, and is decoded from its own bytes. What was chosen against an encoder's default, because it gives the
anchor more picture for its bits here (docs/benchmark.md has the measurement):

    libvvenc   -qpa 0: its perceptual adaptation costs rate at these sizes, by PSNR and by ST-LPIPS alike
    x265       slow, main 10, no banner in the stream
    SVT-AV1    preset 4, main 10; quality values above 63 where the rate is to be lowest

A quality may be fractional: libvvenc takes whole QPs only, so the rest goes into its Lagrange multiplier,
which moves the rate as a fraction of a QP would.
"""

import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from avcall.bench.clip import Clip
from avcall.bench.codec import Coded, Decoded
from avcall.bench.ffmpeg import FFmpeg
from avcall.bench.speech import coded_speech
from avcall.bench.wire import carry
from avcall.errors import InputError
from avcall.types import FRAME_RATE, FRAME_SIZE_PX

PRESETS = ("medium", "slow", "slower")  # of libvvenc; faster ones would hobble the anchor
_FRAME_BYTES = FRAME_SIZE_PX * FRAME_SIZE_PX * 3
_RAW = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
_SIZE = ["-s", f"{FRAME_SIZE_PX}x{FRAME_SIZE_PX}", "-r", str(FRAME_RATE)]
# One matrix and range on the way in and back, and no shortcuts in the arithmetic.
_TO_YUV = "scale=in_range=pc:out_range=tv:out_color_matrix=bt709:flags=lanczos+accurate_rnd+full_chroma_inp"
_TO_RGB = "scale=in_range=tv:out_range=pc:in_color_matrix=bt709:flags=lanczos+accurate_rnd+full_chroma_int"
_LAMBDA_LAYERS = 7
_LAMBDA_PER_QP = 2 ** (1 / 3)  # the multiplier grows with the square of the step, which doubles every six QP
_TEMPORAL_DELIMITER_BYTES = 2  # AV1 section 5.6: framing for files; RTP leaves it out, so it is not counted


@dataclass(frozen=True, slots=True)
class Anchor:
    """One way to run one encoder. `qualities` are those of a sweep, from the fewest bits on, as QP and CRF
    count them; `options(preset, quality)` are FFmpeg's."""

    name: str
    encoder: str
    container: str
    qualities: tuple[float, ...]
    options: Callable[[str, float], list[str]]


def _h266(extra: str) -> Callable[[str, float], list[str]]:
    def options(preset: str, quality: float) -> list[str]:
        qp = min(63, math.floor(quality + 0.5))
        multiplier = f"{_LAMBDA_PER_QP ** (quality - qp):.4f}"
        lambdas = "" if quality == qp else "LambdaModifier=" + ",".join([multiplier] * _LAMBDA_LAYERS)
        params = ":".join(part for part in (extra, lambdas) if part)
        chosen = ["-preset", preset, "-qp", str(qp), "-qpa", "0", "-period", "1000"]
        return [*chosen, *(["-vvenc-params", params] if params else [])]

    return options


def _hevc(_preset: str, quality: float) -> list[str]:
    params = "keyint=-1:scenecut=0:info=0:pools=none:frame-threads=1:log-level=error"
    return ["-preset", "slow", "-crf", f"{quality:g}", "-x265-params", params]


def _av1(_preset: str, quality: float) -> list[str]:
    quarters = round(quality * 4) / 4  # what SVT-AV1 can tell apart
    return ["-preset", "4", "-g", "99999", "-svtav1-params", f"lp=1:crf={quarters:g}"]


_QPS = (63, 48, 41, 34, 28, 22)  # below 48 the rate hardly moves
_LOWDELAY = "gopsize=8:picreordering=0:decodingrefreshtype=none"
ANCHORS: dict[str, tuple[Anchor, ...]] = {
    "h266": (
        Anchor("h266-lowdelay", "libvvenc", "vvc", _QPS, _h266(_LOWDELAY)),
        Anchor("h266-randomaccess", "libvvenc", "vvc", _QPS, _h266("")),
    ),
    "hevc": (Anchor("hevc-randomaccess", "libx265", "hevc", (51, 44, 37, 30, 23), _hevc),),
    "av1": (Anchor("av1-randomaccess", "libsvtav1", "obu", (70, 60, 50, 40, 30), _av1),),
}


class VideoCodec:
    """One anchor at one quality. Thread-safe: it keeps nothing but its settings."""

    def __init__(
        self, anchor: Anchor, quality: float, ffmpeg: FFmpeg, preset: str = "medium", tick_ms: int = 80
    ) -> None:
        """Raises InputError when the FFmpeg lacks the encoder, naming the remedy."""
        ffmpeg.require(anchor.encoder)
        self._anchor, self._quality, self._ffmpeg = anchor, quality, ffmpeg
        self._preset, self._tick_ms = preset, tick_ms

    @property
    def name(self) -> str:
        """See Codec."""
        return self._anchor.name

    @property
    def setting(self) -> str:
        """See Codec."""
        return f"q{self._quality:g}"

    @property
    def identity(self) -> str:
        """See Codec."""
        return f"{self._ffmpeg.version} {shlex.join(self._arguments())} tick {self._tick_ms}"

    def encode(self, clip: Clip) -> Coded:
        """See Codec. The speech is what avcall sends, and the packets are what it would use."""
        arguments = self._arguments()
        began_s = time.monotonic()
        data = self._ffmpeg.run(arguments, clip.frames.tobytes())
        encode_s = time.monotonic() - began_s
        sizes_bytes = self._picture_sizes(data)
        if len(sizes_bytes) != len(clip.crops):
            raise InputError(
                f"{self.name} {self.setting}: {len(sizes_bytes)} pictures for {len(clip.crops)} frames"
            )
        bill = carry(sizes_bytes, coded_speech(clip, self._tick_ms), self._tick_ms)
        return Coded(data, bill, shlex.join(["ffmpeg", *arguments]), encode_s)

    def decode(self, data: bytes) -> Decoded:
        """See Codec."""
        arguments = ["-f", self._anchor.container, "-i", "-", "-vf", _TO_RGB, *_RAW, "-threads", "1", "-"]
        raw = self._ffmpeg.run(arguments, data)
        if len(raw) % _FRAME_BYTES:
            raise InputError(f"{self.name} {self.setting}: the decoder stopped within a picture")
        frames = np.frombuffer(bytearray(raw), np.uint8)  # writable, as torch wants it
        return Decoded(frames.reshape(-1, FRAME_SIZE_PX, FRAME_SIZE_PX, 3))

    def _arguments(self) -> list[str]:
        anchor = self._anchor
        return [
            *_RAW,
            *_SIZE,
            *("-i", "-", "-vf", _TO_YUV, "-pix_fmt", "yuv420p10le", "-threads", "1", "-c:v", anchor.encoder),
            *anchor.options(self._preset, self._quality),
            *("-f", anchor.container, "-"),
        ]

    def _picture_sizes(self, data: bytes) -> list[int]:
        """Bytes of each coded picture, in the order of the stream; parameter sets belong to the first."""
        listing = self._ffmpeg.run(
            ["-f", self._anchor.container, "-i", "-", "-c", "copy", "-f", "framecrc", "-"], data
        )
        lines = [line for line in listing.decode().splitlines() if line and not line.startswith("#")]
        sizes_bytes = [int(line.split(",")[4]) for line in lines]
        if self._anchor.container != "obu":
            return sizes_bytes
        return [size - _TEMPORAL_DELIMITER_BYTES for size in sizes_bytes]
