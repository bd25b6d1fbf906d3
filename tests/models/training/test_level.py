"""The jacobians' free scale is brought to 1, and nothing else changes."""

from pathlib import Path

import torch

from models.network import Network
from models.training.data import Clip
from models.training.level import level_jacobians
from models.training.quantise import prior_tensor
from tests.models.tiny import TINY_LIVE, pictures, random_network, write_prepared


def a_clip(tmp_path: Path) -> Clip:
    return Clip(write_prepared(tmp_path / "a.npz", frames=12))


def drifted(factor: float) -> Network:
    network = random_network(TINY_LIVE, seed=3)
    with torch.no_grad():
        network.detector.jacobians.weight.mul_(factor)
        network.detector.jacobians.bias.mul_(factor)
    return network


@torch.no_grad()
def test_a_drifted_scale_is_levelled_and_the_motion_stays(tmp_path: Path) -> None:
    clip, network = a_clip(tmp_path), drifted(5.0)
    small, camera = pictures(2, 64)[:, None]
    priors = prior_tensor(clip, 0)
    before = network.dense_motion(small, network.detect(small, priors), network.detect(camera, priors))
    level_jacobians(network, [clip])
    after = network.dense_motion(small, network.detect(small, priors), network.detect(camera, priors))
    torch.testing.assert_close(after.flow, before.flow, rtol=1e-4, atol=1e-5)
    _, jacobians = network.detect(small, priors)
    assert 0.2 < torch.linalg.det(jacobians).abs().median() < 5


@torch.no_grad()
def test_jacobians_that_were_cut_come_back_whole(tmp_path: Path) -> None:
    clip, small = a_clip(tmp_path), pictures(1, 64)
    known = drifted(1.0).detect(small, prior_tensor(clip, 0))[1]
    network = drifted(40.0)
    assert network.detect(small, prior_tensor(clip, 0))[1].abs().max() == 16
    level_jacobians(network, [clip])
    levelled = network.detect(small, prior_tensor(clip, 0))[1]
    ratio = (levelled / known)[:, : TINY_LIVE.background_keypoint]
    assert (ratio.flatten(2).amax(2) - ratio.flatten(2).amin(2)).abs().max() < 1e-2


def test_without_frames_nothing_changes() -> None:
    network, known = drifted(5.0), drifted(5.0).state_dict()
    level_jacobians(network, [])
    assert all(torch.equal(value, known[key]) for key, value in network.state_dict().items())
