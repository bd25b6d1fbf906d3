"""The training loop: Lightning Fabric, EMA weights, checkpoints that resume, scalars and sample pictures."""

import dataclasses
import math
import os
import pickle
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from avcall.errors import InputError, WeightsError
from models.config import ModelConfig
from models.discriminator import DiscriminatorConfig
from models.generator import Picture
from models.network import Network
from models.training.adversary import Adversary
from models.training.data import Batch, Clip, DataConfig, PairSampler, load_clips
from models.training.feed import Feed
from models.training.losses import LossConfig
from models.training.step import TrainingStep

GRADIENT_NORM = 5.0
CHECKPOINT_SECONDS = 600.0
LOG_EVERY = 20  # steps
SAMPLE_EVERY = 500  # steps
CHECKPOINT_FORMAT = 1
FINAL_SHARE = 0.02  # of the learning rate, at the end of its decay


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One run. `sizes` are (picture size, from which step on), in rising order.

    `adversarial_from` is the step at which the discriminator joins, or None for never. From the first to the
    second step of `decay` the learning rate falls to `FINAL_SHARE` of itself, along half a cosine.
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
    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    discriminator_learning_rate: float = 2e-4

    def size_at(self, step: int) -> int:
        """Picture size in pixels at a step."""
        return next(size for size, start in reversed(self.sizes) if step >= start)

    def learning_rate_at(self, step: int) -> float:
        """Of Adam, at a step."""
        if self.decay is None:
            return self.learning_rate
        first, last = self.decay
        done = min(max((step - first) / max(last - first, 1), 0.0), 1.0)
        share = FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * share


class Ema:
    """Exponential moving average of every parameter and buffer."""

    def __init__(self, network: Network, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in network.state_dict().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over a checkpoint's averages."""
        for key, value in self.state.items():
            value.copy_(state[key])

    @torch.no_grad()
    def update(self, network: Network, step: int) -> None:
        """Move towards the network's present state; faster in the first steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)


def sample_grid(batch: Batch, picture: Picture, rows: int = 4) -> np.ndarray:
    """Rows of source | driving | image | warped | generated | mask, (H, W, 3) uint8."""
    columns = [batch.pictures[:, 0], batch.pictures[:, 1], picture.image, picture.warped, picture.generated]
    columns.append(picture.mask.expand(-1, 3, -1, -1))
    lines = [torch.cat([column[i] for column in columns], 2) for i in range(min(rows, len(batch.pictures)))]
    grid = torch.cat(lines, 1).detach().float().clamp(0, 1).permute(1, 2, 0)
    return (grid.cpu().numpy() * 255).astype(np.uint8)


class Trainer:
    """Trains one network on prepared clips into a run's folder."""

    def __init__(
        self, model: ModelConfig, config: TrainConfig, data: Path, out: Path, fabric: Fabric
    ) -> None:
        self.model, self.config, self.out, self.fabric = model, config, out, fabric
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        network = Network(model).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, betas=(0.5, 0.999))
        module = TrainingStep(network, config.losses, config.seed)
        self.crops = module.generator
        self.step_module, self.optimizer = fabric.setup(module, optimizer)
        self.network = network
        self.ema = Ema(network, config.ema)  # after the set-up, which moves the network to its device
        self.adversary = None
        if config.adversarial_from is not None:
            self.adversary = Adversary(config.discriminator, config.discriminator_learning_rate, fabric)
        self.clips: list[Clip] = load_clips(data)
        self.step = 0
        self.seconds = 0.0
        self.sampled = (0, "")  # picture size and sampler state after the last batch
        self.writer = SummaryWriter(str(out / "scalars"))

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's state lies."""
        return self.out / "checkpoint.pt"

    def save(self) -> None:
        """Write the whole state, whole or not at all. Raises InputError when the disk refuses."""
        state = {
            "format": CHECKPOINT_FORMAT,
            "model": self.model.to_dict(),
            "network": self.network.state_dict(),
            "ema": self.ema.state,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "random": {
                "torch": torch.get_rng_state(),
                "crops": self.crops.get_state(),
                "sampler": self.sampled,
            },
        }
        if self.adversary is not None:
            state["adversary"] = self.adversary.state_dict()
        partial = self.checkpoint_path.with_suffix(".part")
        try:
            torch.save(state, partial)
            os.replace(partial, self.checkpoint_path)
        except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError on a full disk
            partial.unlink(missing_ok=True)
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{self.checkpoint_path} cannot be written ({reason}); free some space, then use --resume"
            ) from None

    def start_from(self, network: Network) -> None:
        """Begin with trained weights, not random ones. Raises WeightsError for another configuration."""
        if network.config != self.model:
            raise WeightsError(f"the weights are of another configuration than preset {self.model.name}")
        state = network.state_dict()
        self.network.load_state_dict(state)
        self.ema.load(state)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint, exactly where it stood.

        One without random state or adversary is taken too: those then start afresh. Raises WeightsError when
        the file is damaged, or of another format or configuration.
        """
        state = read_checkpoint(path)
        if ModelConfig.from_dict(state["model"]) != self.model:
            raise WeightsError(
                f"{path} was trained with another model configuration; start a new run with another --out"
            )
        self.network.load_state_dict(state["network"])
        self.ema.load(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        if random := state.get("random"):
            torch.set_rng_state(random["torch"])
            self.crops.set_state(random["crops"])
            self.sampled = random["sampler"]
        if self.adversary is not None and "adversary" in state:
            self.adversary.load_state_dict(state["adversary"])

    def _feed(self) -> Feed:
        """Batches of the size due now: from the sampler's saved state if it has that size."""
        size = self.config.size_at(self.step)
        sampler = PairSampler(self.clips, self.config.data, size, self.config.seed + self.step)
        saved_size, state = self.sampled
        return Feed(sampler, self.config.batch, state if saved_size == size else None)

    def _adversary_now(self) -> Adversary | None:
        start = self.config.adversarial_from
        return self.adversary if start is not None and self.step >= start else None

    def _one_step(self, batch: Batch) -> tuple[dict[str, Tensor], Picture]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.step)
        total, parts, picture = self.step_module(batch, self.step)
        adversary, real = self._adversary_now(), batch.pictures[:, 1]
        if adversary is not None:
            extra, named = adversary.judge(picture.image, real, self.config.losses)
            total, parts = total + extra, parts | named
        self.optimizer.zero_grad()
        self.fabric.backward(total)
        self.fabric.clip_gradients(self.step_module, self.optimizer, max_norm=GRADIENT_NORM)
        self.optimizer.step()
        if adversary is not None:
            parts["discriminator"] = adversary.learn(picture.image, real)
        self.step += 1
        self.ema.update(self.network, self.step)
        return parts, picture

    def _log(self, batch: Batch, parts: dict[str, Tensor], picture: Picture, samples_per_s: float) -> None:
        for name, part in parts.items():
            self.writer.add_scalar(f"loss/{name}", part.item(), self.step)
        text = "  ".join(f"{name} {part.item():.4f}" for name, part in parts.items())
        mask = picture.mask.mean().item()
        self.fabric.print(
            f"step {self.step}  {samples_per_s:.1f} samples/s  mask {mask:.2f}  {text}", flush=True
        )
        if self.step % SAMPLE_EVERY == 0:
            grid = sample_grid(batch, picture)
            cv2.imwrite(str(self.out / f"sample-{self.step:06d}.png"), cv2.cvtColor(grid, cv2.COLOR_RGB2BGR))

    def _timed_step(self, feed: Feed) -> None:
        began = time.monotonic()
        fed = feed.next()
        batch = move_batch(fed.batch, self.fabric)
        parts, picture = self._one_step(batch)
        self.sampled = (feed.size_px, fed.state_after)
        took = time.monotonic() - began
        self.seconds += took
        if self.step % LOG_EVERY == 0:
            self._log(batch, parts, picture, self.config.batch / took)

    def run(self, hours: float, *, until_step: int | None = None) -> None:
        """Train for `hours` of wall time or until a step, whichever is first, then save."""
        end = time.monotonic() + hours * 3600
        saved = time.monotonic()
        self.step_module.train()

        def going() -> bool:
            return time.monotonic() < end and (until_step is None or self.step < until_step)

        while going():
            with self._feed() as feed:
                while going() and feed.size_px == self.config.size_at(self.step):
                    self._timed_step(feed)
                    if time.monotonic() - saved > CHECKPOINT_SECONDS:
                        self.save()
                        saved = time.monotonic()
        self.save()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's parts, on the CPU. Raises WeightsError when it is damaged or of another format."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"{path} cannot be read as a checkpoint ({reason}); start a new run") from None
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise WeightsError(f"{path} is a checkpoint of another format; start a new run with another --out")
    return state


def move_batch(batch: Batch, fabric: Fabric) -> Batch:
    """The batch on the training device; pictures in channels-last order."""
    moved = {f.name: fabric.to_device(getattr(batch, f.name)) for f in dataclasses.fields(batch)}
    return Batch(**moved)
