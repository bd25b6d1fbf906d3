"""A second look at the driving keypoints: what they would draw, beside what the camera sees.

Not in the paper. A detector that sees one frame places each keypoint to about a pixel of 64, and an error
there moves a whole region of the picture. The sender has the keyframe too: it warps it as the receiver will,
and this network corrects the keypoints by the difference. What is sent, and the receiver, stay as they are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from models.keypoint_detector import PRIOR_CHANNELS
from models.layers import Hourglass, conv, guard_jacobian, pixel_grid

WINDOW_VARIANCE = 0.05  # of the Gaussian around a keypoint in which its correction is first looked for
MAX_SHIFT = 0.3  # of a keypoint, in half widths of the picture
MAX_TURN = 1.0  # of a jacobian's entries
FIRST_SPREAD = 1e-3  # of the weights that correct: nothing is corrected before something is learnt


class KeypointRefiner(nn.Module):
    """Camera and warped keyframe at 64x64, keypoints -> better keypoints; it begins near the identity."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.refiner is not None
        k = self.num_keypoints = config.num_keypoints
        self.variance = config.keypoint_variance
        self.priors = PRIOR_CHANNELS if config.structural_prior else 0
        self.hourglass = Hourglass(3 + self.priors + 3 + k, config.refiner)
        kernel = config.refiner.head_kernel
        self.attention = conv(self.hourglass.outputs, k, kernel)
        self.corrections = conv(self.hourglass.outputs, 6 * k, kernel)
        nn.init.normal_(self.corrections.weight, std=FIRST_SPREAD)
        nn.init.zeros_(self.corrections.bias)  # type: ignore[arg-type]

    def forward(
        self, camera: Tensor, warped: Tensor, driving: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """`camera` (N, 5, 64, 64) RGB, mesh, mask; `warped` (N, 3, 64, 64); `driving` values, jacobians."""
        n, k = camera.shape[0], self.num_keypoints
        values, jacobians = driving
        grid = pixel_grid(camera.shape[2], camera.shape[3], camera)
        squared = ((grid[None, None] - values[:, :, None, None]) ** 2).sum(-1)  # (N, K, 64, 64)
        heat = torch.exp(-0.5 * squared / self.variance)
        features = self.hourglass(torch.cat([camera[:, : 3 + self.priors], warped, heat], 1))
        logits = self.attention(features) - 0.5 * squared / WINDOW_VARIANCE
        attention = F.softmax(logits.flatten(2), 2)  # (N, K, 4096)
        maps = self.corrections(features).view(n, k, 6, -1)
        change = torch.tanh((maps * attention[:, :, None]).sum(3))  # (N, K, 6)
        moved = values + MAX_SHIFT * change[..., :2]
        turned = jacobians + MAX_TURN * change[..., 2:].view(n, k, 2, 2)
        return moved, guard_jacobian(turned)
