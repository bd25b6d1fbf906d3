"""Patch discriminator of the adversarial term (AVFR section 3.4, eq. 3)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

LEAK = 0.2  # slope of the leaky ReLU below zero
KERNEL = 4


@dataclass(frozen=True, slots=True)
class DiscriminatorConfig:
    """First width, number of halvings, and widest layer."""

    width: int = 32
    levels: int = 4
    max_width: int = 256


class Discriminator(nn.Module):
    """Judges every patch of a picture: convolutions with spectral norm and leaky ReLU.

    It sees the picture alone. Conditioned on the driving keypoints, as in FOMM, it could be satisfied by a
    detector that moves the keypoints; pose is held by the other losses.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        widths = [min(config.max_width, config.width * 2**i) for i in range(config.levels)]
        self.down = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, KERNEL, stride=2, padding=1))
            for a, b in zip([3, *widths], widths, strict=False)
        )
        self.head = spectral_norm(nn.Conv2d(widths[-1], 1, KERNEL, padding=1))

    def forward(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, H, W) in [0, 1] -> logits (N, 1, H / 2**levels - 1, ...), and each level's features."""
        x = picture * 2 - 1
        features = []
        for layer in self.down:
            x = F.leaky_relu(layer(x), LEAK)
            features.append(x)
        return self.head(x), features
