"""The second look: a known motion is found again, exactly, and what cannot be known stays as it was."""

import pytest
import torch

from models.dense_motion import Motion
from models.layers import pixel_grid
from models.second_look import LANDMARKS_MISFIT, _solve, misfit, second_look, texture_of
from models.sight import PINNED_KEYPOINTS, Sight
from tests.models.tiny import keypoints, sight_of

K = 10
LANDMARKS = 478


def smooth_masks(count: int = 1) -> torch.Tensor:
    """(count, K + 1, 64, 64): soft regions that differ, as those of a trained network."""
    coarse = torch.rand(count, K + 1, 6, 6, generator=torch.Generator().manual_seed(4)) * 8
    fine = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear", align_corners=False)
    return torch.softmax(fine, 1)


def flow_of(
    masks: torch.Tensor, source: tuple[torch.Tensor, torch.Tensor], driving: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """The definition, keypoint by keypoint, without the bound on how far a flow may lead."""
    grid = pixel_grid(64, 64, masks)
    flow = masks[:, 0, ..., None] * grid
    for k in range(K):
        matrix = source[1][:, k] @ torch.linalg.inv(driving[1][:, k])
        offset = grid - driving[0][:, k, None, None]
        flow = flow + masks[:, k + 1, ..., None] * (
            source[0][:, k, None, None] + torch.einsum("nij,nhwj->nhwi", matrix, offset)
        )
    return flow


def look(
    masks: torch.Tensor,
    source: tuple[torch.Tensor, torch.Tensor],
    driving: tuple[torch.Tensor, torch.Tensor],
    sight: Sight,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The second look at a frame whose texture is the same everywhere."""
    texture = torch.tensor([1.0, 0.0, 1.0])[:, None, None].expand(len(masks), -1, 64, 64)
    return second_look((masks, unbent(masks)), source, driving, sight, texture)


def unbent(masks: torch.Tensor) -> torch.Tensor:
    """The bend of a dense motion that has none."""
    return torch.zeros(len(masks), 64, 64, 2)


def test_keypoints_that_draw_what_is_seen_stay() -> None:
    masks, source, driving = smooth_masks(), keypoints(1, 1), keypoints(1, 2)
    values, jacobians = look(masks, source, driving, sight_of(flow_of(masks, source, driving)))
    torch.testing.assert_close(values, driving[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(jacobians, driving[1], atol=1e-3, rtol=0)


def test_what_the_bend_does_is_not_asked_of_the_keypoints() -> None:
    masks, source, driving = smooth_masks(), keypoints(1, 1), keypoints(1, 2)
    bend = 0.1 * torch.rand(1, 64, 64, 2, generator=torch.Generator().manual_seed(3))
    texture = torch.tensor([1.0, 0.0, 1.0])[:, None, None].expand(1, -1, 64, 64)
    sight = sight_of(flow_of(masks, source, driving) + bend)
    values, jacobians = second_look((masks, bend), source, driving, sight, texture)
    torch.testing.assert_close(values, driving[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(jacobians, driving[1], atol=1e-3, rtol=0)
    far = sight_of(pixel_grid(64, 64, masks)[None] + 0.05)
    still = second_look((masks, bend), source, driving, far, texture, share=0.0)
    moved = second_look((masks, bend), source, driving, far, texture)
    for part, first, fitted in zip(still, driving, moved, strict=True):
        torch.testing.assert_close(part, first)
        assert not torch.allclose(fitted, first, atol=1e-2)


def test_a_shift_of_everything_moves_every_keypoint_by_it() -> None:
    masks, source = smooth_masks(), keypoints(1, 1)
    shift = torch.tensor([0.1, -0.05])
    moved = pixel_grid(64, 64, masks)[None] + shift  # the driving frame shows at z what was at z + shift
    values, _ = look(masks, source, source, sight_of(moved))
    wrong = (flow_of(masks, source, source) - moved).abs().mean()
    left = (flow_of(masks, source, (values, source[1])) - moved).abs().mean()
    assert left < 0.4 * wrong
    assert ((source[0] - values)[..., 0] > 0).all() and ((source[0] - values)[..., 1] < 0).all()


def test_a_flow_of_other_keypoints_is_fitted_closely() -> None:
    masks, source, first, true = smooth_masks(2), keypoints(2, 1), keypoints(2, 2), keypoints(2, 2)
    true = (true[0] + 0.03, true[1] * 1.04)
    seen = flow_of(masks, source, true)
    found = look(masks, source, first, sight_of(seen))
    before = (flow_of(masks, source, first) - seen).abs().mean()
    # Not exactly: the prior holds the fit to the first look a little.
    assert (flow_of(masks, source, found) - seen).abs().mean() < 0.15 * before


def ramp(x: float, y: float) -> torch.Tensor:
    """(1, 3, 64, 64), brighter by x and y from place to place."""
    across = torch.arange(64.0)
    return (x * across + y * across[:, None]).expand(1, 3, 64, 64) / 64


@pytest.mark.parametrize(("x", "y", "wanted"), [(1, 0, (2, 0, 0)), (0, 1, (0, 0, 2)), (1, 1, (1, 1, 1))])
def test_texture_is_the_mean_product_of_the_gradients(
    x: float, y: float, wanted: tuple[int, int, int]
) -> None:
    found = texture_of(ramp(x, y))[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(
        found, torch.tensor(wanted).float()[:, None, None].expand(found.shape), atol=0.1, rtol=0
    )


def test_a_picture_of_one_colour_weighs_the_same_everywhere() -> None:
    found = texture_of(torch.full((1, 3, 64, 64), 0.5))
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([1.0, 0.0, 1.0]))
    assert found.std((2, 3)).max() == 0


def test_along_an_edge_the_flow_is_not_believed() -> None:
    masks, source = smooth_masks(), keypoints(1, 1)
    moved = pixel_grid(64, 64, masks)[None] + torch.tensor([0.04, 0.04])
    upright = texture_of(ramp(1, 0))  # its edges run from top to bottom: only x can be seen
    values, _ = second_look((masks, unbent(masks)), source, source, sight_of(moved), upright)
    shift = (source[0] - values)[0].mean(0)
    assert shift[0] > 3 * shift[1] > 0


def test_the_fit_minimises_the_weighted_squares() -> None:
    """No other keypoints near the fitted ones have a smaller sum, by the definition."""
    masks, source, true = smooth_masks(), keypoints(1, 1), keypoints(1, 2)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    texture, seen = texture_of(picture), flow_of(masks, source, (true[0] + 0.02, true[1]))
    values, jacobians = second_look((masks, unbent(masks)), source, true, sight_of(seen), texture)

    def squares(values: torch.Tensor) -> float:
        x, y = (flow_of(masks, source, (values, jacobians)) - seen).unbind(-1)
        xx, xy, yy = texture.unbind(1)
        return float((xx * x * x + 2 * xy * x * y + yy * y * y).mean())

    assert squares(values) < 0.3 * squares(true[0])
    for way in (-0.02, 0.02):
        assert squares(values) < squares(values + torch.tensor([way, 0.0]))
        assert squares(values) < squares(values + torch.tensor([0.0, way]))


def test_optical_flow_far_from_the_first_look_is_not_believed() -> None:
    masks, source = smooth_masks(), keypoints(1, 1)
    elsewhere = pixel_grid(64, 64, masks)[None] + 1.0
    values, jacobians = look(masks, source, source, sight_of(elsewhere))
    torch.testing.assert_close(values, source[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(jacobians, source[1], atol=1e-3, rtol=0)


def test_the_misfit_is_the_difference_of_the_pictures_and_how_far_landmarks_are_missed() -> None:
    grid = pixel_grid(64, 64, torch.zeros(1))[None]
    none = torch.zeros(1)
    at = torch.rand(1, LANDMARKS, 2, generator=torch.Generator().manual_seed(1)) - 0.5
    pair = torch.stack([at + 0.1, at], 1)
    sight = sight_of(grid)._replace(landmarks=pair, trust=torch.ones(1, LANDMARKS))
    picture = torch.full((1, 3, 64, 64), 0.5)
    unmoved = Motion(grid, none, none, none, none)
    assert misfit(unmoved, picture, picture + 0.2, sight).item() == pytest.approx(
        0.2 + LANDMARKS_MISFIT * 0.1, abs=1e-4
    )
    moved = Motion(grid + 0.1, none, none, none, none)
    assert misfit(moved, picture, picture, sight).item() == pytest.approx(0, abs=1e-4)


def test_landmarks_alone_pull_the_motion_where_they_are() -> None:
    masks, source = smooth_masks(), keypoints(1, 1)
    at = torch.rand(1, LANDMARKS, 2, generator=torch.Generator().manual_seed(1)) * 0.8 - 0.4
    pair = torch.stack([at + 0.1, at], 1)  # the keyframe's, then the frame's
    blind = sight_of(pixel_grid(64, 64, masks)[None], sure=0.0)._replace(landmarks=pair)
    found = look(masks, source, source, blind._replace(trust=torch.ones(1, LANDMARKS)))
    sampled = torch.nn.functional.grid_sample(
        flow_of(masks, source, found).permute(0, 3, 1, 2), at[:, :, None], align_corners=False
    )[..., 0].transpose(1, 2)
    assert (sampled - pair[:, 0]).abs().mean() < 0.02
    untouched = look(masks, source, source, blind)
    torch.testing.assert_close(untouched[0], source[0], atol=1e-5, rtol=0)


def test_a_pinned_keypoint_follows_its_landmark_and_not_its_region() -> None:
    masks, source = smooth_masks(), keypoints(1, 1)
    still = sight_of(pixel_grid(64, 64, masks)[None])  # nothing moves but the eyelids
    at = source[0][:, list(PINNED_KEYPOINTS)]
    down = torch.tensor([0.0, 0.06])
    pinned = still._replace(pins=torch.stack([at, at + down], 1), pinned=torch.ones(1, 4))
    values, _ = look(masks, source, source, pinned)
    moved = (values - source[0])[0]
    torch.testing.assert_close(moved[list(PINNED_KEYPOINTS)], down.expand(4, 2), atol=0.01, rtol=0)


def test_nonsense_gives_keypoints_that_are_finite_and_near_the_picture() -> None:
    masks = smooth_masks()
    wild = torch.rand(1, 64, 64, 2, generator=torch.Generator().manual_seed(2)) * 1e4
    values, jacobians = look(masks, keypoints(1, 1), keypoints(1, 2), sight_of(wild))
    assert values.abs().max() <= 1.5 and jacobians.isfinite().all()
    assert torch.linalg.det(jacobians).abs().min() > 5e-3


@pytest.mark.parametrize("size", [1, 7, 60])
def test_the_elimination_solves_as_lapack_does(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    root = torch.rand(3, size, size, generator=generator)
    matrix = root @ root.transpose(1, 2) + 0.1 * torch.eye(size)
    right = torch.rand(3, size, 2, generator=generator)
    torch.testing.assert_close(_solve(matrix, right), torch.linalg.solve(matrix, right), atol=1e-3, rtol=1e-3)


def test_masks_learn_to_be_fitted_with() -> None:
    """Descent on the masks alone, through the fit, makes a motion drawable that they could not hold."""
    source, wanted = keypoints(1, 1), keypoints(1, 2)
    flow = flow_of(smooth_masks(), source, wanted)
    logits = torch.zeros(1, K + 1, 64, 64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.1)
    errors = []
    for _ in range(20):
        masks = torch.softmax(logits, 1)
        fitted = look(masks, source, source, sight_of(flow))
        error = (flow_of(masks, source, fitted) - flow).abs().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.7 * errors[0]
