"""The scale of the jacobians, which no loss knows and no picture shows, brought to 1 for what is exported.

The dense motion takes jacobian_source @ jacobian_driving^-1: a factor that both have, one for each keypoint,
leaves everything as it is. So training lets it drift, up to the limit of what may be sent (`MAX_JACOBIAN`).
There a jacobian is cut, and what rounding pushes past the limit cannot be sent at all.
"""

from collections.abc import Iterable

import torch

from models.keypoint_detector import INPUT_SIZE_PX, KeypointDetector
from models.layers import resize
from models.network import Network
from models.training.data import Clip
from models.training.quantise import picture_tensor, prior_tensor, sampled_frames

ROUNDS = 3  # a jacobian that was cut tells too small a scale


@torch.no_grad()
def level_jacobians(network: Network, clips: Iterable[Clip]) -> None:
    """Rescale the detector's jacobians so that each keypoint's have a median determinant of 1 on the clips.

    Changes the network in place, and nothing that it draws, but where jacobians had been cut.
    """
    inputs = [
        (resize(picture_tensor(clip.picture(index)), INPUT_SIZE_PX), prior_tensor(clip, index))
        for clip in clips
        for index in sampled_frames(clip)
    ]
    if not inputs:
        return
    for _ in range(ROUNDS):
        found = torch.cat([network.detect(small, priors)[1] for small, priors in inputs])
        _rescale(network.detector, torch.linalg.det(found).abs().median(0).values.rsqrt())


def _rescale(detector: KeypointDetector, factors: torch.Tensor) -> None:
    """Multiply each keypoint's jacobians by its factor (K,); the one that is not looked for has none."""
    rows = factors.repeat_interleave(4)
    head = detector.jacobians
    head.weight.mul_(rows[:, None, None, None])
    assert head.bias is not None
    head.bias.mul_(rows)
