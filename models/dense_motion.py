"""From two sets of keypoints to a dense backward flow and an occlusion map (FOMM section 3.2)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import HourglassConfig, ModelConfig
from models.layers import Hourglass, conv, invert_2x2, pixel_grid

UNCOVERED = 3.0  # how much the background's logits shun a person's places; 0: heads leave ghosts
LEAST_SHARE = 1e-4
MAX_FLOW = 2.0  # a flow vector may leave the picture by half of it and no more
MAX_BEND = 0.25  # half widths: how far a place may be led from where the local motions lead it


class Motion(NamedTuple):
    """`flow` (N, 64, 64, 2) sampling positions in [-1, 1]; `occlusion` (N, 1, 64, 64); `features` of both.

    `masks` (N, K + 1, 64, 64) blend the local motions, the background's first; `bend` (N, 64, 64, 2) is what
    the flow has beside them.
    """

    flow: Tensor
    occlusion: Tensor
    features: Tensor
    masks: Tensor
    bend: Tensor


class PartMaps(nn.Module):
    """Which places of the keyframe go with which keypoint: logits (N, K + 1, 64, 64), the background's first.

    A place of the driving frame belongs to keypoint k if what k's motion brings there belongs to k in the
    keyframe. Not in the paper: there the masks are told from the moved pictures alone. Where the background's
    motions would bring a person's place, the head has uncovered something: they must not show it twice.
    """

    def __init__(self, num_keypoints: int, config: HourglassConfig, background_keypoint: int | None) -> None:
        super().__init__()
        self.background = [0] if background_keypoint is None else [0, background_keypoint + 1]
        self.hourglass = Hourglass(3 + num_keypoints, config)
        self.head = conv(self.hourglass.outputs, num_keypoints + 1, config.head_kernel)

    def forward(self, picture: Tensor, heatmaps: Tensor) -> Tensor:
        """`picture` (N, 3, 64, 64) is the keyframe, `heatmaps` (N, K, 64, 64) its keypoints."""
        logits: Tensor = self.head(self.hourglass(torch.cat([picture, heatmaps], 1)))
        share = F.softmax(logits, 1)[:, self.background].sum(1, keepdim=True)
        uncovered = UNCOVERED * share.clamp(min=LEAST_SHARE).log()
        background = torch.tensor([float(k in self.background) for k in range(logits.shape[1])]).to(logits)
        return logits + background[:, None, None] * uncovered


class DenseMotion(nn.Module):
    """K + 1 local affine motions, blended by predicted masks into one flow.

    Not in the paper: `bend`. A head that turns is no plane, and a shirt none either: what its pieces do
    beside each other hangs on the pose, which the keypoints tell, but it is no blend of affine motions. So
    the network may add a flow of its own. It is nothing at first.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        k = config.num_keypoints
        self.variance = config.keypoint_variance
        self.hourglass = Hourglass((k + 1) * 4, config.dense_motion)
        self.outputs = self.hourglass.outputs
        self.masks = conv(self.outputs, k + 1, config.dense_motion.head_kernel)
        self.occlusion = conv(self.outputs, 1, config.dense_motion.head_kernel)
        self.bend = conv(self.outputs, 2, config.dense_motion.head_kernel) if config.bends else None
        if self.bend is not None:
            nn.init.zeros_(self.bend.weight)
            nn.init.zeros_(self.bend.bias)
        self.part_maps = (
            None if config.part_maps is None else PartMaps(k, config.part_maps, config.background_keypoint)
        )

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

    def parts(self, picture: Tensor, source: tuple[Tensor, Tensor]) -> Tensor | None:
        """The keyframe's part maps, if the configuration has them: the same for every driving frame."""
        if self.part_maps is None:
            return None
        maps: Tensor = self.part_maps(
            picture, self._heatmaps(pixel_grid(picture.shape[2], picture.shape[3], picture), source[0])
        )
        return maps

    def forward(
        self,
        picture: Tensor,
        source: tuple[Tensor, Tensor],
        driving: tuple[Tensor, Tensor],
        parts: Tensor | None = None,
    ) -> Motion:
        """`picture` (N, 3, 64, 64) is the keyframe; `source` and `driving` are (values, jacobians).

        `parts` are what `parts` gives for that keyframe; they are computed if they are not at hand.
        """
        parts = self.parts(picture, source) if parts is None else parts
        n, _, h, w = picture.shape
        grid = pixel_grid(h, w, picture)
        motions = self.sparse_motions(grid, source, driving)
        k1 = motions.shape[1]
        heat = self._heatmaps(grid, driving[0]) - self._heatmaps(grid, source[0])
        heat = torch.cat([torch.zeros_like(heat[:, :1]), heat], 1)
        carried = [picture[:, None].expand(n, k1, 3, h, w)]
        if parts is not None:
            carried.append(parts[:, :, None])
        stacked = torch.cat(carried, 2).flatten(0, 1)
        moved = F.grid_sample(
            stacked, motions.reshape(n * k1, h, w, 2), padding_mode="border", align_corners=False
        ).view(n, k1, -1, h, w)
        inputs = torch.cat([heat[:, :, None], moved[:, :, :3]], 2).view(n, k1 * 4, h, w)
        features = self.hourglass(inputs)
        logits = self.masks(features)
        if parts is not None:
            logits = logits + moved[:, :, 3]
        masks = F.softmax(logits, 1)
        flow = (masks[..., None] * motions).sum(1)
        bend = torch.zeros_like(flow)
        if self.bend is not None:
            bend = MAX_BEND * torch.tanh(self.bend(features).permute(0, 2, 3, 1))
        return Motion(flow + bend, torch.sigmoid(self.occlusion(features)), features, masks, bend)
