"""Free-form deformation: what the flow has beside the keypoints' motions, as the sender sees it.

Not in the paper. Sixty numbers cannot say how hair falls and a collar folds. What they leave is a smooth flow
more, given at the points of a coarse lattice and blended between them (Rueckert et al., IEEE TMI 1999, with
linear splines: as near as cubic ones, by smaller numbers). The sender finds it by least squares, in which a
miss weighs as far as it shows; training does the same.
"""

import torch
from torch import Tensor

from avcall.types import LATTICE_POINTS
from models.layers import at_places
from models.priors import PRIOR_SIZE_PX
from models.second_look import believed, miss_weights
from models.sight import Sight

PRIOR = 3e-4  # holds each point to 0; the places of the picture weigh 1 together, in either direction
ITERATIONS = 12  # of conjugate gradients: 0.01 dB from a direct solution
LEAST = 1e-12  # of a squared length that is divided by


def spread(lattice: Tensor) -> Tensor:
    """(N, points, points, 2) at the lattice's points -> (N, 64, 64, 2) at every place of the flow."""
    line = _line(lattice)
    return (line @ lattice.permute(0, 3, 1, 2) @ line.T).permute(0, 2, 3, 1)


def _line(like: Tensor) -> Tensor:
    """(64, points): how far each point of a line acts on each of the flow's places along it."""
    return _acts((torch.arange(PRIOR_SIZE_PX) + 0.5) * (2 / PRIOR_SIZE_PX) - 1).to(like)


def _acts(places: Tensor) -> Tensor:
    """(..., points): how far each point of a line from -1 to 1 acts on places of it; they sum to 1."""
    at = ((places + 1) * (LATTICE_POINTS / 2) - 0.5).clamp(0, LATTICE_POINTS - 1)
    return (1 - (at[..., None] - torch.arange(LATTICE_POINTS).to(places)).abs()).clamp(min=0)


def fit_lattice(flow: Tensor, sight: Sight, texture: Tensor) -> Tensor:
    """(N, points, points, 2): the deformation that brings `flow` (N, 64, 64, 2) near what the sender sees.

    `sight` is of tensors, `texture` (N, 3, 64, 64) the driving frame's, of `texture_of`. Weights are those of
    the second look.
    """
    n, h, w, _ = flow.shape
    missing = sight.optical - flow
    sure = believed(sight.sure, missing)
    weights = miss_weights(sure.flatten(1), texture.flatten(2), sight)
    marked = weights[:, 0, h * w : h * w + sight.trust.shape[1]]
    xx, xy, yy = weights[..., : h * w].reshape(n, 3, h, w).unbind(1)
    line = _line(flow)
    places = sight.landmarks[:, 1]
    missed = sight.landmarks[:, 0] - at_places(flow, places)
    near = (_acts(places[..., 1])[..., :, None] * _acts(places[..., 0])[..., None, :]).flatten(2)
    faces = near.transpose(1, 2) @ (near * marked[..., None])
    both = [_gram(line, part) for part in (xx, xy, yy)]
    matrix = torch.cat(
        [torch.cat([both[0] + faces, both[1]], 2), torch.cat([both[1], both[2] + faces], 2)], 1
    )
    x, y = missing.unbind(3)
    pulled = torch.stack([xx * x + xy * y, xy * x + yy * y], 1)
    right = (line.T @ pulled @ line).flatten(2)
    right = right + (near.transpose(1, 2) @ (missed * marked[..., None])).transpose(1, 2)
    solved = _conjugate_gradients(matrix, right.flatten(1))
    return solved.view(n, 2, LATTICE_POINTS, LATTICE_POINTS).permute(0, 2, 3, 1)


def _gram(line: Tensor, weights: Tensor) -> Tensor:
    """(N, P, P): the products of all pairs of the lattice's P points, under `weights` (N, 64, 64).

    They are products of a pair of rows and a pair of columns.
    """
    points = line.shape[1]
    pairs = (line[:, :, None] * line[:, None]).flatten(1)  # (64, points * points)
    products = pairs.T @ weights @ pairs
    rows_first = products.view(-1, points, points, points, points).permute(0, 1, 3, 2, 4)
    return rows_first.reshape(-1, points * points, points * points)


def _conjugate_gradients(matrix: Tensor, right: Tensor) -> Tensor:
    """x of (matrix + `PRIOR`) @ x = right, nearly, for symmetric positive (N, M, M) and (N, M)."""
    # Written out: torch's diagonal exports to operators that OpenVINO stumbles over.
    diagonal = (matrix * torch.eye(matrix.shape[1]).to(matrix)).sum(2) + PRIOR

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(1, keepdim=True)

    rest = right
    found = torch.zeros_like(right)
    along = step = rest / diagonal
    length = dot(rest, step)
    for _ in range(ITERATIONS):
        led = (matrix @ along[..., None])[..., 0] + PRIOR * along
        share = length / dot(along, led).clamp(min=LEAST)
        found, rest = found + share * along, rest - share * led
        step = rest / diagonal
        now = dot(rest, step)
        along, length = step + now / length.clamp(min=LEAST) * along, now
    return found
