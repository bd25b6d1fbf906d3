"""The dense motion, against FOMM's formulas written out as loops."""

import math

import pytest
import torch

from models.dense_motion import MAX_BEND, MAX_FLOW, UNCOVERED, DenseMotion
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
    nothing = torch.zeros(1, 11, 64, 64)
    for chosen in (0, 4):
        motion.masks.bias.fill_(-50)
        motion.masks.bias[chosen] = 50
        flow = motion(picture, source, driving, nothing).flow[0]
        torch.testing.assert_close(flow, motions[chosen], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_bend_is_nothing_at_first_and_bounded() -> None:
    motion, picture = make_motion(), pictures(1, 64)
    source, driving = keypoints(1, 1), keypoints(1, 2)
    straight = motion(picture, source, driving)
    assert motion.bend is not None and not straight.bend.any()
    motion.bend.bias.copy_(torch.tensor([50.0, -50.0]))
    bent = motion(picture, source, driving)
    torch.testing.assert_close(bent.flow - straight.flow, bent.bend)
    assert (bent.bend[..., 0] == MAX_BEND).all() and (bent.bend[..., 1] == -MAX_BEND).all()


@torch.no_grad()
def test_a_place_goes_to_the_keypoint_that_brings_its_own_part() -> None:
    motion, picture = make_motion(), pictures(1, 64)
    source = keypoints(1, 1)
    driving = (source[0] + torch.tensor([0.25, 0.0]), source[1])  # all moves right by 8 of 64 pixels
    motion.masks.weight.zero_()
    motion.masks.bias.zero_()
    parts = torch.zeros(1, 11, 64, 64)
    parts[:, 3, :, :32] = 50  # the keyframe's left half belongs to keypoint 2
    masks = motion(picture, source, driving, parts).masks
    assert (masks[:, 3, :, :39] > 0.99).all() and (masks[:, 3, :, 41:] < 0.2).all()
    drawn, known = motion(picture, source, driving), motion.parts(picture, source)
    assert torch.equal(drawn.flow, motion(picture, source, driving, known).flow)
    assert not torch.equal(drawn.flow, motion(picture, source, driving, parts).flow)


@torch.no_grad()
def test_the_background_shuns_what_a_person_hides() -> None:
    maps, picture = make_motion().part_maps, pictures(1, 64)
    assert maps is not None and maps.background == [0, 10]
    heat = torch.zeros(1, 10, 64, 64)
    plain = maps.head(maps.hourglass(torch.cat([picture, heat], 1)))
    share = torch.softmax(plain, 1)[:, [0, 10]].sum(1)
    found = maps(picture, heat)
    assert torch.equal(found[:, 1:10], plain[:, 1:10])
    for k in (0, 10):
        torch.testing.assert_close(found[:, k], plain[:, k] + UNCOVERED * share.log())


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
