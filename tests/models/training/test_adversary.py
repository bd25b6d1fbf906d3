"""The adversarial stage: who learns from what."""

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from models.discriminator import DiscriminatorConfig
from models.training.adversary import Adversary
from models.training.losses import LossConfig
from tests.models.tiny import pictures

LOSSES = LossConfig()


@pytest.fixture
def adversary() -> Adversary:
    torch.manual_seed(0)
    config = DiscriminatorConfig(width=8, levels=3, max_width=16)
    return Adversary(config, 2e-3, Fabric(accelerator="cpu", devices=1))


def state(adversary: Adversary) -> list[Tensor]:
    return [value.clone() for value in adversary.discriminator.state_dict().values()]


def test_judging_teaches_the_generator_and_leaves_the_discriminator_as_it_is(adversary: Adversary) -> None:
    generated = pictures(2, 64, 1).requires_grad_()
    before = state(adversary)
    loss, parts = adversary.judge(generated, pictures(2, 64, 2), LOSSES)
    loss.backward()  # type: ignore[no-untyped-call]
    assert generated.grad is not None and generated.grad.abs().sum() > 0
    assert all(torch.equal(a, b) for a, b in zip(state(adversary), before, strict=True))
    assert all(value.grad is None for value in adversary.discriminator.parameters())
    expected = LOSSES.adversarial * parts["adversarial"] + LOSSES.feature_matching * parts["feature_matching"]
    torch.testing.assert_close(loss, expected)


def test_a_picture_matches_its_own_features(adversary: Adversary) -> None:
    real = pictures(2, 64, 2)
    assert adversary.judge(real.clone(), real, LOSSES)[1]["feature_matching"] == 0


def test_it_learns_to_tell_pictures_apart(adversary: Adversary) -> None:
    real, generated = pictures(4, 64, 1), pictures(4, 64, 2) * 0.5
    losses = [float(adversary.learn(generated, real, 2e-3)) for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]
    assert (
        adversary.judge(real, real, LOSSES)[1]["adversarial"]
        < adversary.judge(generated, real, LOSSES)[1]["adversarial"]
    )


def test_at_a_rate_of_nothing_it_learns_nothing(adversary: Adversary) -> None:
    weights = [value.detach().clone() for value in adversary.discriminator.parameters()]
    adversary.learn(pictures(2, 64, 1), pictures(2, 64, 2), 0.0)
    assert all(torch.equal(a, b) for a, b in zip(adversary.discriminator.parameters(), weights, strict=True))
