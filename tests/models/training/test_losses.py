"""Losses on inputs whose value is known."""

import math

import pytest
import torch

from models.layers import pixel_grid
from models.second_look import FLAT
from models.training.data import ANCHORED_KEYPOINTS, PARTS
from models.training.losses import (
    CHOICE_LEAD,
    CHOICE_SHARPNESS,
    MOVED,
    UNMOVED,
    PerceptualLoss,
    discriminator_hinge,
    equivariance,
    feature_matching,
    generator_hinge,
    guided_flow,
    led_by_landmarks,
    mask_choice,
    misplaced,
    part_choice,
    random_affine,
    still_where_moved,
    taught_flow,
    tracked_keypoints,
    weighted_l1,
)
from tests.models.tiny import keypoints, pictures


def test_weighted_l1_averages_by_weight() -> None:
    target = torch.zeros(1, 3, 64, 64)
    output = target.clone()
    output[..., :32] = 0.5
    weights = torch.ones(1, 1, 64, 64)
    assert weighted_l1(output, target, weights).item() == pytest.approx(0.25)
    weights[..., :32] = 3
    assert weighted_l1(output, target, weights).item() == pytest.approx(3 * 0.5 / 4)


def known_flow(count: int, shift: tuple[float, float]) -> torch.Tensor:
    return (pixel_grid(64, 64, torch.zeros(1)) + torch.tensor(shift)).expand(count, -1, -1, -1)


def test_a_flow_that_leads_from_driving_to_source_costs_nothing() -> None:
    driving = keypoints(2)[0]
    landmarks = torch.stack([driving + torch.tensor([0.1, -0.05]), driving], 1)
    flow = known_flow(2, (0.1, -0.05))
    assert guided_flow(flow, landmarks, torch.ones(10), torch.ones(2)).item() < 1e-5


def test_a_flow_off_by_a_known_distance_costs_that_distance() -> None:
    driving = keypoints(2)[0]
    landmarks = torch.stack([driving, driving], 1)
    flow = known_flow(2, (0.2, 0.0))
    cost = guided_flow(flow, landmarks, torch.ones(10), torch.ones(2)).item()
    assert cost == pytest.approx(0.1, abs=1e-5)  # 0.2 across, 0 down


def test_emphasis_weighs_landmarks_and_pairs_without_a_face_are_left_out() -> None:
    driving = keypoints(2)[0]
    source = driving.clone()
    source[0, 0] += 0.4
    source[1] += 5.0
    landmarks = torch.stack([source, driving], 1)
    emphasis = torch.ones(10)
    emphasis[0] = 3
    flow = known_flow(2, (0.0, 0.0))
    cost = guided_flow(flow, landmarks, emphasis, torch.tensor([1.0, 0.0])).item()
    assert cost == pytest.approx(0.4 * 3 / 12, abs=1e-5)
    assert guided_flow(flow, landmarks, emphasis, torch.zeros(2)).item() == 0


def test_a_taught_flow_counts_where_its_teacher_is_sure() -> None:
    teacher, flow = known_flow(1, (0.0, 0.0)), known_flow(1, (0.2, 0.0)).clone()
    flow[:, :32] = teacher[:, :32]
    sure = torch.ones(1, 64, 64)
    texture = torch.tensor([1.0, 0.0, 1.0])[:, None, None].expand(1, -1, 64, 64)
    length = 0.2 * math.sqrt(1 + FLAT)
    assert taught_flow(flow, teacher, sure, texture).item() == pytest.approx(length / 2, abs=1e-3)
    edge = torch.tensor([0.0, 0.0, 2.0])[:, None, None].expand(1, -1, 64, 64)  # nothing changes along x
    assert taught_flow(flow, teacher, sure, edge).item() == pytest.approx(0.1 * math.sqrt(FLAT), abs=1e-3)
    sure[:, 32:] = 0
    assert taught_flow(flow, teacher, sure, texture).item() == pytest.approx(0, abs=1e-6)
    assert taught_flow(flow, teacher, torch.zeros(1, 64, 64), texture).item() == 0


def test_places_count_more_to_which_the_person_is_brought_wrongly() -> None:
    masks = torch.zeros(2, 2, 64, 64)
    masks[:, 0, :, :32], masks[:, 1, :, :40] = 1.0, 1.0
    masks[1, 1] = 0  # not seen
    wrong = misplaced(known_flow(2, (0.0, 0.0)), masks)
    assert (wrong[0, 0, :, 32:40] == 1).all() and wrong[0].sum() == 64 * 8 and not wrong[1].any()
    assert misplaced(known_flow(1, (-0.25, 0.0)), masks[:1]).max().item() == pytest.approx(0, abs=1e-5)


def test_a_background_that_should_have_moved_costs_its_share() -> None:
    grid, sure = pixel_grid(64, 64, torch.zeros(1)), torch.ones(1, 64, 64)
    optical = grid.expand(1, -1, -1, -1).clone()
    still = torch.full((1, 64, 64), 0.8)
    assert still_where_moved(still, optical, grid, sure).item() == 0
    optical[:, :, 32:, 0] += UNMOVED
    assert still_where_moved(still, optical, grid, sure).item() == pytest.approx(0, abs=1e-5)
    optical[:, :, 32:, 0] += 10 * MOVED
    assert still_where_moved(still, optical, grid, sure).item() == pytest.approx(0.4, abs=1e-5)
    sure[:, :, 32:] = 0
    assert still_where_moved(still, optical, grid, sure).item() == 0


def test_masks_are_chosen_by_part_and_freely_within_it() -> None:
    logits = torch.randn(1, 11, 64, 64, generator=torch.Generator().manual_seed(0))
    masks, parts = torch.softmax(logits, 1), torch.zeros(1, len(PARTS), 64, 64)
    assert part_choice(masks, parts).item() == 0  # nothing is sure
    parts[:, 2, 40:] = 1
    share = masks[:, list(PARTS["body"]), 40:].sum(1)
    assert part_choice(masks, parts).item() == pytest.approx(-share.log().mean().item(), abs=1e-5)
    swapped = masks.clone()
    first, second = PARTS["body"][:2]
    swapped[:, [first, second]] = masks[:, [second, first]]
    assert part_choice(swapped, parts).item() == pytest.approx(part_choice(masks, parts).item(), abs=1e-6)
    assert sorted(k for members in PARTS.values() for k in members) == list(range(11))


def test_a_keypoint_should_have_the_mask_at_its_landmark() -> None:
    anchors = torch.tensor([[-0.7, -0.35, 0.0, 0.35, 0.7]]).unsqueeze(-1).repeat(1, 1, 2).expand(2, -1, -1)
    masks = torch.full((2, 11, 64, 64), 0.05)
    assert led_by_landmarks(masks, anchors, torch.zeros(2)).item() == 0
    everywhere = led_by_landmarks(masks, anchors, torch.ones(2)).item()
    assert everywhere == pytest.approx(-math.log(0.05), abs=1e-5)
    for i, k in enumerate(ANCHORED_KEYPOINTS):
        column = int((anchors[0, i, 0].item() + 1) * 32)
        masks[0, k + 1, column - 3 : column + 3, column - 3 : column + 3] = 1.0
    assert led_by_landmarks(masks, anchors, torch.tensor([1.0, 0.0])).item() == pytest.approx(0, abs=1e-5)
    half = led_by_landmarks(masks, anchors, torch.ones(2)).item()
    assert half == pytest.approx(everywhere / 2, abs=1e-5)


def test_keypoints_that_move_with_the_picture_cost_nothing() -> None:
    flow, sure = known_flow(1, (0.1, -0.2)), torch.ones(1, 64, 64)
    driving = torch.tensor([[[0.3, 0.1], [-0.5, 0.4]]])
    there = driving + torch.tensor([0.1, -0.2])
    assert tracked_keypoints(there, driving, flow, sure).item() < 1e-5
    assert tracked_keypoints(driving, driving, flow, sure).item() == pytest.approx(0.15, abs=1e-5)
    sure[:, :, 32:] = 0  # the first of them lies where the flow is not sure
    there[0, 0] += 1
    assert tracked_keypoints(there, driving, flow, sure).item() < 1e-5


def test_keypoints_that_follow_a_known_transform_are_equivariant() -> None:
    matrix, shift = random_affine(2, torch.Generator().manual_seed(3))
    values, jacobians = keypoints(2)
    inverse = torch.linalg.inv(matrix)
    # A point x of the original appears at matrix^-1 (x - shift) in the transformed picture.
    moved = torch.einsum("nij,nkj->nki", inverse, values - shift[:, None])
    turned = inverse[:, None] @ jacobians
    value, jacobian = equivariance((values, jacobians), (moved, turned), matrix, shift)
    assert value.item() < 1e-5
    assert jacobian.item() < 1e-4
    value, jacobian = equivariance(
        (values, jacobians), (moved + 0.3, turned), torch.eye(2).expand(2, 2, 2), 0 * shift
    )
    assert value.item() > 0.05


def test_keypoints_that_ignore_the_transform_cost_its_size() -> None:
    points = keypoints(1)
    still = torch.eye(2)[None]
    value, jacobian = equivariance(points, points, 2 * still, torch.zeros(1, 2))
    assert value.item() == pytest.approx(points[0].abs().mean().item(), abs=1e-5)
    assert jacobian.item() == pytest.approx(0.5, abs=1e-4)  # 2 I - I: half of its entries are 1


def test_random_transforms_are_reproducible_and_invertible() -> None:
    a = random_affine(50, torch.Generator().manual_seed(1))
    b = random_affine(50, torch.Generator().manual_seed(1))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert torch.linalg.det(a[0]).min() > 0.5


def test_the_mask_is_drawn_to_the_nearer_picture() -> None:
    target = torch.full((1, 3, 4, 4), 0.5)

    def cost(mask: float, warped: float, generated: float) -> float:
        return mask_choice(torch.full((1, 1, 4, 4), mask), target + warped, target + generated, target).item()

    wanted = 1 / (1 + math.exp(0.01 * CHOICE_SHARPNESS))  # the generated one is nearer by more than the lead
    further = 0.1 + 0.01 + CHOICE_LEAD
    expected = -(wanted * math.log(0.7) + (1 - wanted) * math.log(0.3))
    assert cost(0.7, further, 0.1) == pytest.approx(expected, abs=1e-4)
    assert cost(wanted, further, 0.1) < min(cost(wanted + d, further, 0.1) for d in (-0.05, 0.05))
    assert cost(0.8, 0.1, 0.1) < cost(0.5, 0.1, 0.1)  # as near: the warped one
    assert math.isfinite(cost(0.0, 0.1, 0.3)) and math.isfinite(cost(1.0, 0.1, 0.3))


def test_a_mask_is_chosen_by_a_place_and_not_by_a_pixel() -> None:
    target = torch.zeros(1, 3, 32, 32)
    warped = target.clone()
    warped[..., 16, 16] = 1.0  # a single pixel off: not worth a change

    def cost(mask: torch.Tensor) -> float:
        return mask_choice(mask, warped, target, target).item()

    even, square = torch.full((1, 1, 32, 32), 0.8), torch.full((1, 1, 32, 32), 0.8)
    assert cost(even) < cost(torch.full((1, 1, 32, 32), 0.5))
    square[..., 8:24, 8:24] = 0.1
    assert cost(even) < cost(square)
    warped[..., 8:24, 8:24] = 0.2
    assert cost(square) < cost(even)


def test_the_mask_loss_moves_the_mask_and_not_the_pictures() -> None:
    warped = pictures(1, 8).requires_grad_()
    mask = torch.full((1, 1, 8, 8), 0.5, requires_grad=True)
    mask_choice(mask, warped, pictures(1, 8, 1), pictures(1, 8, 2)).backward()  # type: ignore[no-untyped-call]
    assert mask.grad is not None and mask.grad.any()
    assert warped.grad is None


def test_the_hinge_stops_at_the_margin() -> None:
    sure, unsure = torch.full((2, 1, 3, 3), 1.5), torch.full((2, 1, 3, 3), 0.25)
    assert discriminator_hinge(sure, -sure).item() == 0
    assert discriminator_hinge(unsure, unsure).item() == pytest.approx(0.75 + 1.25)
    assert generator_hinge(unsure).item() == pytest.approx(-0.25)


def test_feature_matching_averages_the_levels() -> None:
    real = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 2, 2)]
    generated = [real[0] + 1, real[1] + 3]
    assert feature_matching(real, generated).item() == pytest.approx(2)


def test_the_perceptual_loss_is_zero_for_the_same_picture_and_grows_with_blur() -> None:
    loss = PerceptualLoss()
    generator = torch.Generator().manual_seed(0)
    sharp = torch.rand(1, 3, 32, 32, generator=generator)
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
    more = torch.nn.functional.avg_pool2d(sharp, 7, 1, 3)
    costs = [loss(x, sharp).item() for x in (sharp, blurred, more)]
    assert costs[0] == 0
    assert 0 < costs[1] < costs[2]
    assert not any(p.requires_grad for p in loss.parameters())
