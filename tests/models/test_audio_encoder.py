"""Enc_aud, the query and eq. 2."""

import math

import pytest
import torch
from torch import Tensor

from models.audio_encoder import AudioVisualCondition
from models.config import AudioConfig

CHANNELS = 4


def make_condition(*, use_audio: bool = True) -> AudioVisualCondition:
    torch.manual_seed(0)
    return AudioVisualCondition(6, AudioConfig(width=2, channels=CHANNELS), 5, use_audio=use_audio).eval()


def stacked(condition: AudioVisualCondition, features: Tensor, mel: Tensor, gate: Tensor) -> Tensor:
    """What the projection is given: Enc_motion, Enc_aud and Enc_attn."""
    seen: list[Tensor] = []
    hook = condition.project.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    condition(features, mel, gate)
    hook.remove()
    return seen[0]


def make_inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 6, 64, 64, generator=generator), torch.rand(2, 80, 16, generator=generator)


@torch.no_grad()
def test_the_attention_map_is_equation_2() -> None:
    condition, (features, mel) = make_condition(), make_inputs()
    gate = torch.ones(2, 1)
    parts = stacked(condition, features, mel, gate)
    assert parts.shape == (2, 2 * CHANNELS + 1, 64, 64)
    assert condition.audio is not None
    enc_aud, query = condition.audio(mel, gate)
    assert torch.equal(parts[:, CHANNELS:-1], enc_aud)
    for row, column in ((0, 0), (17, 40), (63, 5)):
        enc_motion = parts[1, :CHANNELS, row, column].tolist()
        dot = sum(a * b for a, b in zip(enc_motion, query[1].tolist(), strict=True))
        assert parts[1, -1, row, column].item() == pytest.approx(1 / (1 + math.exp(-dot)), abs=1e-5)


@torch.no_grad()
def test_without_speech_the_window_does_not_matter() -> None:
    condition, (features, mel) = make_condition(), make_inputs()
    shut = torch.zeros(2, 1)
    parts = stacked(condition, features, mel, shut)
    assert not parts[:, CHANNELS:-1].any()
    assert (parts[:, -1] == 0.5).all()
    assert torch.equal(condition(features, mel, shut), condition(features, 1 - mel, shut))


@torch.no_grad()
def test_speech_changes_the_condition_unless_it_is_switched_off() -> None:
    features, mel = make_inputs()
    gate = torch.ones(2, 1)
    condition = make_condition()
    assert not torch.equal(condition(features, mel, gate), condition(features, 1 - mel, gate))
    without = make_condition(use_audio=False)
    assert without.audio is None
    assert torch.equal(without(features, mel, gate), without(features, 1 - mel, gate))
