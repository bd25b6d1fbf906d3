"""What a run is told: rates over time, and what an ablation leaves out."""

import dataclasses

import pytest

from avcall.errors import InputError
from models.config import LIVE
from models.training.data import DataConfig
from models.training.losses import LossConfig
from models.training.settings import (
    FINAL_SHARE,
    TrainConfig,
    ablate,
    data_config,
    decay_span,
    loss_config,
    weighted,
)


def test_learning_rates_fall_from_one_step_to_another() -> None:
    config = TrainConfig(learning_rate=1e-3, decay=(100, 300))
    rates = [config.learning_rate_at(step) for step in (0, 100, 200, 300, 999)]
    assert rates == pytest.approx(
        [1e-3, 1e-3, 1e-3 * (1 + FINAL_SHARE) / 2, 1e-3 * FINAL_SHARE, 1e-3 * FINAL_SHARE]
    )
    assert TrainConfig(learning_rate=1e-3).learning_rate_at(10**6) == 1e-3


def test_the_generator_comes_to_hear_the_discriminator_by_and_by() -> None:
    config = TrainConfig(adversarial_from=100, adversarial_ramp=50)
    assert [config.adversarial_share_at(step) for step in (0, 100, 125, 150, 999)] == [0, 0, 0.5, 1, 1]
    assert TrainConfig().adversarial_share_at(10**6) == 0


@pytest.mark.parametrize("span", [(5, None), (None, 5), (5, 5), (6, 5)])
def test_half_a_decay_is_refused(span: tuple[int | None, int | None]) -> None:
    with pytest.raises(InputError, match="--decay-from and --decay-to go together"):
        decay_span(*span)
    assert decay_span(None, None) is None
    assert decay_span(5, 6) == (5, 6)


def test_an_ablation_switches_off_what_it_names() -> None:
    assert ablate(LIVE, ()) == LIVE
    assert ablate(LIVE, ("audio", "mesh")) == dataclasses.replace(
        LIVE, audio_prior=False, structural_prior=False
    )
    assert ablate(LIVE, ("identity",)) == dataclasses.replace(LIVE, identity_aware=False)
    with pytest.raises(InputError, match=r"--without eyes is none; choose from audio,mesh,identity"):
        ablate(LIVE, ("audio", "eyes"))


def test_the_tricks_are_on_unless_they_are_switched_off() -> None:
    assert loss_config(guided_flow=True, optical_flow=True, regions=True) == LossConfig()
    assert data_config(regions=True, telling=True, dropout=True) == DataConfig()
    unguided = loss_config(guided_flow=False, optical_flow=True, regions=True)
    assert (unguided.flow, unguided.anchor, unguided.optical) == (0, 0, LossConfig().optical)
    assert (unguided.parts, unguided.led) == (0, 0)
    assert loss_config(guided_flow=True, optical_flow=False, regions=True).optical == 0
    untaught = loss_config(guided_flow=True, optical_flow=False, regions=True)
    assert (untaught.still, untaught.tracked) == (0, 0)
    assert loss_config(guided_flow=True, optical_flow=True, regions=False).lips_and_eyes == 1
    plain = data_config(regions=False, telling=False, dropout=False)
    assert (plain.regions, plain.telling) == (False, 0)
    assert (plain.no_audio, plain.no_mesh, plain.no_mask, plain.hidden_mouth) == (0, 0, 0, 0)


def test_losses_get_other_weights_by_name() -> None:
    losses = weighted(LossConfig(), ["l1=6", "st_lpips=8"])
    assert losses == dataclasses.replace(LossConfig(), l1=6.0, st_lpips=8.0)
    assert weighted(LossConfig(), ()) == LossConfig()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("l1", "--loss l1 is no NAME=WEIGHT"),
        ("l1=much", "--loss l1=much is no NAME=WEIGHT"),
        ("perceptual_every=3", "no such loss; choose from l1, warped"),
        ("misplaced=3", "no such loss"),
        ("l1=-1", "a finite number from 0 up"),
        ("l1=nan", "a finite number from 0 up"),
    ],
)
def test_a_weight_that_is_none_is_one_line(said: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        weighted(LossConfig(), [said])
    assert "\n" not in str(error.value)


def test_something_has_to_learn() -> None:
    with pytest.raises(InputError, match="choose one"):
        LossConfig(motion_only=True, picture_only=True)
