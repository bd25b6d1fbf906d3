"""The shared blocks, against the plainest way to compute the same."""

import dataclasses

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from models.config import HourglassConfig
from models.layers import (
    MAX_JACOBIAN,
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


HOSTILE = st.one_of(st.floats(-1e3, 1e3, width=32), st.sampled_from([0.0, 1.0, -1.0, 1e-6, 16.0, -16.0]))


@given(st.tuples(HOSTILE, HOSTILE, HOSTILE, HOSTILE))
@example((0.0, 0.0, 0.0, 0.0))
@example((1.0, 0.0, 0.0, -0.005))  # a reflection, nearly flat
@example((0.0, 0.1, 0.1, 0.0))  # a small reflection alone
@example((0.5, 0.5, 0.5, 0.5))  # rank 1
@example((16.0, 16.0, 16.0, 16.0))
@example((0.1, 0.0, 0.0, -0.1))  # the old remedy, 0.2 on the diagonal, made it no better
@example((-0.1, 0.0, 0.0, -0.05))  # and this one worse
def test_no_jacobian_stays_singular(entries: tuple[float, float, float, float]) -> None:
    matrix = torch.tensor(entries).view(2, 2)
    guarded = guard_jacobian(matrix)
    determinant = torch.linalg.det(guarded.double())
    cut = matrix.clamp(-MAX_JACOBIAN, MAX_JACOBIAN)
    assert determinant.abs() >= MIN_DETERMINANT * 0.95  # the guard judges in float32
    assert invert_2x2(guarded).isfinite().all()
    changed = not torch.equal(guarded, cut)
    assert changed == bool((cut[0, 0] * cut[1, 1] - cut[0, 1] * cut[1, 0]).abs() < MIN_DETERMINANT)
    assert not changed or determinant > 0


def test_the_guard_keeps_the_directions_of_what_it_changes() -> None:
    flat = torch.tensor([[0.8, -0.6], [0.6, 0.8]]) @ torch.diag(torch.tensor([1.2, 0.001]))
    guarded = guard_jacobian(flat)
    assert (guarded - flat).abs().max() < 0.02


def test_the_guard_lets_gradients_through() -> None:
    matrices = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, -1.0]], [[1.0, 1.0], [1.0, 1.0]]])
    matrices.requires_grad_()
    guard_jacobian(matrices).sum().backward()
    assert matrices.grad is not None
    assert matrices.grad.isfinite().all()


def test_a_regular_jacobian_is_left_alone() -> None:
    matrices = keypoints(1)[1]
    assert torch.equal(guard_jacobian(matrices), matrices)
    assert torch.equal(
        guard_jacobian(-matrices[..., [1, 0], :]), -matrices[..., [1, 0], :]
    )  # reflections too


def test_an_hourglass_keeps_the_size_and_hands_its_input_through() -> None:
    hourglass = Hourglass(5, HourglassConfig(width=4, levels=3, max_width=16, head_kernel=3)).eval()
    x = pictures(2, 32)[:, [0, 1, 2, 0, 1]]
    out = hourglass(x)
    assert out.shape == (2, hourglass.outputs, 32, 32)
    assert torch.equal(out[:, -5:], x)


def test_residual_blocks_change_nothing_before_they_have_learnt() -> None:
    plain = HourglassConfig(width=4, levels=3, max_width=16, head_kernel=3)
    torch.manual_seed(0)
    bare = Hourglass(5, plain).eval()
    grown = Hourglass(5, dataclasses.replace(plain, blocks=2, block_width=6)).eval()
    missing, unexpected = grown.load_state_dict(bare.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("blocks.") for name in missing)
    x = pictures(2, 32)[:, [0, 1, 2, 0, 1]]
    assert torch.equal(grown(x), bare(x))
    torch.nn.init.ones_(grown.blocks[1].conv2.bias)
    torch.testing.assert_close(grown(x), bare(x) + 1)


def test_resize_averages_downwards() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert resize(x, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert resize(x, 4) is x
    assert resize(x, 8).shape[-1] == 8
