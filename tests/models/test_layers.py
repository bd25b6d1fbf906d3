"""The shared blocks, against the plainest way to compute the same."""

import pytest
import torch

from models.config import HourglassConfig
from models.layers import (
    MIN_DETERMINANT,
    Hourglass,
    guard_jacobian,
    invert_2x2,
    pixel_grid,
    resize,
    warp,
)
from tests.models.tiny import keypoints, pictures


def test_the_grid_holds_pixel_centres_x_first() -> None:
    grid = pixel_grid(2, 4, torch.zeros(1))
    assert grid[0, :, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert grid[:, 0, 1].tolist() == [-0.5, 0.5]


def test_warping_by_the_grid_changes_nothing() -> None:
    picture = pictures(2, 32)
    grid = pixel_grid(32, 32, picture).expand(2, -1, -1, -1)
    torch.testing.assert_close(warp(picture, grid), picture, atol=1e-5, rtol=0)


def test_a_flow_that_points_a_pixel_right_moves_the_picture_left() -> None:
    picture = pictures(1, 16)
    flow = pixel_grid(16, 16, picture)[None] + torch.tensor([2 / 16, 0.0])
    moved = warp(picture, flow)
    torch.testing.assert_close(moved[..., :-1], picture[..., 1:], atol=1e-5, rtol=0)


def test_a_coarse_identity_flow_is_still_the_identity_away_from_the_border() -> None:
    picture = pictures(1, 64)
    moved = warp(picture, pixel_grid(16, 16, picture)[None])
    torch.testing.assert_close(moved[..., 4:-4, 4:-4], picture[..., 4:-4, 4:-4], atol=1e-5, rtol=0)


def test_the_closed_form_inverse_is_the_inverse() -> None:
    matrices = keypoints(3)[1]
    torch.testing.assert_close(invert_2x2(matrices), torch.linalg.inv(matrices), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("matrix", [[[0.0, 0.0], [0.0, 0.0]], [[0.5, 0.5], [0.5, 0.5]]])
def test_a_singular_jacobian_is_pushed_away(matrix: list[list[float]]) -> None:
    assert torch.linalg.det(guard_jacobian(torch.tensor(matrix))).abs() >= MIN_DETERMINANT


def test_a_regular_jacobian_is_left_alone() -> None:
    matrices = keypoints(1)[1]
    assert torch.equal(guard_jacobian(matrices), matrices)


def test_an_hourglass_keeps_the_size_and_hands_its_input_through() -> None:
    hourglass = Hourglass(5, HourglassConfig(width=4, levels=3, max_width=16, head_kernel=3)).eval()
    x = pictures(2, 32)[:, [0, 1, 2, 0, 1]]
    out = hourglass(x)
    assert out.shape == (2, hourglass.outputs, 32, 32)
    assert torch.equal(out[:, -5:], x)


def test_resize_averages_downwards() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert resize(x, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert resize(x, 4) is x
    assert resize(x, 8).shape[-1] == 8
