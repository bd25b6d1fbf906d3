"""What one training run is told: sizes, rates, losses, data, and the switches of an ablation."""

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from avcall.errors import InputError
from models.config import ModelConfig
from models.discriminator import DiscriminatorConfig
from models.training.data import DataConfig
from models.training.losses import LossConfig

NOT_WEIGHTS = ("misplaced", "lips_and_eyes")  # they weigh places, not losses
FINAL_SHARE = 0.02  # of the learning rate, at the end of its decay
ABLATIONS = {"audio": "audio_prior", "mesh": "structural_prior", "identity": "identity_aware"}


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One run. `sizes` are (picture size, from which step on), in rising order; `batch` is of each process.

    `adversarial_from` is the step at which the discriminator joins, or None for never; over
    `adversarial_ramp` steps from there the generator comes to hear it. From the first to the second step of
    `decay` the learning rates fall to `FINAL_SHARE` of themselves, along half a cosine. `workers` processes
    make the pairs of each process that trains; None for as many as the machine has cores for.
    """

    batch: int = 8
    learning_rate: float = 5e-4
    ema: float = 0.998
    seed: int = 0
    sizes: tuple[tuple[int, int], ...] = ((128, 0), (256, 4000))
    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    decay: tuple[int, int] | None = None
    adversarial_from: int | None = None
    adversarial_ramp: int = 500
    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    discriminator_learning_rate: float = 2e-4
    workers: int | None = None

    def size_at(self, step: int) -> int:
        """Picture size in pixels at a step."""
        return next(size for size, start in reversed(self.sizes) if step >= start)

    def decay_at(self, step: int) -> float:
        """The share of the learning rates that is left at a step."""
        if self.decay is None:
            return 1.0
        first, last = self.decay
        done = min(max((step - first) / max(last - first, 1), 0.0), 1.0)
        return FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2

    def learning_rate_at(self, step: int) -> float:
        """Of the network, at a step."""
        return self.learning_rate * self.decay_at(step)

    def adversarial_share_at(self, step: int) -> float:
        """How much of the adversarial losses counts at a step: none before the discriminator has learnt."""
        if self.adversarial_from is None:
            return 0.0
        return min(max((step - self.adversarial_from) / max(self.adversarial_ramp, 1), 0.0), 1.0)


def decay_span(first: int | None, last: int | None) -> tuple[int, int] | None:
    """The decay between two steps. Raises InputError unless both are there, in rising order, or neither."""
    if first is None and last is None:
        return None
    if first is None or last is None or not first < last:
        raise InputError("--decay-from and --decay-to go together; the second is the later step")
    return first, last


def ablate(model: ModelConfig, without: Collection[str]) -> ModelConfig:
    """A model without some of its parts (`ABLATIONS`): a row of the paper's Table 3. Raises InputError."""
    if unknown := sorted(set(without) - set(ABLATIONS)):
        raise InputError(f"--without {unknown[0]} is none; choose from {','.join(ABLATIONS)}")
    switches: dict[str, Any] = {ABLATIONS[name]: False for name in without}
    return dataclasses.replace(model, **switches)


def loss_config(*, guided_flow: bool, optical_flow: bool, regions: bool) -> LossConfig:
    """The losses, perhaps without one of the flow's two teachers, or the weight on mouth and eyes.

    Without `guided_flow` no landmark guides flow, masks and keypoints, without `optical_flow` no optical one.
    """
    losses = LossConfig()
    if not guided_flow:
        losses = dataclasses.replace(losses, flow=0.0, anchor=0.0, parts=0.0, led=0.0)
    if not optical_flow:
        losses = dataclasses.replace(losses, optical=0.0, still=0.0, tracked=0.0)
    return losses if regions else dataclasses.replace(losses, lips_and_eyes=1.0)


def weighted(losses: LossConfig, weights: Collection[str]) -> LossConfig:
    """The losses with other weights, each said as NAME=WEIGHT. Raises InputError."""
    known = [f.name for f in dataclasses.fields(LossConfig) if f.type is float and f.name not in NOT_WEIGHTS]
    changed: dict[str, Any] = {}
    for said in weights:
        name, _, number = said.partition("=")
        try:
            changed[name] = float(number)
        except ValueError:
            raise InputError(f"--loss {said} is no NAME=WEIGHT, such as l1=6") from None
        if name not in known:
            raise InputError(f"--loss {said}: there is no such loss; choose from {', '.join(known)}")
        if not 0 <= changed[name] < math.inf:
            raise InputError(f"--loss {said}: a weight is a finite number from 0 up")
    return dataclasses.replace(losses, **changed)


def data_config(*, regions: bool, telling: bool, dropout: bool) -> DataConfig:
    """The data, perhaps without weight on regions, without telling frames, or without modality dropout."""
    data = dataclasses.replace(DataConfig(), regions=regions)
    if not telling:
        data = dataclasses.replace(data, telling=0.0)
    if dropout:
        return data
    return dataclasses.replace(data, no_audio=0.0, no_mesh=0.0, no_mask=0.0, hidden_mouth=0.0)
