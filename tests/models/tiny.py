"""Both presets with few channels, random inputs for them, and prepared clips of noise."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from avcall.types import FRAME_RATE, FRAME_SIZE_PX, SAMPLE_RATE_HZ, F32Array, U8Image
from models.config import LIVE, PAPER, AudioConfig, GeneratorConfig, HourglassConfig, ModelConfig
from models.metrics.judge import Face
from models.network import KeypointTensors, Network
from models.priors import NUM_LANDMARKS, PRIOR_SIZE_PX
from models.sight import PINNED_KEYPOINTS, Sight
from models.training.prepare import LANDMARK_SCALE

TINY_PAPER = dataclasses.replace(
    PAPER,
    detector=HourglassConfig(width=4, levels=5, max_width=16, head_kernel=7),
    dense_motion=HourglassConfig(width=4, levels=5, max_width=16, head_kernel=7),
    audio=AudioConfig(width=2, channels=4),
    generator=GeneratorConfig(
        identity_widths=(4, 8, 8),
        widths=(4, 8, 8),
        blocks=2,
        condition_channels=4,
        modulated_scales=(1, 2),
    ),
)
TINY_LIVE = dataclasses.replace(
    LIVE,
    detector=HourglassConfig(width=4, levels=2, max_width=8, head_kernel=3),
    dense_motion=HourglassConfig(width=4, levels=2, max_width=8, head_kernel=3),
    audio=AudioConfig(width=2, channels=4),
    generator=GeneratorConfig(
        identity_widths=(0, 4, 8, 8),
        widths=(4, 4, 8, 8),
        blocks=1,
        condition_channels=4,
        modulated_scales=(2, 3),
        enlarger_width=4,
    ),
    part_maps=HourglassConfig(width=4, levels=2, max_width=8, head_kernel=3),
)


def keypoints(count: int, seed: int = 0, points: int = 10) -> KeypointTensors:
    """Values within the picture, jacobians near the identity."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(count, points, 2, generator=generator) * 1.6 - 0.8
    jacobians = torch.eye(2) + 0.3 * (torch.rand(count, points, 2, 2, generator=generator) - 0.5)
    return values, jacobians


def pictures(count: int, size: int, seed: int = 0) -> Tensor:
    """Smooth random pictures (count, 3, size, size) in [0, 1]."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)


def sight_of(flow: Tensor, sure: float = 1.0) -> Sight:
    """A sender who sees this flow everywhere, and no landmarks."""
    n = flow.shape[0]
    empty = torch.zeros(n, 2, NUM_LANDMARKS, 2)
    nothing, unpinned = torch.zeros(n, NUM_LANDMARKS), torch.zeros(n, len(PINNED_KEYPOINTS))
    return Sight(
        flow, torch.full((n, 64, 64), sure), empty, nothing, empty[:, :, : len(PINNED_KEYPOINTS)], unpinned
    )


def random_network(config: ModelConfig, seed: int = 0) -> Network:
    """A network in evaluation mode whose norms, jacobians and bend do something, as after training."""
    torch.manual_seed(seed)
    network = Network(config)
    with torch.no_grad():
        network.detector.jacobians.weight.normal_(0, 0.01)
        if network.dense_motion.bend is not None:
            network.dense_motion.bend.weight.normal_(0, 0.01)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return network.eval()


def landmarks(shift_px: float = 0.0) -> F32Array:
    """(478, 2) float32 pixels scattered over the middle of the picture, the same for every call."""
    points = np.random.default_rng(1).uniform(70, 186, (NUM_LANDMARKS, 2))
    return (points + shift_px).astype(np.float32)


def write_prepared(path: Path, frames: int = 6, seed: int = 0) -> Path:
    """A prepared clip: noise that drifts, landmarks that drift with it, and a second of tone."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (8, 8, 3), np.uint8)
    base = cv2.resize(coarse, (FRAME_SIZE_PX, FRAME_SIZE_PX), interpolation=cv2.INTER_CUBIC)
    jpegs = [cv2.imencode(".jpg", np.roll(base, 2 * i, axis=1))[1].tobytes() for i in range(frames)]
    points = np.stack([landmarks(2.0 * i) for i in range(frames)])
    time_s = np.arange(frames * SAMPLE_RATE_HZ // FRAME_RATE) / SAMPLE_RATE_HZ
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(jpegs), np.uint8),
        offset=np.cumsum([0, *map(len, jpegs)]).astype(np.int64),
        landmarks=(points * LANDMARK_SCALE).astype(np.uint16),
        mask=np.full((frames, PRIOR_SIZE_PX, PRIOR_SIZE_PX), 255, np.uint8),
        pcm=(8000 * np.sin(2 * np.pi * 300 * time_s)).astype(np.int16),
    )
    return path


class FaceEverywhere:
    """A judge to whom noise shows a face."""

    def find_face(self, rgb: U8Image) -> Face:
        """Always the same one."""
        return Face(landmarks(), None)
