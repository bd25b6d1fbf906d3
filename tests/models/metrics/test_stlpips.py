"""ST-LPIPS against the value of the package that ships it."""

import sys

import numpy as np
import pytest
import torch

from models.metrics.stlpips import NOT_NEEDED, StLpips, Trunk, _stand_ins, trunk_weights


@pytest.mark.parametrize("trunk", ["vgg", "alex"])
def test_st_lpips_is_what_its_package_computes(trunk: Trunk) -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(2))
    distance = StLpips(trunk)
    features = distance.features(a)
    assert distance.distance(features, distance.features(a)) == 0
    with _stand_ins():
        from stlpips_pytorch.stlpips import LPIPS
    package = LPIPS(pretrained=False, net=trunk, variant="shift_tolerant", verbose=False)
    package.load_state_dict(trunk_weights(trunk), strict=False)
    x, y = (torch.from_numpy(p).permute(2, 0, 1)[None].float() / 127.5 - 1 for p in (a, b))
    with torch.no_grad():
        expected = float(package.eval()(x, y))
    assert distance.distance(features, distance.features(b)) == pytest.approx(expected, rel=1e-4)


def test_the_stand_ins_are_gone_afterwards() -> None:
    before = {name: sys.modules.get(name) for name in NOT_NEEDED}
    with _stand_ins():
        assert all(name in sys.modules for name in NOT_NEEDED)
    assert {name: sys.modules.get(name) for name in NOT_NEEDED} == before


def test_as_a_loss_it_is_the_same_distance_and_has_a_gradient() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(2))
    distance = StLpips("vgg")
    x, y = (torch.from_numpy(p).permute(2, 0, 1)[None].float() / 255 for p in (a, b))
    x.requires_grad_()
    loss = distance(x, y)
    assert loss.item() == pytest.approx(
        distance.distance(distance.features(a), distance.features(b)), rel=1e-4
    )
    loss.backward()
    assert x.grad is not None and x.grad.abs().max() > 0
