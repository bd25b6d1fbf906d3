"""Both trunks of ST-LPIPS against the package's own value, and within boxes."""

import numpy as np
import pytest
import torch

from avcall.types import U8Image
from models.metrics.perceptual import PerceptualPair
from models.metrics.picture import Box


@pytest.fixture(scope="module")
def pair() -> PerceptualPair:
    return PerceptualPair()


@pytest.fixture(scope="module")
def pictures() -> tuple[U8Image, U8Image]:
    generator = np.random.default_rng(0)
    smooth = np.linspace(0, 255, 256)[:, None, None] * np.ones((1, 256, 3))
    other = smooth.copy()
    other[128:, 128:] += generator.normal(0, 30, (128, 128, 3))
    return smooth.astype(np.uint8), np.clip(other, 0, 255).astype(np.uint8)


def test_the_whole_picture_is_the_packages_own_value(
    pair: PerceptualPair, pictures: tuple[U8Image, U8Image]
) -> None:
    found = pair.distances(pair.features(pictures[0]), pair.features(pictures[1]), {})
    x, y = (torch.from_numpy(p).permute(2, 0, 1)[None].float() / 127.5 - 1 for p in pictures)
    with torch.no_grad():
        theirs = {
            "st_lpips_vgg": float(pair._vgg.network(x, y)),
            "st_lpips_alex": float(pair._alex.network(x, y)),
        }
    assert found == pytest.approx(theirs, rel=1e-4)
    half = pair.distances(pair.features(pictures[0]), pair.features(pictures[1], half=True), {})
    assert half == pytest.approx(theirs, rel=5e-3)


def test_a_box_sees_what_is_in_it(pair: PerceptualPair, pictures: tuple[U8Image, U8Image]) -> None:
    boxes = {"face": Box(150, 150, 240, 240), "mouth": Box(0, 0, 90, 90)}
    found = pair.distances(pair.features(pictures[0]), pair.features(pictures[1]), boxes)
    assert found["face_lpips"] > 2 * found["st_lpips_vgg"]
    assert found["mouth_lpips"] < 0.3 * found["st_lpips_vgg"]
    whole = {"face": Box(0, 0, 256, 256)}
    everything = pair.distances(pair.features(pictures[0]), pair.features(pictures[1]), whole)
    assert everything["face_lpips"] == pytest.approx(everything["st_lpips_vgg"])
