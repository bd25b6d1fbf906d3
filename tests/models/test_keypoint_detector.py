"""Keypoints as the expectation over a heatmap, against loops."""

import dataclasses

import torch

from models.keypoint_detector import KeypointDetector
from models.layers import guard_jacobian
from tests.models.tiny import TINY_LIVE, pictures


def make_input(count: int = 2) -> torch.Tensor:
    return torch.cat([pictures(count, 64), pictures(count, 64, seed=1)[:, :2]], 1)


def make_detector() -> KeypointDetector:
    torch.manual_seed(0)
    detector = KeypointDetector(TINY_LIVE).eval()
    with torch.no_grad():
        detector.jacobians.weight.normal_(0, 0.1)
    return detector


@torch.no_grad()
def test_values_and_jacobians_are_heatmap_expectations() -> None:
    detector, x = make_detector(), make_input(1)
    values, jacobians = detector(x)
    features = detector.hourglass(x)
    logits, maps = detector.heatmaps(features)[0], detector.jacobians(features)[0]
    for k in range(detector.num_keypoints - 1):  # the last one is the background's
        weights = torch.exp((logits[k] - logits[k].max()) / 0.1)
        weights /= weights.sum()
        value, jacobian = torch.zeros(2), torch.zeros(4)
        for row in range(64):
            y = (2 * row + 1) / 64 - 1
            for column in range(64):
                x_centre = (2 * column + 1) / 64 - 1
                value += weights[row, column] * torch.tensor([x_centre, y])
                jacobian += weights[row, column] * maps[4 * k : 4 * k + 4, row, column]
        torch.testing.assert_close(values[0, k], value, atol=1e-4, rtol=0)
        expected = guard_jacobian(jacobian.view(2, 2))
        torch.testing.assert_close(jacobians[0, k], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_backgrounds_keypoint_is_not_looked_for() -> None:
    values, jacobians = make_detector()(make_input())
    assert not values[:, 9].any() and values[:, :9].all()
    assert torch.equal(jacobians[:, 9], torch.eye(2).expand(2, 2, 2))
    free = KeypointDetector(dataclasses.replace(TINY_LIVE, background_keypoint=None)).eval()
    assert free(make_input())[0][:, 9].all()


@torch.no_grad()
def test_an_untrained_jacobian_is_the_identity() -> None:
    torch.manual_seed(0)
    _, jacobians = KeypointDetector(TINY_LIVE).eval()(make_input())
    torch.testing.assert_close(jacobians, torch.eye(2).expand_as(jacobians), atol=1e-5, rtol=0)


@torch.no_grad()
def test_values_stay_within_the_picture() -> None:
    values, _ = make_detector()(make_input() * 50)
    assert values.abs().max() < 1


@torch.no_grad()
def test_the_priors_count_unless_they_are_switched_off() -> None:
    x = make_input(1)
    other = torch.cat([x[:, :3], 1 - x[:, 3:]], 1)
    detector = make_detector()
    assert not torch.equal(detector(x)[0], detector(other)[0])
    torch.manual_seed(0)
    without = KeypointDetector(dataclasses.replace(TINY_LIVE, structural_prior=False)).eval()
    assert without.inputs == 3
    assert torch.equal(without(x)[0], without(other)[0])
