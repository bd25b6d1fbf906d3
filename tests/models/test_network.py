"""The presets at full size (on the meta device: shapes without arithmetic), and the graph at small size."""

import dataclasses

import pytest
import torch
from torch import nn

from avcall.errors import ConfigError
from models.config import LIVE, PAPER, PRESETS, ModelConfig
from models.layers import warp
from models.network import EncodedKeyframe, Network
from models.priors import NUM_LANDMARKS
from models.second_look import misfit
from models.sight import Sight
from tests.models.tiny import TINY_LIVE, TINY_PAPER, keypoints, pictures, random_network


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_of_the_paper() -> None:
    # Published: 14.2 M for the detector, 37.7 M for the dense motion.
    with torch.device("meta"):
        network = Network(PAPER)
    assert count(network.detector) == 14_221_420
    assert count(network.dense_motion) == 37_730_268
    assert count(network) == 64_890_572


def test_parameter_counts_of_the_live_preset() -> None:
    with torch.device("meta"):
        network = Network(LIVE)
    assert count(network.detector) == 1_038_308
    assert count(network.dense_motion) == 1_541_336
    assert count(network) == 3_778_844


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_shapes_at_full_size(preset: ModelConfig) -> None:
    with torch.device("meta"):
        network = Network(preset).eval()
        picture = torch.zeros(1, 3, 256, 256)
        values, jacobians = network.detect(torch.zeros(1, 3, 64, 64), torch.zeros(1, 2, 64, 64))
        encoded = network.encode_keyframe(picture, (values, jacobians))
        motion = network.move(encoded, (values, jacobians), (values, jacobians))
        drawn = network.draw(encoded, motion, torch.zeros(1, 80, 16), torch.ones(1, 1))
    assert (values.shape, jacobians.shape) == ((1, 10, 2), (1, 10, 2, 2))
    assert encoded.small.shape == (1, 3, 64, 64)
    widths = preset.generator.identity_widths
    for scale, features in enumerate(encoded.identity):
        side = 256 >> scale
        assert features.shape == (1, widths[scale] or 3, side, side)
    assert motion.flow.shape == (1, 64, 64, 2)
    assert drawn.image.shape == drawn.warped.shape == drawn.generated.shape == (1, 3, 256, 256)
    assert drawn.mask.shape == (1, 1, 256, 256)


def synthesize(network: Network, encoded: EncodedKeyframe, seed: int) -> torch.Tensor:
    mel = torch.rand(1, 80, 16, generator=torch.Generator().manual_seed(seed))
    image: torch.Tensor = network(encoded, keypoints(1, 1), keypoints(1, seed), mel, torch.ones(1, 1)).image
    return image


@torch.no_grad()
@pytest.mark.parametrize("config", [TINY_PAPER, TINY_LIVE], ids=["paper", "live"])
def test_a_cached_keyframe_draws_what_an_uncached_one_does(config: ModelConfig) -> None:
    network, picture = random_network(config), pictures(1, 256)
    cached = network.encode_keyframe(picture, keypoints(1, 1))
    first = synthesize(network, cached, 2)
    assert torch.equal(synthesize(network, network.encode_keyframe(picture, keypoints(1, 1)), 2), first)
    other = synthesize(network, cached, 3)
    assert torch.equal(synthesize(network, network.encode_keyframe(picture, keypoints(1, 1)), 3), other)
    assert not torch.equal(first, other)
    assert torch.equal(synthesize(network, cached, 2), first)  # drawing leaves the cache as it was


@pytest.mark.parametrize("base", [TINY_PAPER, TINY_LIVE], ids=["paper", "live"])
@pytest.mark.parametrize("structural", [True, False])
@pytest.mark.parametrize("audio", [True, False])
@pytest.mark.parametrize("identity", [True, False])
def test_every_row_of_the_ablation_builds_and_runs(
    base: ModelConfig, *, structural: bool, audio: bool, identity: bool
) -> None:
    config = dataclasses.replace(
        base, structural_prior=structural, audio_prior=audio, identity_aware=identity
    )
    network, picture = random_network(config), pictures(1, 128)
    with torch.no_grad():
        small = pictures(1, 64)
        points = network.detect(small, torch.zeros(1, 2, 64, 64))
        drawn = network(
            network.encode_keyframe(picture, points), points, points, torch.rand(1, 80, 16), torch.ones(1, 1)
        )
    assert drawn.image.shape == picture.shape
    assert drawn.image.isfinite().all()
    assert (count(network) < count(random_network(base))) == (not (structural and audio and identity))


def test_a_configuration_survives_its_file() -> None:
    for preset in PRESETS.values():
        assert ModelConfig.from_dict(preset.to_dict()) == preset


def test_an_unknown_key_is_named_with_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match="unknown model key 'colour'; valid keys: audio, audio_prior"):
        ModelConfig.from_dict(LIVE.to_dict() | {"colour": 1})


@pytest.mark.parametrize("key", ["name", "detector"])
def test_a_missing_key_is_refused(key: str) -> None:
    values = LIVE.to_dict()
    del values[key]
    with pytest.raises(ConfigError, match="does not fit this version"):
        ModelConfig.from_dict(values)


@torch.no_grad()
def test_of_the_first_look_and_two_fits_the_best_is_taken() -> None:
    network = random_network(TINY_LIVE)
    still, source, driving = pictures(1, 64), keypoints(1, 1), keypoints(1, 2)
    wanted = network.dense_motion(still, source, keypoints(1, 3)).flow
    blind, unpinned = torch.zeros(1, 2, NUM_LANDMARKS, 2), torch.zeros(1, 4)
    sight = Sight(
        wanted, torch.ones(1, 64, 64), blind, torch.zeros(1, NUM_LANDMARKS), blind[:, :, :4], unpinned
    )
    camera = warp(still, wanted)
    once = network.refine(still, source, driving, sight, camera)
    looks = [driving, once, network.refine(still, source, once, sight, camera)]
    misses = [misfit(network.dense_motion(still, source, kp), still, camera, sight).item() for kp in looks]
    assert misses[0] > min(misses)
    best = looks[misses.index(min(misses))]
    for part, expected in zip(network.look_again(still, source, driving, sight, camera), best, strict=True):
        torch.testing.assert_close(part, expected)
    as_drawn = warp(still, network.dense_motion(still, source, driving).flow)
    for part, first in zip(network.look_again(still, source, driving, sight, as_drawn), driving, strict=True):
        assert torch.equal(part, first)
