"""The dense motion, against FOMM's formulas written out as loops."""

import math

import pytest
import torch

from models.dense_motion import MAX_FLOW, DenseMotion
from models.layers import pixel_grid
from tests.models.tiny import TINY_LIVE, keypoints, pictures


def make_motion() -> DenseMotion:
    torch.manual_seed(0)
    return DenseMotion(TINY_LIVE).eval()


@torch.no_grad()
def test_sparse_motion_is_the_first_order_expansion_around_each_keypoint() -> None:
    source, driving = keypoints(1, 1), keypoints(1, 2)
    grid = pixel_grid(8, 8, source[0])
    motions = make_motion().sparse_motions(grid, source, driving)[0]
    assert torch.equal(motions[0], grid)  # the background stays
    for k in range(10):
        matrix = source[1][0, k] @ torch.linalg.inv(driving[1][0, k])
        for row in range(8):
            for column in range(8):
                z = grid[row, column]
                expected = (source[0][0, k] + matrix @ (z - driving[0][0, k])).clamp(-MAX_FLOW, MAX_FLOW)
                torch.testing.assert_close(motions[k + 1, row, column], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_heatmaps_are_gaussians_of_the_configured_variance() -> None:
    values, _ = keypoints(1, 1)
    grid = pixel_grid(8, 8, values)
    heat = make_motion()._heatmaps(grid, values)[0]
    for k in range(10):
        for row in range(8):
            for column in range(8):
                dx, dy = (grid[row, column] - values[0, k]).tolist()
                expected = math.exp(-(dx * dx + dy * dy) / (2 * 0.01))
                assert heat[k, row, column].item() == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_the_flow_is_the_motion_that_the_masks_choose() -> None:
    motion, picture = make_motion(), pictures(1, 64)
    source, driving = keypoints(1, 1), keypoints(1, 2)
    motions = motion.sparse_motions(pixel_grid(64, 64, picture), source, driving)[0]
    motion.masks.weight.zero_()
    for chosen in (0, 4):
        motion.masks.bias.fill_(-50)
        motion.masks.bias[chosen] = 50
        flow = motion(picture, source, driving).flow[0]
        torch.testing.assert_close(flow, motions[chosen], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_face_that_does_not_move_gives_the_identity_flow() -> None:
    picture, points = pictures(2, 64), keypoints(2)
    out = make_motion()(picture, points, points)
    grid = pixel_grid(64, 64, picture).expand_as(out.flow)
    torch.testing.assert_close(out.flow, grid, atol=1e-5, rtol=0)
    assert out.occlusion.shape == (2, 1, 64, 64)
    assert out.occlusion.min() >= 0 and out.occlusion.max() <= 1


@torch.no_grad()
def test_extreme_keypoints_leave_the_flow_bounded() -> None:
    source, (values, _) = keypoints(1, 1), keypoints(1, 2)
    nearly_flat = torch.eye(2).expand(1, 10, 2, 2) * 0.1
    flow = make_motion()(pictures(1, 64), source, (values, nearly_flat)).flow
    assert flow.isfinite().all()
    assert flow.abs().max() <= MAX_FLOW
