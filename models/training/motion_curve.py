"""What coarser motion costs in picture: kbit/s against ST-LPIPS, for half floats and every quantiser step.

    python -m models.training.motion_curve DIR [--frames 6] [--trunk vgg] [--tick-ms 80]

DIR is what `avcall prepare` filled. The keyframe is the clip's first picture, uncoded, so that only the
motion differs. All motion of a clip is coded, packet by packet; the last frame of some packets, spread over
the clip, is drawn and compared with the camera's. Prints means over the clips.
"""

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from avcall.bitstream.motion import UNIT_BYTES, MotionMode, sanitise
from avcall.bitstream.motion_coded import STEPS, MotionCoder
from avcall.types import FRAME_MS, FRAME_RATE, Keypoints
from models.metrics.stlpips import StLpips, Trunk
from models.runtime import Device, ModelRuntime
from models.training.data import Clip, load_clips
from models.training.drawing import followed, held_frame, received_packet

FP16_KBPS = UNIT_BYTES[MotionMode.FP16] * 8 * FRAME_RATE / 1000
KEYFRAME = 0


@dataclass(frozen=True, slots=True)
class Point:
    """One way to code motion: its rate, ST-LPIPS to the camera's picture, and the error of the keypoints.

    `error_px` is the mean distance of a keypoint from where it was detected, in pixels of a 256x256 picture.
    """

    name: str
    kbps: float
    st_lpips: float
    error_px: float


def packets(frames: list[Keypoints], length: int) -> list[list[Keypoints]]:
    """The whole packets of `length` frames."""
    return [frames[start : start + length] for start in range(0, len(frames) - length + 1, length)]


def decoded_packets(
    coder: MotionCoder, groups: list[list[Keypoints]], source: Keypoints, step: int | None
) -> tuple[list[list[Keypoints]], float]:
    """The packets as a receiver has them, and their kbit/s; `step` None for half floats."""
    if step is None:
        frames = [[_halved(frame) for frame in group] for group in groups]
        return frames, FP16_KBPS
    sent = [received_packet(coder, group, source, step) for group in groups]
    duration_ms = sum(map(len, groups)) * FRAME_MS
    return [frames for frames, _ in sent], sum(size_bytes for _, size_bytes in sent) * 8 / duration_ms


def _halved(frame: Keypoints) -> Keypoints:
    """As it travels in half floats, where no lattice does."""
    return sanitise(dataclasses.replace(frame, lattice=None), np.float16)


def measure(clip: Clip, runtime: ModelRuntime, judge: StLpips, length: int, shown: int) -> list[Point]:
    """The points of one clip: half floats first, then every step, finest first."""
    held = held_frame(runtime, clip, 0)
    source = _halved(held.keypoints)
    held = dataclasses.replace(held, keypoints=source)
    frames = followed(runtime, clip, held)[1:]
    runtime.set_keyframe(KEYFRAME, held.rgb, source)
    groups = packets(frames, length)
    chosen = sorted({round(n) for n in np.linspace(0, len(groups) - 1, shown)})
    wanted = {n: judge.features(clip.picture((n + 1) * length)) for n in chosen}
    points = []
    for step in (None, *range(STEPS)):
        received, kbps = decoded_packets(runtime.motion_coder(), groups, source, step)
        distances, errors = [], []
        for n in chosen:
            index = (n + 1) * length
            picture = runtime.synthesize(KEYFRAME, received[n][-1], clip.mel(index), speech=len(clip.pcm) > 0)
            distances.append(judge.distance(judge.features(picture), wanted[n]))
            moved = received[n][-1].values - groups[n][-1].values
            errors.append(float(np.linalg.norm(moved, axis=1).mean()) * 128)
        name = "fp16" if step is None else f"step {step}"
        points.append(Point(name, kbps, float(np.mean(distances)), float(np.mean(errors))))
    return points


def main() -> None:
    """Print the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--frames", type=int, default=6, help="pictures compared per clip")
    parser.add_argument("--trunk", choices=("vgg", "alex"), default="vgg")
    parser.add_argument("--tick-ms", type=int, default=80, choices=(40, 80, 120))
    options = parser.parse_args()
    trunk: Trunk = options.trunk
    runtime, judge = ModelRuntime(device=Device.CPU, threads=2), StLpips(trunk)
    console = Console()
    clips = [
        measure(clip, runtime, judge, options.tick_ms // FRAME_MS, options.frames)
        for clip in track(load_clips(options.data), "clips", console=console)
    ]
    console.print("motion\tkbit/s\tST-LPIPS\tabove fp16\tkeypoints off by, px", highlight=False)
    base = float(np.mean([points[0].st_lpips for points in clips]))
    for rows in zip(*clips, strict=True):
        kbps, st_lpips, error_px = (
            float(np.mean([getattr(point, key) for point in rows]))
            for key in ("kbps", "st_lpips", "error_px")
        )
        line = f"{rows[0].name}\t{kbps:.2f}\t{st_lpips:.4f}\t{st_lpips - base:+.4f}\t{error_px:.2f}"
        console.print(line, highlight=False)


if __name__ == "__main__":
    main()
