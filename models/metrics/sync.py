"""Sync: how well lips and speech belong together, by a SyncNet whose weights the user brings.

Chung and Zisserman 2016 ("Out of time"); LSE-D and LSE-C as Prajwal et al. 2020 (Wav2Lip) define them. The
file is the state dict of the authors' release, `syncnet_v2.model`; no package ships it. The crop of the face
is made
from mediapipe's landmarks rather than from their detector, so figures compare within one report only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avcall.errors import InputError
from avcall.types import F32Array, Pcm, U8Image
from models.metrics.mfcc import mfcc

SIDE_PX = 224
LIP_FRAMES = 5  # of 40 ms: one lip window
SPEECH_STEPS = 20  # of 10 ms: the same 200 ms
STEPS_A_FRAME = 4
MAX_SHIFT = 15  # frames by which lips and speech are shifted against each other
FACE_MARGIN = 0.4  # of half the face's box, around it; below twice as much
LANDMARKS_TO_BOX = 1.25  # detectors include the forehead, landmarks end at the brows
BATCH = 16


@dataclass(frozen=True, slots=True)
class Sync:
    """`distance` (LSE-D, lower is better), `confidence` (LSE-C, higher is better), and the best shift."""

    distance: float
    confidence: float
    offset_frames: int


def _unit2d(channels: int, out: int, kernel: int | tuple[int, int], padding: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, kernel, padding=padding), nn.BatchNorm2d(out), nn.ReLU()]


def _unit3d(
    channels: int, out: int, kernel: tuple[int, int, int], stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    convolution = nn.Conv3d(channels, out, kernel, stride=(1, stride, stride), padding=(0, padding, padding))
    return [convolution, nn.BatchNorm3d(out), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


class SyncNet(nn.Module):
    """Two towers that put 200 ms of lips and of speech into one space of 1024 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_unit2d(1, 64, 3, 1),
            nn.MaxPool2d(1, 1),
            *_unit2d(64, 192, 3, 1),
            nn.MaxPool2d(3, (1, 2)),
            *_unit2d(192, 384, 3, 1),
            *_unit2d(384, 256, 3, 1),
            *_unit2d(256, 256, 3, 1),
            nn.MaxPool2d(3, 2),
            *_unit2d(256, 512, (5, 4), 0),
        )
        self.netcnnlip = nn.Sequential(
            *_unit3d(3, 96, (5, 7, 7), stride=2),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_unit3d(96, 256, (1, 5, 5), stride=2, padding=1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_unit3d(256, 256, (1, 3, 3), padding=1),
            *_unit3d(256, 256, (1, 3, 3), padding=1),
            *_unit3d(256, 256, (1, 3, 3), padding=1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_unit3d(256, 512, (1, 6, 6)),
        )
        self.netfcaud, self.netfclip = _head(), _head()

    def speech(self, steps: Tensor) -> Tensor:
        """(N, 1024) of (N, 1, 13, 20)."""
        return self.netfcaud(self.netcnnaud(steps).flatten(1))

    def lips(self, frames: Tensor) -> Tensor:
        """(N, 1024) of (N, 3, 5, 224, 224), BGR 0..255."""
        return self.netfclip(self.netcnnlip(frames).flatten(1))


def load(path: Path) -> SyncNet:
    """The user's weights. Raises InputError when the file holds something else."""
    network = SyncNet()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception:  # torch raises many kinds for a file that is something else
        raise InputError(
            f"--syncnet {path} does not hold SyncNet; give the authors' syncnet_v2.model"
        ) from None
    return network.eval().requires_grad_(False)


@torch.no_grad()
def measure(network: SyncNet, frames: U8Image, landmarks: F32Array, pcm: Pcm) -> Sync:
    """Sync of (frames, H, W, 3) RGB at 25 a second with (samples,) at 16 kHz; `landmarks` (478, 2) place the
    face. Raises ValueError for a clip too short for one window."""
    faces = face_crops(frames, landmarks)
    steps = mfcc(pcm)
    count = min(len(faces) - LIP_FRAMES, (len(steps) - SPEECH_STEPS) // STEPS_A_FRAME) + 1
    if count < 1:
        raise ValueError("sync needs 200 ms of picture and speech at least")
    lips, speech = [], []
    for start in range(0, count, BATCH):
        chosen = range(start, min(start + BATCH, count))
        lips.append(network.lips(torch.from_numpy(np.stack([_lip_window(faces, i) for i in chosen]))))
        speech.append(network.speech(torch.from_numpy(np.stack([_speech_window(steps, i) for i in chosen]))))
    return sync_of(torch.cat(lips).numpy(), torch.cat(speech).numpy())


def sync_of(lips: F32Array, speech: F32Array) -> Sync:
    """From embeddings (frames, 1024) of both: distances at every shift, averaged over the frames."""
    padded = np.pad(speech, ((MAX_SHIFT, MAX_SHIFT), (0, 0)))
    windows = np.stack([padded[s : s + len(lips)] for s in range(2 * MAX_SHIFT + 1)])
    distances = np.linalg.norm(windows - lips[None], axis=2).mean(1)
    best = int(distances.argmin())
    confidence = float(np.median(distances) - distances[best])
    return Sync(float(distances[best]), confidence, MAX_SHIFT - best)


def face_crops(frames: U8Image, landmarks: F32Array) -> Sequence[NDArray[np.float32]]:
    """(224, 224, 3) BGR 0..255 for each frame, all cut alike."""
    low, high = landmarks.min(0), landmarks.max(0)
    half = float(max(high - low)) / 2 * LANDMARKS_TO_BOX
    middle_x, middle_y = (low + high) / 2 - np.array([0, half - float(high[1] - low[1]) / 2], np.float32)
    reach = half * (1 + FACE_MARGIN)
    left, top = middle_x - reach, middle_y - half
    scale = SIDE_PX / (2 * reach)
    place = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]], np.float32)
    return [
        cv2.warpAffine(
            frame[..., ::-1], place, (SIDE_PX, SIDE_PX), flags=cv2.INTER_AREA, borderValue=(110, 110, 110)
        ).astype(np.float32)
        for frame in frames
    ]


def _lip_window(faces: Sequence[NDArray[np.float32]], index: int) -> NDArray[np.float32]:
    """(3, 5, 224, 224)."""
    return np.stack(faces[index : index + LIP_FRAMES]).transpose(3, 0, 1, 2)


def _speech_window(steps: NDArray[np.float64], index: int) -> NDArray[np.float32]:
    """(1, 13, 20)."""
    start = index * STEPS_A_FRAME
    return steps[start : start + SPEECH_STEPS].T[None].astype(np.float32)
