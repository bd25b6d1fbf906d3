"""The metric of coded motion, against the flow of the network itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from avcall.bitstream.motion import keypoints_from
from avcall.bitstream.motion_coded import NUMBERS, SCALES, MotionCoder, flatten
from models.network import Network
from models.second_look import FLAT, LANDMARKS_WEIGHT, as_tensors, texture_of
from models.training import motion_metric as module
from models.training.data import Clip
from models.training.drawing import sight_of
from models.training.motion_metric import motion_metric
from models.training.motion_tables import train_tables
from models.training.quantise import prior_tensor
from tests.models.tiny import TINY_LIVE, random_network, write_prepared
from tests.units import make_keypoints


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network(TINY_LIVE)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return Clip(write_prepared(tmp_path_factory.mktemp("metric") / "clip.npz", frames=12))


@torch.no_grad()
def missed(network: Network, clip: Clip, index: int, error: np.ndarray) -> float:
    """The definition: how far a frame's flow goes wrong by `error`, place by place."""
    still, camera = module._small(clip, 0), module._small(clip, index)
    source, found = (
        network.detect(small, prior_tensor(clip, i)) for small, i in ((still, 0), (camera, index))
    )
    sight = as_tensors(sight_of(clip, index, 0))
    driving = network.look_again(still, source, found, sight, camera)
    step = torch.from_numpy(error).float()
    moved = (driving[0] + step[:20].view(1, 10, 2), driving[1] + step[20:].view(1, 10, 2, 2) / 0.1)
    flow, wrong = (network.dense_motion(still, source, pose).flow for pose in (driving, moved))
    x, y = (wrong - flow)[0].unbind(-1)
    xx, xy, yy = texture_of(camera)[0]
    seen = float(((xx + FLAT) * x * x + 2 * xy * x * y + (yy + FLAT) * y * y).mean()) / (1 + FLAT)
    at = sight.landmarks[:, 1, :, None]
    led = [
        torch.nn.functional.grid_sample(f.permute(0, 3, 1, 2), at, align_corners=False, padding_mode="border")
        for f in (flow, wrong)
    ]
    marked = ((led[1] - led[0])[0, :, :, 0].square().sum(0) * sight.trust[0]).sum() / sight.trust.sum()
    return seen + LANDMARKS_WEIGHT * float(marked)


def test_the_metric_is_the_miss_that_an_error_makes(
    network: Network, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RIDGE", 0.0)
    monkeypatch.setattr(module, "FRAMES_PER_CLIP", 1)
    monkeypatch.setattr(module, "NUDGE", 0.001)
    metric = motion_metric(network, [clip])
    rng = np.random.default_rng(1)
    for _ in range(3):
        error = 0.0005 * rng.standard_normal(NUMBERS)
        assert error @ metric @ error == pytest.approx(missed(network, clip, 11, error), rel=0.15)


def test_no_number_is_free(network: Network, clip: Clip) -> None:
    metric = motion_metric(network, [clip])
    np.testing.assert_allclose(metric, metric.T, atol=1e-9)
    assert np.linalg.eigvalsh(metric).min() > 0


def test_without_a_clip_that_is_long_enough_every_number_counts_alike(
    network: Network, tmp_path: Path
) -> None:
    short = Clip(write_prepared(tmp_path / "short.npz", frames=3))
    assert np.array_equal(motion_metric(network, [short]), np.eye(NUMBERS))


def test_motion_is_quantised_in_the_metric() -> None:
    """What counts a hundred times as much, squared, is coded ten times as exactly."""
    rng = np.random.default_rng(2)
    clips = [(0.1 * rng.standard_normal((60, NUMBERS))).astype(np.float32) for _ in range(3)]
    metric = np.diag(np.where(np.arange(NUMBERS) < 30, 100.0, 1.0))
    coder = MotionCoder(train_tables(clips, metric))
    still = make_keypoints(1)
    moved = [
        keypoints_from(((flatten(still) + 0.1 * rng.standard_normal(NUMBERS)) / SCALES).astype(np.float32))
        for _ in range(20)
    ]
    decoded = [coder.decode(coder.encode([frame], still, 4), 1, still, 4)[0] for frame in moved]
    error = np.array([flatten(a) - flatten(b) for a, b in zip(moved, decoded, strict=True)])
    fine, coarse = (np.sqrt(np.square(part).mean()) for part in (error[:, :30], error[:, 30:]))
    assert coarse / fine == pytest.approx(10, rel=0.3)
