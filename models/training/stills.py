"""Still codecs for keyframes, measured: the picture, and the animation that is made from it.

    python -m models.training.stills CLIP... [--sizes 1500 4000 8000] [--frames 5] [--trunk vgg]
        [--codec NAME]

Each codec codes the first frame of every clip at its best quality within each size; the size is what would
be sent (AVIF without its container). Then the network animates the decoded picture to frames spread over the
clip. Prints a table of means: PSNR, SSIM and ST-LPIPS (AlexNet, or `--trunk`) of the picture against the
camera's, ST-LPIPS of the animation against the camera's frames, and the milliseconds of one coding. JPEG XL
is measured when pillow-jxl-plugin is installed.
"""

import argparse
import contextlib
import importlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from rich.console import Console

from avcall.bitstream import avif
from avcall.types import FRAME_SIZE_PX, FaceCrop, U8Image
from models.config import MEL_BANDS, MEL_STEPS
from models.metrics.picture import psnr, ssim_map
from models.metrics.stlpips import StLpips, Trunk
from models.priors import PriorExtractor
from models.runtime import Device, ModelRuntime
from models.training.media import read_pictures

SIZES_BYTES = (1_500, 4_000, 8_000)
TRUNKS: tuple[Trunk, ...] = ("alex", "vgg")
WEBP_CONTAINER_BYTES = 20  # RIFF and chunk headers


@dataclass(frozen=True, slots=True)
class Still:
    """A coded picture: what would be sent, and what comes out."""

    size_bytes: int
    rgb: U8Image


Code = Callable[[U8Image, int], Still]  # at a quality of 0..100


@dataclass(frozen=True, slots=True)
class Measured:
    """One codec at one size on one clip; ST-LPIPS of the picture and of the animation."""

    size_bytes: int
    encode_ms: float
    psnr_db: float
    ssim: float
    picture: float
    animation: float


def _pillow(kind: str, overhead_bytes: int = 0, **options: object) -> Code:
    def code(rgb: U8Image, quality: int) -> Still:
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, kind, quality=quality, **options)
        with Image.open(buffer) as still:
            return Still(len(buffer.getvalue()) - overhead_bytes, np.asarray(still.convert("RGB")))

    return code


def _avif(speed: int, **advanced: str) -> Code:
    return _pillow("AVIF", avif.CONTAINER_BYTES, codec="aom", speed=speed, max_threads=1, advanced=advanced)


def _svt_av1(rgb: U8Image, quality: int) -> Still:
    """An AV1 intra frame of SVT-AV1 through PyAV."""
    encoder = av.CodecContext.create("libsvtav1", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width = encoder.height = FRAME_SIZE_PX
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
    quantiser = round(63 - quality * 0.62)
    encoder.options = {
        "preset": "4",
        "crf": str(quantiser),
        "svtav1-params": "tune=1:avif=1:lp=1",
    }
    packets = [*encoder.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")), *encoder.encode(None)]
    data = b"".join(bytes(packet) for packet in packets)
    decoder = av.CodecContext.create("libdav1d", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    return Still(len(data), frames[0].to_ndarray(format="rgb24").astype(np.uint8, copy=False))


def codecs() -> dict[str, Code]:
    """Every codec that this machine has."""
    found: dict[str, Code] = {
        "AVIF, aom, tune default": _pillow("AVIF", avif.CONTAINER_BYTES, speed=6, max_threads=1),
        "AVIF, aom, tune psnr": _avif(6, tune="psnr"),
        "AVIF, aom, tune ssim": _avif(6, tune="ssim"),
        "AVIF, aom, tune ssim, slow": _avif(3, tune="ssim"),
        "AVIF, aom, tune iq": _avif(6, tune="iq"),
        "AV1 intra, SVT, PyAV": _svt_av1,
        "WebP": _pillow("WEBP", WEBP_CONTAINER_BYTES, method=6),
        "JPEG": _pillow("JPEG", optimize=True, progressive=True),
    }
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_jxl")
        found["JPEG XL"] = _pillow("JXL", effort=9)
    return found


def fitted(code: Code, rgb: U8Image, limit_bytes: int) -> tuple[Still, float] | None:
    """The best quality within `limit_bytes` and the milliseconds of its coding; None when none fits."""
    low, high, best = 0, 100, None
    while low <= high:
        quality = (low + high) // 2
        began_s = time.perf_counter()
        still = code(rgb, quality)
        took_ms = (time.perf_counter() - began_s) * 1000
        if still.size_bytes <= limit_bytes:
            low, best = quality + 1, (still, took_ms)
        else:
            high = quality - 1
    return best


class Animator:
    """Draws a clip's frames from a coded picture of its first one, and measures how far off they are."""

    def __init__(self, crops: list[FaceCrop], weights: Path | None, trunk: Trunk) -> None:
        self._runtime = ModelRuntime(device=Device.CPU, threads=1, weights=weights)
        self._judge = StLpips(trunk)
        self._crops = crops
        self._wanted = [self._judge.features(crop.rgb) for crop in crops]
        self._poses = [self._runtime.detect(crop.rgb, crop.priors) for crop in crops[1:]]

    def measure(self, still: Still, encode_ms: float) -> Measured:
        """The picture, and the animation made from it."""
        first = self._crops[0]
        picture = self._judge.distance(self._judge.features(still.rgb), self._wanted[0])
        source = self._runtime.detect(still.rgb, first.priors)
        self._runtime.set_keyframe(0, still.rgb, source)
        silence = np.zeros((MEL_BANDS, MEL_STEPS), np.float32)
        held = self._runtime.hold(still.rgb, source, first.priors.landmarks)
        poses = [
            self._runtime.refine(pose, crop.rgb, crop.priors.landmarks, held).keypoints
            for pose, crop in zip(self._poses, self._crops[1:], strict=True)
        ]
        drawn = [self._runtime.synthesize(0, pose, silence, speech=False) for pose in poses]
        animation = [
            self._judge.distance(self._judge.features(rgb), wanted)
            for rgb, wanted in zip(drawn, self._wanted[1:], strict=True)
        ]
        return Measured(
            still.size_bytes,
            encode_ms,
            psnr(still.rgb, first.rgb),
            float(ssim_map(still.rgb, first.rgb).mean()),
            picture,
            float(np.mean(animation)),
        )


def read_crops(path: Path, frames: int) -> list[FaceCrop]:
    """The first frame of a clip and `frames` others, spread over it."""
    pictures = list(read_pictures(path))
    chosen = np.linspace(0, len(pictures) - 1, frames + 1).astype(int)
    with PriorExtractor(tracking=False) as extractor:
        return [FaceCrop(pictures[i], extractor.extract(pictures[i]), int(i) * 40) for i in chosen]


def measure_clip(
    first: U8Image, sizes: list[int], chosen: dict[str, Code], animator: Animator
) -> Iterator[tuple[str, int, Measured]]:
    """Every codec at every size, on a clip's first picture: its name, the size, and what was measured."""
    yield "(uncoded)", 0, animator.measure(Still(0, first), 0.0)
    for limit_bytes in sizes:
        for name, code in chosen.items():
            best = fitted(code, first, limit_bytes)
            if best is not None:
                yield name, limit_bytes, animator.measure(*best)


def table(rows: dict[tuple[int, str], list[Measured]], clips: int) -> str:
    """A Markdown table; a codec that could not keep a size on every clip says on how many it did."""
    lines = [
        "| limit, bytes | codec | sent | PSNR dB | SSIM | ST-LPIPS picture | ST-LPIPS animation | ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (limit_bytes, name), found in sorted(rows.items(), key=lambda row: row[0][0]):
        mean = {key: float(np.mean([getattr(m, key) for m in found])) for key in Measured.__slots__}
        label = name if len(found) == clips else f"{name} ({len(found)} of {clips} clips)"
        lines.append(
            f"| {limit_bytes or '-'} | {label} | {mean['size_bytes']:.0f} | {mean['psnr_db']:.2f} "
            f"| {mean['ssim']:.4f} | {mean['picture']:.4f} | {mean['animation']:.4f} "
            f"| {mean['encode_ms']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the clips of the command line and print the table."""
    known = codecs()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES_BYTES))
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--trunk", choices=TRUNKS, default=TRUNKS[0])
    parser.add_argument("--codec", choices=known, metavar="NAME", help="one row's name; default: all")
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    chosen = {name: code for name, code in known.items() if options.codec in {None, name}}
    rows: dict[tuple[int, str], list[Measured]] = {}
    for path in options.clips:
        crops = read_crops(path, options.frames)
        animator = Animator(crops, options.weights, options.trunk)
        for name, limit_bytes, measured in measure_clip(crops[0].rgb, options.sizes, chosen, animator):
            rows.setdefault((limit_bytes, name), []).append(measured)
    Console().print(table(rows, len(options.clips)), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
