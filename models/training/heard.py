"""What of the lips can be heard: speech is asked for what the drawn lips miss.

    python -m models.training.heard TRAIN VAL [--weights DIR] [--every 8] [--seeds 3]

TRAIN and VAL are what `avcall prepare` filled; clips without sound are left out. Every n-th frame is drawn
without speech, and the landmarks of its lips are compared with those of the camera's frame. On TRAIN a small
network learns to tell the difference from 500 ms of speech before the frame and 180 ms after it. Prints, for
each seed, which share of the variance it explains on VAL, and how far the lips' landmarks would come nearer,
± the standard error over the clips; the same with the speech of another moment. Takes 20 frames a second, and
then a minute for each seed.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from avcall.errors import InputError
from avcall.types import F32Array
from models.audio_encoder import MelEncoder
from models.metrics.judge import FrameJudge
from models.metrics.picture import LIPS, face_width
from models.metrics.tables import Table, print_table
from models.runtime import Device, ModelRuntime, weights_folder
from models.training.data import Clip, load_spoken
from models.training.drawing import Puppet, first_face, priors_of, still_of

WINDOWS = (
    -10,
    -5,
    0,
    2,
)  # frames from the picture to the middle of a mel window; a receiver has no later one
COMPONENTS = 6  # of what is missed, which hold 90 % of it
FEWEST_FRAMES = 4  # of a clip that counts
WIDTH, BATCH, STEPS, CHECK_EVERY = 16, 128, 600, 50
RATE, DECAY, DROPOUT, NOISE = 1.5e-3, 0.05, 0.3, 0.03
KEPT_BACK = 0.1  # of the training clips: they say when to stop


@dataclass(frozen=True, slots=True)
class Frames:
    """`mel` (n, 80, 64), `missed` (n, 40, 2) in % of the face's width, `clip` (n,) numbers."""

    mel: Tensor
    missed: Tensor
    clip: Tensor

    def __len__(self) -> int:
        return len(self.clip)


@dataclass(frozen=True, slots=True)
class Answer:
    """Share of the variance, and of each clip by how much % its lips come nearer: own and other speech."""

    explained: float
    nearer: F32Array
    nearer_by_other: F32Array


class Observer:
    """Draws clips and looks at their lips."""

    def __init__(self, weights: Path, every: int) -> None:
        self._runtime = ModelRuntime(device=Device.CPU, weights=weights)
        self._judge = FrameJudge(perceptual=False, identity=False)
        self._every = every

    def clip(self, clip: Clip, number: int) -> Frames | None:
        """None for a clip with too few faces."""
        found = list(self._pairs(clip))
        if len(found) < FEWEST_FRAMES:
            return None
        mels, drawn, seen = (np.stack(part) for part in zip(*found, strict=True))
        widths = np.array([face_width(one) for one in seen], np.float32)[:, None, None] / 100
        missed = (drawn[:, LIPS] - seen[:, LIPS]) / widths
        return Frames(
            torch.from_numpy(mels),
            torch.from_numpy(missed),
            torch.full((len(found),), number),
        )

    def _pairs(self, clip: Clip) -> Iterator[tuple[F32Array, F32Array, F32Array]]:
        """Speech, and the landmarks of the drawn and of the camera's face."""
        still, first = still_of(self._runtime, clip), first_face(clip)
        if still is None or first is None:
            return
        puppet = Puppet(self._runtime, still, other_person=False)
        for index in range(first, len(clip))[self._every :: self._every]:
            camera = clip.picture(index)
            pose = puppet.pose(camera, priors_of(clip, index))
            faces = [
                self._judge.find_face(rgb)
                for rgb in (puppet.draw(pose, clip.mel(index), speech=False), camera)
            ]
            if faces[0] is not None and faces[1] is not None:
                mel = np.concatenate([clip.mel(index + offset) for offset in WINDOWS], 1)
                yield mel, faces[0].landmarks, faces[1].landmarks


def gather(folder: Path, observer: Observer) -> Frames:
    """All clips of a folder that have sound. Raises InputError when there are fewer than two."""
    spoken = load_spoken(folder)
    seen = (observer.clip(clip, number) for number, clip in enumerate(spoken))
    found = [one for one in track(seen, folder.name, len(spoken), console=Console(stderr=True)) if one]
    if len(found) < 2:
        raise InputError(f"{folder} has fewer than two clips with sound and a face; give another folder")
    return Frames(*(torch.cat([getattr(one, part.name) for one in found]) for part in fields(Frames)))


class Ear(nn.Module):
    """Speech -> `COMPONENTS` numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MelEncoder(WIDTH)
        self.head = nn.Sequential(
            nn.Linear(4 * WIDTH, 4 * WIDTH),
            nn.LeakyReLU(0.2),
            nn.Dropout(DROPOUT),
            nn.Linear(4 * WIDTH, COMPONENTS),
        )

    def forward(self, mel: Tensor) -> Tensor:
        numbers: Tensor = self.head(self.encoder(mel[:, None]))
        return numbers


def ask(train: Frames, judged: Frames, seed: int) -> Answer:
    """Learn on `train` to hear what was missed, and try it on `judged`."""
    torch.manual_seed(seed)
    wanted, actual = train.missed.flatten(1), judged.missed.flatten(1)
    mean = wanted.mean(0)
    _, _, basis = torch.linalg.svd(wanted - mean, full_matrices=False)
    basis = basis[:COMPONENTS]
    spread = ((wanted - mean) @ basis.T).std(0)
    ear, share = _learnt(train, (wanted - mean) @ basis.T / spread)
    with torch.no_grad():
        told, other = (
            share * ear(mel) * spread @ basis for mel in (judged.mel, judged.mel[torch.randperm(len(judged))])
        )
    rest = actual - mean
    explained = 1 - float((rest - told).square().sum() / rest.square().sum())
    far = _distance(rest)
    nearer = [far - _distance(rest - answer) for answer in (told, other)]
    return Answer(explained, *(_by_clip(one, judged.clip) for one in nearer))


def _learnt(train: Frames, numbers: Tensor) -> tuple[Ear, float]:
    """An ear as it was when it heard best in the clips that were kept back, and how far those trust it."""
    clips = train.clip.unique()
    back = clips[torch.randperm(len(clips))[: max(1, round(KEPT_BACK * len(clips)))]]
    kept = torch.isin(train.clip, back)
    learning, checking = (~kept).nonzero()[:, 0], kept.nonzero()[:, 0]
    ear = Ear()
    optimiser = torch.optim.AdamW(ear.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS, pct_start=0.1)
    least, best = float("inf"), ear.state_dict()
    for step in range(1, STEPS + 1):
        chosen = learning[torch.randint(len(learning), (BATCH,))]
        mel = train.mel[chosen] + NOISE * torch.randn(BATCH, 1, 1)
        loss = (ear(mel) - numbers[chosen]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % CHECK_EVERY == 0:
            ear.eval()
            with torch.no_grad():
                off = float((ear(train.mel[checking]) - numbers[checking]).square().mean())
            ear.train()
            if off < least:
                least, best = off, {key: value.clone() for key, value in ear.state_dict().items()}
    ear.load_state_dict(best)
    ear.eval()
    with torch.no_grad():
        told = ear(train.mel[checking])
    share = float((told * numbers[checking]).sum() / told.square().sum())
    return ear, min(max(share, 0.0), 1.0)


def _distance(lips: Tensor) -> Tensor:
    """(n, 80) -> (n,): the mean distance of the landmarks."""
    return lips.view(len(lips), -1, 2).norm(dim=2).mean(1)


def _by_clip(values: Tensor, clip: Tensor) -> F32Array:
    return np.array([float(values[clip == number].mean()) for number in clip.unique()], np.float32)


def table(answers: Sequence[Answer], frames: int) -> Table:
    """A row for each seed."""
    lines = []
    for seed, answer in enumerate(answers):
        cells = (
            f"{one.mean():+.4f} ± {one.std(ddof=1) / len(one) ** 0.5:.4f}"
            for one in (answer.nearer, answer.nearer_by_other)
        )
        lines.append((str(seed), f"{100 * answer.explained:+.1f}", *cells))
    columns = ("seed", "heard, % of the variance", "lips nearer by %", "by speech of another moment")
    return Table(f"What of the lips can be heard, {frames} frames", columns, tuple(lines))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m models.training.heard")
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    observer = Observer(weights_folder(options.weights), options.every)
    train, judged = (gather(folder, observer) for folder in (options.train, options.val))
    answers = [ask(train, judged, seed) for seed in range(options.seeds)]
    print_table(Console(), table(answers, len(judged)))


if __name__ == "__main__":
    main()
