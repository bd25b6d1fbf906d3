"""Clips, codecs and measures for the comparison's tests: small, exact, and without networks."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from avcall.bench.clip import Clip
from avcall.bench.codec import Coded, Decoded
from avcall.bench.plan import Plan, Steered
from avcall.bench.rates import clip_bill
from avcall.bench.score import Reference, Scored
from avcall.bench.store import Point, Role
from avcall.bench.video_codecs import Anchor
from avcall.errors import InputError
from avcall.types import FRAME_MS, U8Image
from models.metrics.measures import Scores
from models.metrics.sets import Features
from tests.clips import tone
from tests.fakes import make_crop


def make_clip(frames: int = 25, *, name: str = "clip", sound: bool = True) -> Clip:
    """Grey crops that grow lighter frame by frame, and a tone."""
    crops = tuple(make_crop(i * FRAME_MS, grey=60 + 2 * i) for i in range(frames))
    pcm = tone(440.0, frames * FRAME_MS) if sound else np.zeros(0, np.int16)
    return Clip(name, crops, pcm, f"digest of {name}")


class FakeCodec:
    """Codes a clip as its frames' greys plus `quality` (at most 40), in 1000 / quality kbit/s.

    Encodings are counted in `encoded`; with `fails` it never works.
    """

    encoded = 0

    def __init__(self, name: str = "fake", quality: float = 10.0, *, fails: bool = False) -> None:
        self.name = name
        self.quality = quality
        self.fails = fails

    @property
    def setting(self) -> str:
        return f"q{self.quality:g}"

    @property
    def identity(self) -> str:
        return f"fake codec at {self.quality:g}"

    def encode(self, clip: Clip) -> Coded:
        if self.fails:
            raise InputError(f"{self.name} does not work")
        type(self).encoded += 1
        size_bytes = round(1000 / self.quality * clip.duration_ms / 8)
        bill = clip_bill(
            len(clip.crops),
            motion_bytes=size_bytes - 50,
            keyframe_bytes=50,
            audio_bytes=100,
            wire_bytes=2 * size_bytes + 100,
            back_bytes=size_bytes,
        )
        greys = np.array([int(crop.rgb[0, 0, 0]) for crop in clip.crops]) + min(40, round(self.quality))
        return Coded(bytes(greys.tolist()), bill, f"fake --quality {self.quality:g}", 0.5)

    def decode(self, data: bytes) -> Decoded:
        frames = [np.full((256, 256, 3), grey, np.uint8) for grey in data]
        return Decoded(np.stack(frames))


def fake_anchor(name: str = "h266-lowdelay") -> Steered:
    """An encoder whose rate is 1000 / quality kbit/s."""
    anchor = Anchor(name, "fake", "fake", (100, 80, 60, 40, 20), lambda preset, quality: [str(quality)])
    return Steered(anchor, lambda quality: FakeCodec(name, quality))


def fake_plan(*fixed: FakeCodec, steered: Sequence[Steered] = ()) -> Plan:
    """A plan of these; the first fixed codec is the default."""
    return Plan(tuple(fixed), tuple(steered), fixed[0] if fixed else None, None, ())


class FakeJudge:
    """Scores by the mean grey alone."""

    def reference(self, clip: Clip) -> Reference:
        frames = clip.frames
        return Reference(clip, frames, (), self._features(frames))

    def score(self, reference: Reference, decoded: U8Image) -> Scored:
        difference = float(np.abs(decoded.astype(float) - reference.frames).mean())
        scores = Scores(
            l1=difference / 255, psnr=60 - difference, st_lpips_vgg=difference / 100, lmd=difference
        )
        return Scored(scores, self._features(decoded))

    @staticmethod
    def _features(frames: U8Image) -> Features:
        return Features(frames[:, :2, :2, 0].reshape(len(frames), 4).astype(np.float32))


def make_point(codec: str, kbps: float, psnr: float, **changes: object) -> Point:
    """A point of a curve of one second: `kbps` of pictures, a tenth of it keyframe, 4 kbit/s of speech."""
    video_bytes = round(kbps * 125)
    bill = clip_bill(
        25,
        motion_bytes=video_bytes - video_bytes // 10,
        keyframe_bytes=video_bytes // 10,
        audio_bytes=500,
        wire_bytes=2 * video_bytes + 500,
        back_bytes=video_bytes,
    )
    point = Point(
        clip="clip",
        codec=codec,
        setting=f"{kbps:g}",
        role=Role.CURVE,
        bill=bill,
        scores=Scores(psnr=psnr),
        command="fake",
        encode_s=1.0,
        frames=25,
        held=0,
    )
    return replace(point, **changes)  # type: ignore[arg-type]
