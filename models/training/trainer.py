"""The training loop: Lightning Fabric, EMA weights, checkpoints that resume, scalars and sample pictures."""

import dataclasses
import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from avcall.errors import WeightsError
from models.config import ModelConfig
from models.generator import Picture
from models.network import Network
from models.training.data import Batch, Clip, DataConfig, PairSampler, load_clips
from models.training.losses import LossConfig
from models.training.step import TrainingStep

GRADIENT_NORM = 5.0
PREFETCHED_BATCHES = 4
CHECKPOINT_SECONDS = 600.0
LOG_EVERY = 20  # steps
SAMPLE_EVERY = 500  # steps
CHECKPOINT_FORMAT = 1


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One run. `sizes` are (picture size, from which step on), in rising order."""

    batch: int = 8
    learning_rate: float = 5e-4
    ema: float = 0.998
    seed: int = 0
    sizes: tuple[tuple[int, int], ...] = ((128, 0), (256, 4000))
    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)

    def size_at(self, step: int) -> int:
        """Picture size in pixels at a step."""
        return next(size for size, start in reversed(self.sizes) if step >= start)


class Ema:
    """Exponential moving average of every parameter and buffer."""

    def __init__(self, network: Network, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: Network, step: int) -> None:
        """Move towards the network's present state; faster in the first steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)


def prefetch(sampler: PairSampler, batch: int) -> Iterator[Batch]:
    """Batches made by one background thread, so that decoding overlaps with the step."""
    ready: queue.Queue[Batch] = queue.Queue(PREFETCHED_BATCHES)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            made = sampler.batch(batch)
            while not stop.is_set():
                try:
                    ready.put(made, timeout=0.5)
                    break
                except queue.Full:
                    continue

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            yield ready.get()
    finally:
        stop.set()
        thread.join()


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
        self.ema = Ema(network, config.ema)
        optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, betas=(0.5, 0.999))
        self.step_module, self.optimizer = fabric.setup(
            TrainingStep(network, config.losses, config.seed), optimizer
        )
        self.network = network
        self.clips: list[Clip] = load_clips(data)
        self.step = 0
        self.seconds = 0.0
        self.writer = SummaryWriter(str(out / "scalars"))

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's state lies."""
        return self.out / "checkpoint.pt"

    def save(self) -> None:
        """Write the whole state: network, EMA, optimiser, step; whole or not at all."""
        state = {
            "format": CHECKPOINT_FORMAT,
            "model": self.model.to_dict(),
            "network": self.network.state_dict(),
            "ema": self.ema.state,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.checkpoint_path.with_suffix(".part")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint_path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; WeightsError when it is of another format or configuration."""
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state.get("format") != CHECKPOINT_FORMAT:
            raise WeightsError(
                f"{path} is a checkpoint of another format; start a new run with another --out"
            )
        if ModelConfig.from_dict(state["model"]) != self.model:
            raise WeightsError(
                f"{path} was trained with another model configuration; start a new run with another --out"
            )
        self.network.load_state_dict(state["network"])
        self.ema.state = state["ema"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]

    def _one_step(self, batch: Batch) -> tuple[dict[str, Tensor], Picture]:
        total, parts, picture = self.step_module(batch, self.step)
        self.optimizer.zero_grad()
        self.fabric.backward(total)
        self.fabric.clip_gradients(self.step_module, self.optimizer, max_norm=GRADIENT_NORM)
        self.optimizer.step()
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

    def run(self, hours: float) -> None:
        """Train for `hours` of wall time, then save."""
        end = time.monotonic() + hours * 3600
        saved = time.monotonic()
        size = 0
        batches: Iterator[Batch] = iter(())
        self.step_module.train()
        while time.monotonic() < end:
            if size != self.config.size_at(self.step):
                size = self.config.size_at(self.step)
                sampler = PairSampler(self.clips, self.config.data, size, self.config.seed + self.step)
                batches = prefetch(sampler, self.config.batch)
            began = time.monotonic()
            batch = move_batch(next(batches), self.fabric)
            parts, picture = self._one_step(batch)
            took = time.monotonic() - began
            self.seconds += took
            if self.step % LOG_EVERY == 0:
                self._log(batch, parts, picture, self.config.batch / took)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()


def move_batch(batch: Batch, fabric: Fabric) -> Batch:
    """The batch on the training device; pictures in channels-last order."""
    moved = {f.name: fabric.to_device(getattr(batch, f.name)) for f in dataclasses.fields(batch)}
    return Batch(**moved)
