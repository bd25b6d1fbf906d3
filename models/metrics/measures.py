"""The measures of all reports: what each is called, which way is better, and how it is printed."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np


class Better(Enum):
    """Which way a metric is better."""

    HIGHER = 1
    LOWER = -1


@dataclass(frozen=True, slots=True)
class Scores:
    """Measures of one clip; None where one was not computed.

    L1 and flicker have white at 1, PSNR is in dB, LMD in % of the face's width. `face_` and `mouth_` are
    taken within the boxes of the original's landmarks. `face_lost` is the share of pictures in which no face
    was found: LMD and AED leave those out.
    """

    l1: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    ms_ssim: float | None = None
    st_lpips_vgg: float | None = None
    st_lpips_alex: float | None = None
    fd_effnet: float | None = None
    fid: float | None = None
    lmd: float | None = None
    lmd_lips: float | None = None
    lmd_eyelids: float | None = None
    aed: float | None = None
    flicker: float | None = None
    lse_d: float | None = None
    lse_c: float | None = None
    face_l1: float | None = None
    face_psnr: float | None = None
    face_ssim: float | None = None
    face_lpips: float | None = None
    mouth_l1: float | None = None
    mouth_psnr: float | None = None
    mouth_ssim: float | None = None
    mouth_lpips: float | None = None
    face_lost: float | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """How one field of Scores is presented."""

    key: str
    title: str
    better: Better
    digits: int


_UP, _DOWN = Better.HIGHER, Better.LOWER
MEASURES = (
    Measure("l1", "L1", _DOWN, 4),
    Measure("psnr", "PSNR", _UP, 2),
    Measure("ssim", "SSIM", _UP, 4),
    Measure("ms_ssim", "MS-SSIM", _UP, 4),
    Measure("st_lpips_vgg", "ST-LPIPS-VGG", _DOWN, 4),
    Measure("st_lpips_alex", "ST-LPIPS-Alex", _DOWN, 4),
    Measure("fd_effnet", "FD-EffNet", _DOWN, 2),
    Measure("fid", "FID", _DOWN, 2),
    Measure("lmd", "LMD %", _DOWN, 2),
    Measure("lmd_lips", "LMD lips %", _DOWN, 2),
    Measure("lmd_eyelids", "LMD eyelids %", _DOWN, 2),
    Measure("aed", "AED", _DOWN, 3),
    Measure("flicker", "flicker", _DOWN, 4),
    Measure("lse_d", "Sync LSE-D", _DOWN, 2),
    Measure("lse_c", "Sync LSE-C", _UP, 2),
    Measure("face_l1", "face L1", _DOWN, 4),
    Measure("face_psnr", "face PSNR", _UP, 2),
    Measure("face_ssim", "face SSIM", _UP, 4),
    Measure("face_lpips", "face ST-LPIPS", _DOWN, 4),
    Measure("mouth_l1", "mouth L1", _DOWN, 4),
    Measure("mouth_psnr", "mouth PSNR", _UP, 2),
    Measure("mouth_ssim", "mouth SSIM", _UP, 4),
    Measure("mouth_lpips", "mouth ST-LPIPS", _DOWN, 4),
    Measure("face_lost", "faces lost", _DOWN, 3),
)
BY_KEY = {measure.key: measure for measure in MEASURES}
# What the quoted number is about, and the curves that are drawn.
QUOTED = ("st_lpips_vgg", "st_lpips_alex", "fd_effnet", "lmd")
DRAWN = ("psnr", "ssim", "st_lpips_vgg", "st_lpips_alex", "fd_effnet", "lmd", "aed", "flicker", "mouth_psnr")
# Table 1 of the paper lists, for each protocol, how far the picture is from the real one, the identity and
# the lips; its figures are on VoxCeleb with Inception's FID and are not the measures of the same name here.
SAME_IDENTITY = (
    *("l1", "psnr", "ssim", "st_lpips_vgg", "st_lpips_alex"),
    *("fd_effnet", "fid", "lmd", "aed", "lse_d", "lse_c"),
)
CROSS_IDENTITY = ("fd_effnet", "fid", "lmd", "aed", "lse_d", "lse_c", "face_lost")


def shown(key: str, value: float | None) -> str:
    """A value as it is printed; a dash for what was not computed."""
    return "-" if value is None else f"{value:.{BY_KEY[key].digits}f}"


def mean_of(values: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of every measure over the frames that have it."""
    gathered: dict[str, list[float]] = {}
    for one in values:
        for name, value in one.items():
            gathered.setdefault(name, []).append(value)
    return {name: float(np.mean(found)) for name, found in gathered.items()}


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """The mean of every measure over the clips that have it."""
    known = [{k: v for k, v in dataclasses.asdict(one).items() if v is not None} for one in scores]
    return Scores(**mean_of(known))
