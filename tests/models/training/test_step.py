"""A whole training step: forward, backward, and every parameter moved."""

from pathlib import Path

import pytest
import torch

from models.config import ModelConfig
from models.generator import Picture
from models.network import Network
from models.training.data import DataConfig, PairSampler, load_clips
from models.training.losses import LossConfig
from models.training.step import TrainingStep, Whole
from tests.models.tiny import TINY_LIVE, TINY_PAPER, write_prepared


@pytest.mark.parametrize("config", [TINY_PAPER, TINY_LIVE], ids=["paper", "live"])
def test_a_step_reaches_every_parameter(config: ModelConfig, tmp_path: Path) -> None:
    write_prepared(tmp_path / "a.npz")
    everything = DataConfig(no_audio=0, no_mesh=0, no_mask=0)
    batch = PairSampler(load_clips(tmp_path), everything, 128, seed=0).batch(2).floats()
    torch.manual_seed(0)
    network = Network(config)
    module = TrainingStep(network, LossConfig(), seed=0).train()
    optimizer = torch.optim.Adam(network.parameters(), 5e-4, betas=(0.5, 0.999))
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for step in range(2):  # in the first, nothing reaches what is behind layers that are nothing yet
        total, parts, picture = module(Whole(batch), step)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert total.isfinite()
    assert all(part.isfinite() for part in parts.values())
    assert picture.image.shape == (2, 3, 128, 128)
    # A bias before a batch norm has no effect, and its gradient is rounding noise: weights are what counts.
    still = [n for n, p in network.named_parameters() if p.dim() > 1 and torch.equal(p, before[n])]
    assert not still


def test_free_keypoints_are_held_at_first_and_then_let_go(tmp_path: Path) -> None:
    write_prepared(tmp_path / "a.npz")
    batch = PairSampler(load_clips(tmp_path), DataConfig(), 64, seed=0).batch(2).floats()
    config = LossConfig(seeded_until=5)
    far = batch._replace(seeds=batch.seeds + 10)
    torch.manual_seed(0)
    network = Network(TINY_LIVE)
    held, free = (TrainingStep(network, config, seed=0)(Whole(far), step)[1]["anchor"] for step in (4, 5))
    assert held > 4
    assert free < 1


def test_a_hidden_mouth_changes_what_the_detector_sees_of_the_driving_frame(tmp_path: Path) -> None:
    module = TrainingStep(Network(TINY_LIVE), LossConfig(), seed=0)
    inputs, seen = torch.full((1, 2, 5, 64, 64), 0.5), torch.ones(1, 1, 64, 64)
    assert torch.equal(module._hide(inputs, seen), inputs)
    seen[..., 40:50, 20:40] = 0
    hidden = module._hide(inputs, seen)
    changed = (hidden != inputs).any(2)
    assert not changed[0, 0].any() and torch.equal(changed[0, 1], seen[0, 0] == 0)
    assert (hidden[0, 1, 3, 40:50, 20:40] == 0).all() and torch.equal(hidden[:, :, 4], inputs[:, :, 4])


def test_the_weighted_parts_add_up_to_the_total(tmp_path: Path) -> None:
    write_prepared(tmp_path / "a.npz")
    batch = PairSampler(load_clips(tmp_path), DataConfig(), 64, seed=0).batch(2).floats()
    torch.manual_seed(0)
    config = LossConfig()
    module = TrainingStep(Network(TINY_LIVE), config, seed=0)
    total, parts, _ = module(Whole(batch), 1)
    assert "perceptual" not in parts
    expected = sum(getattr(config, name) * part for name, part in parts.items())
    torch.testing.assert_close(total, expected)
    total, parts, _ = module(Whole(batch), 2)
    expected = sum(getattr(config, name) * part for name, part in parts.items())
    torch.testing.assert_close(total, expected + config.perceptual * parts["perceptual"])


def parts_that_move(
    config: LossConfig, folder: Path
) -> tuple[set[str], torch.Tensor, dict[str, torch.Tensor], Picture]:
    """The parts of a network that one step changes, and what the step returned."""
    write_prepared(folder / "a.npz")
    batch = PairSampler(load_clips(folder), DataConfig(), 64, seed=0).batch(2).floats()
    torch.manual_seed(0)
    network = Network(TINY_LIVE)
    module = TrainingStep(network, config, seed=0).train()
    optimizer = torch.optim.Adam(network.parameters(), 5e-4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    total, parts, picture = module(Whole(batch), 0)
    total.backward()
    optimizer.step()
    moved = {
        n.split(".")[0] for n, value in network.state_dict().items() if not torch.equal(value, before[n])
    }
    return moved, total, parts, picture


def test_motion_only_moves_detector_and_dense_motion_and_nothing_else(tmp_path: Path) -> None:
    moved, total, parts, picture = parts_that_move(LossConfig(motion_only=True), tmp_path)
    assert moved == {"detector", "dense_motion"}
    assert not {"generated", "mask", "perceptual"} & set(parts)
    assert torch.equal(picture.image, picture.warped)
    torch.testing.assert_close(total, sum(getattr(LossConfig(), n) * part for n, part in parts.items()))


def test_picture_only_moves_everything_but_detector_and_dense_motion(tmp_path: Path) -> None:
    config = LossConfig(picture_only=True, perceptual=0, st_lpips=3, ssim=2)
    moved, total, parts, _ = parts_that_move(config, tmp_path)
    assert moved == {"condition", "identity", "generator"}
    assert not {"flow", "equivariance_value", "anchor", "perceptual"} & set(parts)
    every = {"st_lpips": config.perceptual_every, "ssim": config.perceptual_every}
    expected = sum(getattr(config, n) * every.get(n, 1) * part for n, part in parts.items())
    torch.testing.assert_close(total, expected)


def test_most_pairs_are_deformed_as_a_sender_tells_it(tmp_path: Path) -> None:
    write_prepared(tmp_path / "a.npz")
    batch = PairSampler(load_clips(tmp_path), DataConfig(), 64, seed=0).batch(2).floats()
    module = TrainingStep(Network(TINY_LIVE), LossConfig(), seed=0)
    motion = module.network.dense_motion(
        batch.pictures[:, 0],
        *(module.network.detect(batch.pictures[:, i], batch.priors[:, i]) for i in (0, 1)),
    )
    sight, texture = module._sight(batch), torch.ones(2, 3, 64, 64)
    told = [
        (module._deformed(motion, sight, texture).flow - motion.flow).flatten(1).any(1) for _ in range(40)
    ]
    assert 0.6 < torch.stack(told).float().mean() < 0.9
