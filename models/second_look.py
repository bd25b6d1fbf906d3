"""A second look at the driving keypoints: those whose dense motion fits what the sender sees.

Not in the paper. A detector that sees one frame places each keypoint to about a pixel of 64, and an error
there moves a whole region of the picture. But the sender has the keyframe, too: it can find where each place
of its picture lies in the keyframe (classical optical flow, and the landmarks of both), and it knows how the
receiver will blend the keypoints' motions (the masks of the dense motion). With these masks held, the flow is
linear in the motions' parameters, six for each keypoint: one least-squares problem gives them all. What is
sent, and the receiver, stay as they are.

A miss of the flow shows as far as the picture changes in its direction: along an edge not at all. So each
place weighs by its structure tensor, which makes the sum that of the picture's squared error (Lucas and
Kanade, IJCAI 1981).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.dense_motion import Motion
from models.layers import at_places, guard_jacobian, invert_2x2, pixel_grid, warp
from models.sight import PINNED_KEYPOINTS, Sight

# Of the sum of squares, in which all places of the picture weigh 1 together, in either direction.
LANDMARKS_WEIGHT = 1.0  # all landmarks; half of it: the picture +0.02 dB, the mouth -0.12 dB
MATRIX_PRIOR = 3e-3  # holds a motion's matrix to the first look's; 1e-2 and 1e-3 do as well
SHIFT_PRIOR = 1e-2  # and its shift
PIN_WEIGHT = 1.0  # of a landmark that one keypoint's motion is held to
FLAT = 0.03  # of the mean texture: what a place without any weighs
REACH = 0.1  # half widths: from the first look on, how far optical flow is believed
LANDMARKS_MISFIT = 4.0  # beside the picture's difference: a face that bends is worse than a background
LEAST_TEXTURE = 1e-5  # of squared differences, white being 1: far below any camera's noise
MAX_POSITION = 1.5  # half widths: a keypoint may be pushed out of the picture, and no further


class Look(NamedTuple):
    """Driving keypoints, the masks and bend of the dense motion to them, and how far that misses (N,).

    `lattice` (N, points, points, 2) deforms that motion, where the configuration has such.
    """

    values: Tensor
    jacobians: Tensor
    masks: Tensor
    bend: Tensor
    misfit: Tensor
    lattice: Tensor | None = None


def as_tensors(sight: Sight) -> Sight:
    """The same of tensors, for a sight of arrays."""
    return Sight(*map(torch.from_numpy, sight))


def texture_of(picture: Tensor) -> Tensor:
    """(N, 3, H, W): xx, xy, yy of a picture's structure tensor at each place, xx and yy being 1 on average.

    A picture of one colour has ones and no xy.
    """
    padded = F.pad(picture, (1, 1, 1, 1), mode="replicate")
    x = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    y = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    both = torch.stack([(x * x).sum(1), (x * y).sum(1), (y * y).sum(1)], 1)
    mean = (both[:, 0] + both[:, 2]).mean((1, 2))[:, None, None, None] / 2 + LEAST_TEXTURE
    isotropic = torch.tensor([1.0, 0.0, 1.0]).to(both)[:, None, None]
    return (both + LEAST_TEXTURE * isotropic) / mean


def second_look(
    held: tuple[Tensor, Tensor],
    source: tuple[Tensor, Tensor],
    driving: tuple[Tensor, Tensor],
    sight: Sight,
    texture: Tensor,
    *,
    share: Tensor | float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Better driving values and jacobians.

    `held` are the masks and the bend of the dense motion from `source` to `driving`, or to a pose near it;
    `sight` is of tensors; `texture` (N, 3, 64, 64) is the driving frame's, of `texture_of`. The flow is the
    bend and the sum of masks * (source + matrix @ (z - driving)); its matrices and shifts are fitted, and
    the driving keypoints that have them returned. Of what the fit changes, `share` is taken.
    """
    masks, bent = held
    n, k1, h, w = masks.shape
    grid = pixel_grid(h, w, masks).view(1, -1, 2).expand(n, -1, -1)
    planes = torch.cat([masks, bent.permute(0, 3, 1, 2)], 1)
    at = F.grid_sample(planes, sight.landmarks[:, 1, :, None], padding_mode="border", align_corners=False)
    planes = torch.cat([planes.flatten(2), at[..., 0]], 2)
    blend, bend = planes[:, :k1], planes[:, k1:].transpose(1, 2)  # (N, K + 1, P), (N, P, 2)
    places = torch.cat([grid, sight.landmarks[:, 1]], 1)  # (N, P, 2)
    wanted = torch.cat([sight.optical.reshape(n, -1, 2), sight.landmarks[:, 0]], 1)
    offset = places[:, None] - driving[0][:, :, None]  # (N, K, P, 2)
    moved = torch.cat([offset, torch.ones_like(offset[..., :1])], 3) * blend[:, 1:, :, None]
    design = moved.permute(0, 2, 1, 3).reshape(n, -1, (k1 - 1) * 3)  # (N, P, 3 K)
    matrix = source[1] @ invert_2x2(driving[1])
    first = torch.cat([matrix.transpose(2, 3), source[0][:, :, None]], 2).reshape(n, -1, 2)  # (N, 3 K, 2)
    missing = wanted - bend - blend[:, 0, :, None] * places - design @ first
    sure = believed(sight.sure.reshape(n, -1), missing[:, : h * w])
    pins, missing_pins = _pins(first, driving[0], sight)
    design, missing = torch.cat([design, pins], 1), torch.cat([missing, missing_pins], 1)
    change = _least_squares(design, missing, miss_weights(sure, texture.flatten(2), sight))
    fitted = (first + share * change).view(n, -1, 3, 2)
    inverse = invert_2x2(guard_jacobian(fitted[:, :, :2].transpose(2, 3)))
    shift = (inverse @ (fitted[:, :, 2] - source[0])[..., None])[..., 0]
    values = (driving[0] - shift).clamp(-MAX_POSITION, MAX_POSITION)
    return values, guard_jacobian(inverse @ source[1])


def believed(sure: Tensor, missing: Tensor) -> Tensor:
    """How far optical flow counts that is `sure` (N, ...) and misses another by `missing` (N, ..., 2).

    Where it and what was found before differ by far, it is the flow that errs.
    """
    return sure * torch.exp(-missing.detach().square().sum(-1) / REACH**2)


def misfit(motion: Motion, still: Tensor, camera: Tensor, sight: Sight) -> Tensor:
    """(N,) how far a motion of the keyframe `still` (N, 3, 64, 64) is from what the sender sees.

    The mean difference of the warped keyframe to the camera's picture, white being 1, and how far the flow
    misses the landmarks, in half widths, `LANDMARKS_MISFIT` times.
    """
    seen = (warp(still, motion.flow) - camera).abs().mean((1, 2, 3))
    led = at_places(motion.flow, sight.landmarks[:, 1])
    missed = (led - sight.landmarks[:, 0]).abs().mean(2) * _share(sight.trust)
    return seen + LANDMARKS_MISFIT * missed.sum(1)


def _pins(first: Tensor, driving: Tensor, sight: Sight) -> tuple[Tensor, Tensor]:
    """Rows (N, 4, 3 K): where each pinned keypoint's own motion leads its landmark; what is missing."""
    keypoints = list(PINNED_KEYPOINTS)
    offset = sight.pins[:, 1] - driving[:, keypoints]
    moved = torch.cat([offset, torch.ones_like(offset[..., :1])], 2)  # (N, 4, 3)
    place = torch.eye(driving.shape[1])[keypoints].to(driving)  # (4, K)
    rows = (place[None, :, :, None] * moved[:, :, None]).flatten(2)
    return rows, sight.pins[:, 0] - rows @ first


def miss_weights(sure: Tensor, texture: Tensor, sight: Sight) -> Tensor:
    """(N, 3, P): xx, xy and yy of what a miss weighs at the picture's places, the landmarks and the pins.

    `sure` (N, 4096), `texture` (N, 3, 4096).
    """
    isotropic = torch.tensor([1.0, 0.0, 1.0]).to(texture)[:, None]
    seen = (texture + FLAT * isotropic) * sure[:, None]
    seen = seen / ((seen[:, 0] + seen[:, 2]).sum(1) / 2).clamp(min=1)[:, None, None]
    marked = torch.cat([LANDMARKS_WEIGHT * _share(sight.trust), PIN_WEIGHT * sight.pinned], 1)
    return torch.cat([seen, marked[:, None] * isotropic], 2)


def _least_squares(design: Tensor, missing: Tensor, weights: Tensor) -> Tensor:
    """What brings `design` (N, P, 3 K) @ it near `missing` (N, P, 2), (N, 3 K, 2); it is held to 0."""
    n, _, unknowns = design.shape
    turned = design.transpose(1, 2)
    xx, xy, yy = (turned @ (design * weights[:, i, :, None]) for i in range(3))
    x, y = missing[..., 0], missing[..., 1]
    right = torch.stack([weights[:, 0] * x + weights[:, 1] * y, weights[:, 1] * x + weights[:, 2] * y], 2)
    prior = torch.tensor([MATRIX_PRIOR, MATRIX_PRIOR, SHIFT_PRIOR]).to(design).repeat(2 * unknowns // 3)
    normal = torch.cat([torch.cat([xx, xy], 2), torch.cat([xy, yy], 2)], 1)
    normal = normal + prior * torch.eye(2 * unknowns).to(design)
    solved = _solve(normal, (turned @ right).transpose(1, 2).reshape(n, 2 * unknowns, 1))
    return solved.view(n, 2, unknowns).transpose(1, 2)


def _share(weights: Tensor) -> Tensor:
    """(N, P) that sum to 1, or to less where there is nearly nothing."""
    return weights / weights.sum(1, keepdim=True).clamp(min=1)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """x of matrix @ x = right, for symmetric positive definite (N, M, M) and (N, M, R)."""
    if torch.onnx.is_in_onnx_export():
        return _gauss_jordan(matrix, right)
    # Unchecked: what is not finite stays so, and training tells which loss it reached.
    return torch.cholesky_solve(right, torch.linalg.cholesky_ex(matrix).L)


def _gauss_jordan(matrix: Tensor, right: Tensor) -> Tensor:
    """The same without pivots, which these matrices need not: it exports to plain arithmetic."""
    rows = torch.cat([matrix, right], 2)
    size = int(matrix.shape[1])
    for i in range(size):
        here = torch.tensor([float(k == i) for k in range(size)]).to(rows)[None, :, None]
        pivot = rows[:, i : i + 1]
        # Row i becomes the pivot's; of each other row, so much of it is taken that its column i is 0.
        rest = rows * (1 - here)
        rows = rest + (here - rest[:, :, i : i + 1]) * (pivot / pivot[:, :, i : i + 1])
    return rows[:, :, size:]
