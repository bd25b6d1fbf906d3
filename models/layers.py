"""Building blocks that the parts of the network share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import HourglassConfig

MIN_DETERMINANT = 1e-2  # jacobians nearer to singular than this are pushed away before they are inverted
LIFT = 1.1  # of that, where they are pushed to: room for rounding
MAX_JACOBIAN = 16.0  # as on the wire; beyond it float32 could not tell such a determinant from 0
NO_ROTATION = 1e-8  # squared length below which a rotation has no direction


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Convolution that keeps the size (divided by `stride`)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), nn.ReLU())


class ResidualBlock(nn.Module):
    """Two convolutions beside the identity, which it is at first: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, inner)
        self.conv2 = conv(inner, channels)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


class Hourglass(nn.Module):
    """Encoder-decoder with skips (FOMM supplement A): (N, C, H, W) -> (N, width + C, H, W)."""

    def __init__(self, inputs: int, config: HourglassConfig) -> None:
        super().__init__()
        widths = [min(config.max_width, config.width * 2 ** (i + 1)) for i in range(config.levels)]
        self.down = nn.ModuleList(ConvBlock(a, b) for a, b in zip([inputs, *widths], widths, strict=False))
        outs = [config.width, *widths[:-1]]
        ups = []
        for i in reversed(range(config.levels)):
            below = widths[i] if i == config.levels - 1 else widths[i] * 2
            ups.append(ConvBlock(below, outs[i]))
        self.up = nn.ModuleList(ups)
        self.outputs = config.width + inputs
        self.blocks = nn.Sequential(
            *(ResidualBlock(self.outputs, config.block_width) for _ in range(config.blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        skips = [x]
        for block in self.down:
            skips.append(F.avg_pool2d(block(skips[-1]), 2))
        x = skips.pop()
        for block in self.up:
            x = block(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = torch.cat([x, skips.pop()], 1)
        return self.blocks(x)


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Coordinates of pixel centres, (height, width, 2), x then y, in [-1, 1] (align_corners=False)."""
    y = (torch.arange(height, device=like.device, dtype=like.dtype) * 2 + 1) / height - 1
    x = (torch.arange(width, device=like.device, dtype=like.dtype) * 2 + 1) / width - 1
    return torch.stack([x.view(1, -1).expand(height, width), y.view(-1, 1).expand(height, width)], -1)


def guard_jacobian(jacobian: Tensor) -> Tensor:
    """(..., 2, 2) with |det| of at least `MIN_DETERMINANT`; matrices that have it stay as they are.

    A matrix is a scaled rotation plus a scaled reflection, and its determinant is the difference of their
    squared lengths. Where that is too near 0, the rotation is lengthened until it is positive and large
    enough: the direction of both parts stays. Entries are cut at `MAX_JACOBIAN` first.
    """
    jacobian = jacobian.clamp(-MAX_JACOBIAN, MAX_JACOBIAN)
    a, b, c, d = jacobian[..., 0, 0], jacobian[..., 0, 1], jacobian[..., 1, 0], jacobian[..., 1, 1]
    cos, sin, u, v = (a + d) / 2, (c - b) / 2, (a - d) / 2, (b + c) / 2
    length2 = cos**2 + sin**2
    # A reflection alone has no rotation to lengthen: it gets one by 0 degrees.
    has_none = length2 < NO_ROTATION
    wanted = torch.sqrt(u**2 + v**2 + MIN_DETERMINANT * LIFT)
    stretch = wanted / torch.sqrt(length2.clamp(min=NO_ROTATION))
    cos, sin = torch.where(has_none, wanted, cos * stretch), torch.where(has_none, 0.0, sin * stretch)
    rows = [torch.stack([cos + u, v - sin], -1), torch.stack([sin + v, cos - u], -1)]
    singular = (a * d - b * c).abs() < MIN_DETERMINANT
    return torch.where(singular[..., None, None], torch.stack(rows, -2), jacobian)


def invert_2x2(matrix: Tensor) -> Tensor:
    """Closed-form inverse of (..., 2, 2): exports to plain arithmetic."""
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    det = a * d - b * c
    rows = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
    return rows / det[..., None, None]


def warp(features: Tensor, flow: Tensor, enlarged: int = 1) -> Tensor:
    """Sample (N, C, H, W) where the backward flow (N, h, w, 2) points, resized to H x W first.

    Features `enlarged` so many times give what those of the plain size would, (N, C, H / enlarged, ...).
    """
    height, width = (int(side) // enlarged for side in features.shape[2:])  # constants in an exported graph
    if flow.shape[1:3] != (height, width):
        flow = F.interpolate(flow.permute(0, 3, 1, 2), (height, width), mode="bilinear", align_corners=False)
        flow = flow.permute(0, 2, 3, 1)
    return F.grid_sample(features, flow, mode="bilinear", padding_mode="border", align_corners=False)


def resize(x: Tensor, size: int) -> Tensor:
    """Resize a square (N, C, S, S): area average downwards, bilinear upwards."""
    present, size = int(x.shape[-1]), int(size)  # constants in an exported graph
    if present == size:
        return x
    if present > size:
        return F.avg_pool2d(x, present // size)
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def at_places(flow: Tensor, places: Tensor) -> Tensor:
    """What a flow (N, h, w, 2) is at places (N, P, 2) in [-1, 1], beyond the edge as at it: (N, P, 2)."""
    planes = flow.permute(0, 3, 1, 2)
    sampled = F.grid_sample(planes, places[:, :, None], padding_mode="border", align_corners=False)
    return sampled[..., 0].transpose(1, 2)
