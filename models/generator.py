"""Identity-aware U-Net generator with SPADE-inspired residual blocks (AVFR section 3.3)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import GeneratorConfig, ModelConfig
from models.dense_motion import Motion
from models.layers import ConvBlock, conv, resize, warp

ENLARGED = 2  # times, where the keyframe is enlarged before it is warped


class Picture(NamedTuple):
    """`image` (N, 3, H, W) in [0, 1] is mask * warped + (1 - mask) * generated; `mask` (N, 1, H, W)."""

    image: Tensor
    warped: Tensor
    generated: Tensor
    mask: Tensor


class ModulatedNorm(nn.Module):
    """Batch norm whose scale and shift come from the condition at every location."""

    def __init__(self, channels: int, condition_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale_shift = conv(condition_channels, channels * 2, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.scale_shift(resize(condition, x.shape[-1])).chunk(2, 1)
        return self.norm(x) * (1 + scale) + shift


class ModulatedBlock(nn.Module):
    """Residual block, SPADE-inspired: norms modulated by the projected audio-visual condition."""

    def __init__(self, inputs: int, outputs: int, condition_channels: int) -> None:
        super().__init__()
        self.norm1 = ModulatedNorm(inputs, condition_channels)
        self.conv1 = conv(inputs, outputs)
        self.norm2 = ModulatedNorm(outputs, condition_channels)
        self.conv2 = conv(outputs, outputs)
        self.shortcut = conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x, condition)))
        y = self.conv2(F.relu(self.norm2(y, condition)))
        return self.shortcut(x) + y


class PlainBlock(nn.Module):
    """Residual block without modulation, for the scales where it would cost too much."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvBlock(inputs, outputs)
        self.conv2 = conv(outputs, outputs)
        self.shortcut = conv(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.conv2(self.conv1(x)))


class Enlarger(nn.Module):
    """The keyframe at twice its size, (N, 3, H, W) -> (N, 3, 2 H, 2 W): bicubic, and what is learnt beside.

    Not in the paper. A warp samples between pixels, and bilinearly: that blurs the picture by up to half a
    pixel. Sampled from a larger one it hardly does, at the same cost; enlarging is done once a keyframe.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        last = conv(width, 3 * ENLARGED**2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.detail = nn.Sequential(conv(3, width), nn.ReLU(), conv(width, width), nn.ReLU(), last)
        self.register_buffer("bicubic", bicubic_kernels(), persistent=False)

    def forward(self, keyframe: Tensor) -> Tensor:
        # As convolutions: a bicubic resize of the same size takes OpenVINO three times as long.
        margin = self.bicubic.shape[-1] // 2
        plain = F.conv2d(F.pad(keyframe, (margin,) * 4, mode="replicate"), self.bicubic)
        return F.pixel_shuffle(plain + self.detail(keyframe), ENLARGED)


def bicubic_kernels() -> Tensor:
    """(12, 3, 5, 5): bicubic enlarging by 2 as a convolution before a pixel shuffle."""
    reach = 2  # pixels at either side
    points = torch.eye((2 * reach + 1) ** 2).view(-1, 1, 2 * reach + 1, 2 * reach + 1)
    padded = F.pad(points, (reach,) * 4)
    enlarged = F.interpolate(padded, scale_factor=ENLARGED, mode="bicubic", align_corners=False)
    middle = (
        2 * reach * ENLARGED
    )  # in the padded points: where the pixel in the middle begins in the enlarged picture
    phases = enlarged[:, 0, middle : middle + ENLARGED, middle : middle + ENLARGED].flatten(1).T
    kernels = phases.view(-1, 2 * reach + 1, 2 * reach + 1)
    return torch.einsum("cd,pyx->cpdyx", torch.eye(3), kernels).flatten(0, 1)  # each colour by itself


class IdentityEncoder(nn.Module):
    """Features of the keyframe at every scale; computed once a keyframe and cached."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        widths = config.identity_widths
        first = widths[0] or widths[1] // 2
        self.keep_first = widths[0] > 0
        self.stem = ConvBlock(3, first, 7 if self.keep_first else 3)
        pairs = zip([first, *widths[1:]], widths[1:], strict=False)
        self.down = nn.ModuleList(nn.Sequential(ConvBlock(a, b, 3, 2), ConvBlock(b, b)) for a, b in pairs)
        self.enlarger = Enlarger(config.enlarger_width) if config.enlarger_width else None

    def sharp(self, keyframe: Tensor) -> Tensor:
        """The picture that the generator warps: `ENLARGED` times as large, or the keyframe itself."""
        return keyframe if self.enlarger is None else self.enlarger(keyframe)

    def forward(self, keyframe: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> features at full size (the picture itself if it has none), 1/2, 1/4, ..."""
        x = self.stem(keyframe)
        features = [x if self.keep_first else keyframe]
        for block in self.down:
            x = block(x)
            features.append(x)
        return features


class Generator(nn.Module):
    """Decoder over warped identity features; full resolution is reached by one pixel shuffle.

    Scale i is 1/2**i. Each scale's skip is warped by the dense motion and dimmed by the occlusion map.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        g = config.generator
        self.config = g
        self.identity_aware = config.identity_aware
        lowest = len(g.widths) - 1
        width = g.widths[lowest]
        self.bottleneck = nn.ModuleList(self._block(lowest, width, width) for _ in range(g.blocks))
        ups, merges = [], []
        for scale in range(lowest - 1, 0, -1):
            skip = g.identity_widths[scale] if self.identity_aware else 0
            ups.append(ConvBlock(g.widths[scale + 1], g.widths[scale]))
            merges.append(self._block(scale, g.widths[scale] + skip, g.widths[scale]))
        self.ups, self.merges = nn.ModuleList(ups), nn.ModuleList(merges)
        self.expand = nn.Sequential(conv(g.widths[1], g.widths[0] * 4), nn.PixelShuffle(2), nn.ReLU())
        full_skip = 3 + g.identity_widths[0] if self.identity_aware else 3
        self.refine = nn.Sequential(conv(g.widths[0] + full_skip, g.widths[0]), nn.ReLU())
        self.head = conv(g.widths[0], 4)

    def _block(self, scale: int, inputs: int, outputs: int) -> nn.Module:
        if scale in self.config.modulated_scales:
            return ModulatedBlock(inputs, outputs, self.config.condition_channels)
        return PlainBlock(inputs, outputs)

    def forward(self, identity: list[Tensor], sharp: Tensor, motion: Motion, condition: Tensor) -> Picture:
        """`identity` and the `sharp` keyframe are from IdentityEncoder, `condition` is (N, C, 64, 64)."""
        warped = warp(sharp, motion.flow, ENLARGED if self.config.enlarger_width else 1)

        def skip(scale: int) -> Tensor:
            features = identity[scale]
            return warp(features, motion.flow) * resize(motion.occlusion, features.shape[-1])

        x = skip(len(identity) - 1)
        for block in self.bottleneck:
            x = block(x, condition)
        scales = range(len(identity) - 2, 0, -1)
        for scale, up, merge in zip(scales, self.ups, self.merges, strict=True):
            x = up(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            if self.identity_aware:
                x = torch.cat([x, skip(scale)], 1)
            x = merge(x, condition)
        x = self.expand(x)
        parts = [x, warped]
        if self.identity_aware and self.config.identity_widths[0]:
            parts.append(skip(0))
        out = self.head(self.refine(torch.cat(parts, 1)))
        generated, mask = torch.sigmoid(out[:, :3]), torch.sigmoid(out[:, 3:])
        return Picture(mask * warped + (1 - mask) * generated, warped, generated, mask)
