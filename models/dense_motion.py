"""From two sets of keypoints to a dense backward flow and an occlusion map (FOMM section 3.2)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from models.layers import Hourglass, conv, invert_2x2, pixel_grid

MAX_FLOW = 2.0  # a flow vector may leave the picture by half of it and no more


class Motion(NamedTuple):
    """`flow` (N, 64, 64, 2) sampling positions in [-1, 1]; `occlusion` (N, 1, 64, 64); `features` of both.

    `masks` (N, K + 1, 64, 64) blend the local motions, the background's first.
    """

    flow: Tensor
    occlusion: Tensor
    features: Tensor
    masks: Tensor


class DenseMotion(nn.Module):
    """K + 1 local affine motions, blended by predicted masks into one flow."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        k = config.num_keypoints
        self.variance = config.keypoint_variance
        self.hourglass = Hourglass((k + 1) * 4, config.dense_motion)
        self.outputs = self.hourglass.outputs
        self.masks = conv(self.outputs, k + 1, config.dense_motion.head_kernel)
        self.occlusion = conv(self.outputs, 1, config.dense_motion.head_kernel)

    def _heatmaps(self, grid: Tensor, values: Tensor) -> Tensor:
        distance = ((grid[None, None] - values[:, :, None, None]) ** 2).sum(-1)
        return torch.exp(-0.5 * distance / self.variance)

    def sparse_motions(
        self, grid: Tensor, source: tuple[Tensor, Tensor], driving: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Where each local motion takes every pixel: (N, K + 1, H, W, 2); the first is the background's."""
        n = source[0].shape[0]
        matrix = source[1] @ invert_2x2(driving[1])
        offset = grid[None, None] - driving[0][:, :, None, None]
        x, y = offset[..., 0], offset[..., 1]
        m = matrix[:, :, None, None]
        moved = torch.stack([m[..., 0, 0] * x + m[..., 0, 1] * y, m[..., 1, 0] * x + m[..., 1, 1] * y], -1)
        moved = moved + source[0][:, :, None, None]
        still = grid[None, None].expand(n, 1, *grid.shape)
        return torch.cat([still, moved], 1).clamp(-MAX_FLOW, MAX_FLOW)

    def forward(
        self, picture: Tensor, source: tuple[Tensor, Tensor], driving: tuple[Tensor, Tensor]
    ) -> Motion:
        """`picture` (N, 3, 64, 64) is the keyframe; `source` and `driving` are (values, jacobians)."""
        n, _, h, w = picture.shape
        grid = pixel_grid(h, w, picture)
        motions = self.sparse_motions(grid, source, driving)
        k1 = motions.shape[1]
        heat = self._heatmaps(grid, driving[0]) - self._heatmaps(grid, source[0])
        heat = torch.cat([torch.zeros_like(heat[:, :1]), heat], 1)
        stacked = picture[:, None].expand(n, k1, 3, h, w).reshape(n * k1, 3, h, w)
        deformed = F.grid_sample(
            stacked, motions.reshape(n * k1, h, w, 2), padding_mode="border", align_corners=False
        )
        inputs = torch.cat([heat[:, :, None], deformed.view(n, k1, 3, h, w)], 2).view(n, k1 * 4, h, w)
        features = self.hourglass(inputs)
        masks = F.softmax(self.masks(features), 1)
        flow = (masks[..., None] * motions).sum(1)
        return Motion(flow, torch.sigmoid(self.occlusion(features)), features, masks)
