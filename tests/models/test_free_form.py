"""The free-form deformation: a known one is found again, and it is the least-squares solution."""

import numpy as np
import pytest
import torch

from avcall.types import LATTICE_POINTS
from models import free_form
from models.free_form import fit_lattice, spread
from models.layers import pixel_grid
from models.second_look import REACH, miss_weights
from models.sight import Sight
from tests.models.tiny import sight_of

LANDMARKS = 478
EVEN = torch.tensor([1.0, 0.0, 1.0])[:, None, None].expand(
    1, 3, 64, 64
)  # texture that is the same everywhere


def lattice_of(seed: int = 0, size: float = 0.03) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(1, LATTICE_POINTS, LATTICE_POINTS, 2, generator=generator)


def random_sight(seed: int = 1) -> tuple[Sight, torch.Tensor, torch.Tensor]:
    """A sight with landmarks, the flow that it finds wanting, and a texture."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    flow = pixel_grid(64, 64, EVEN)[None]
    seen = flow + 0.04 * (uniform(1, 64, 64, 2) - 0.5)
    landmarks = uniform(1, 2, LANDMARKS, 2) * 1.2 - 0.6
    landmarks[:, 0] = landmarks[:, 1] + 0.04 * (uniform(1, LANDMARKS, 2) - 0.5)
    sight = sight_of(seen)._replace(sure=uniform(1, 64, 64), landmarks=landmarks, trust=uniform(1, LANDMARKS))
    texture = torch.stack([uniform(1, 64, 64) + 0.5, uniform(1, 64, 64) - 0.5, uniform(1, 64, 64) + 0.5], 1)
    return sight, flow, texture


def test_points_act_like_linear_interpolation() -> None:
    lattice = lattice_of()
    wanted = torch.nn.functional.interpolate(
        lattice.permute(0, 3, 1, 2), (64, 64), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(spread(lattice), wanted.permute(0, 2, 3, 1))


def test_a_known_deformation_is_found_again() -> None:
    lattice = lattice_of()
    flow = pixel_grid(64, 64, lattice)[None]
    found = fit_lattice(flow, sight_of(flow + spread(lattice)), EVEN)
    assert float((spread(found) - spread(lattice)).abs().max()) < 0.15 * float(lattice.abs().max())
    assert float((spread(found) - spread(lattice)).square().mean().sqrt()) < 0.002


def test_what_is_not_seen_is_not_deformed() -> None:
    flow = pixel_grid(64, 64, EVEN)[None]
    found = fit_lattice(flow, sight_of(flow + spread(lattice_of()), sure=0.0), EVEN)
    assert torch.equal(found, torch.zeros_like(found))


def test_it_is_the_least_squares_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    """The definition: every place and every landmark a row of one dense system."""
    monkeypatch.setattr(free_form, "ITERATIONS", 200)
    sight, flow, texture = random_sight()
    found = fit_lattice(flow, sight, texture)[0].double().numpy()

    count = LATTICE_POINTS**2
    places = torch.cat([pixel_grid(64, 64, flow).reshape(-1, 2), sight.landmarks[0, 1]])
    each = torch.eye(count).view(1, count, LATTICE_POINTS, LATTICE_POINTS)
    at = ((places + 1) * (LATTICE_POINTS / 2) - 0.5).clamp(0, LATTICE_POINTS - 1)  # beyond the edge: as at it
    normal = (at + 0.5) * (2 / LATTICE_POINTS) - 1
    acts = torch.nn.functional.grid_sample(each, normal[None, None], align_corners=False)[0, :, 0].T
    design = acts.double().numpy()

    missing = sight.optical - flow
    sure = sight.sure * torch.exp(-missing.square().sum(3) / REACH**2)
    weights = miss_weights(sure.flatten(1), texture.flatten(2), sight)[0, :, : len(places)].double().numpy()
    wanted = torch.cat([missing.view(-1, 2), sight.landmarks[0, 0] - sight.landmarks[0, 1]]).double().numpy()
    xx, xy, yy = ((design * w[:, None]).T @ design for w in weights)
    x, y = wanted.T
    right = np.concatenate(
        [design.T @ (weights[0] * x + weights[1] * y), design.T @ (weights[1] * x + weights[2] * y)]
    )
    matrix = np.block([[xx, xy], [xy, yy]]) + free_form.PRIOR * np.eye(2 * count)
    direct = np.linalg.solve(matrix, right).reshape(2, LATTICE_POINTS, LATTICE_POINTS).transpose(1, 2, 0)
    np.testing.assert_allclose(found, direct, atol=1e-4)


def test_a_few_iterations_are_near_the_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    few = fit_lattice(flow := random_sight()[1], *random_sight()[::2])
    monkeypatch.setattr(free_form, "ITERATIONS", 200)
    many = fit_lattice(flow, *random_sight()[::2])
    assert float((few - many).norm() / many.norm()) < 0.1
