"""Keypoints and jacobians of one face (AVFR section 3.1, after the First Order Motion Model)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from models.layers import Hourglass, conv, guard_jacobian, pixel_grid

INPUT_SIZE_PX = 64  # the detector works at a quarter of the 256x256 picture
PRIOR_CHANNELS = 2  # face-mesh raster and segmentation mask


class KeypointDetector(nn.Module):
    """(N, 5, 64, 64) RGB + mesh + mask -> values (N, K, 2) in [-1, 1], jacobians (N, K, 2, 2).

    `ModelConfig.background_keypoint` is not looked for: it is at (0, 0), its jacobian the identity.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_keypoints = config.num_keypoints
        self.temperature = config.temperature
        channels = 3 + (PRIOR_CHANNELS if config.structural_prior else 0)
        self.inputs = channels
        self.hourglass = Hourglass(channels, config.detector)
        kernel = config.detector.head_kernel
        self.heatmaps = conv(self.hourglass.outputs, self.num_keypoints, kernel)
        self.jacobians = conv(self.hourglass.outputs, 4 * self.num_keypoints, kernel)
        nn.init.zeros_(self.jacobians.weight)
        with torch.no_grad():
            bias = torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(self.num_keypoints)
            self.jacobians.bias.copy_(bias)  # type: ignore[union-attr]
        found = torch.ones(1, self.num_keypoints, 1)
        if config.background_keypoint is not None:
            found[:, config.background_keypoint] = 0.0
        self.register_buffer("found", found, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n, k = x.shape[0], self.num_keypoints
        features = self.hourglass(x[:, : self.inputs])
        logits = self.heatmaps(features).flatten(2) / self.temperature
        heat = F.softmax(logits, 2)  # (N, K, 4096)
        grid = pixel_grid(x.shape[2], x.shape[3], x).view(1, 1, -1, 2)
        values = (heat[..., None] * grid).sum(2)
        maps = self.jacobians(features).view(n, k, 4, -1)
        jacobians = (maps * heat[:, :, None]).sum(3).view(n, k, 2, 2)
        jacobians = torch.eye(2).to(x) + (jacobians - torch.eye(2).to(x)) * self.found[..., None]
        return values * self.found, guard_jacobian(jacobians)
