"""The training loop: Lightning Fabric, EMA weights, checkpoints that resume, scalars and sample pictures."""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from avcall.errors import AvcallError, InputError, WeightsError
from models.config import ModelConfig
from models.generator import Picture
from models.network import Network
from models.training.adversary import Adversary
from models.training.checkpoint import BEST_NAME, CHECKPOINT_NAME, read_checkpoint, write_checkpoint
from models.training.data import Batch, Clip, PairSampler, load_clips
from models.training.feed import Feed, default_workers
from models.training.ranks import StopRequest, agree, first_does, gather, rank_seed
from models.training.settings import ABLATIONS, TrainConfig, ablate
from models.training.step import TrainingStep, Whole
from models.training.validate import Validation

GRADIENT_NORM = 5.0
CHECKPOINT_SECONDS = 600.0
LOG_EVERY = 20  # steps
SAMPLE_EVERY = 500  # steps
VALIDATE_EVERY = 1000  # steps


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
        state = network.state_dict()
        moving = [key for key, value in state.items() if value.dtype.is_floating_point]
        get_ema_multi_avg_fn(decay)([self.state[key] for key in moving], [state[key] for key in moving], step)
        for key in state.keys() - set(moving):
            self.state[key].copy_(state[key])


def sample_grid(batch: Batch, picture: Picture, rows: int = 4) -> np.ndarray:
    """Rows of source | driving | image | warped | generated | mask, (H, W, 3) uint8."""
    columns = [batch.pictures[:, 0], batch.pictures[:, 1], picture.image, picture.warped, picture.generated]
    columns.append(picture.mask.expand(-1, 3, -1, -1))
    lines = [torch.cat([column[i] for column in columns], 2) for i in range(min(rows, len(batch.pictures)))]
    grid = torch.cat(lines, 1).detach().float().clamp(0, 1).permute(1, 2, 0)
    return (grid.cpu().numpy() * 255).astype(np.uint8)


class Trainer:
    """Trains one network on prepared clips into a run's folder, in one process or several.

    With `validate`, a folder of prepared clips, best.pt keeps the averaged weights that draw those best.
    """

    def __init__(  # noqa: PLR0917 (a run is made of these)
        self,
        model: ModelConfig,
        config: TrainConfig,
        data: Path,
        out: Path,
        fabric: Fabric,
        validate: Path | None = None,
    ) -> None:
        self.model, self.config, self.out, self.fabric = model, config, out, fabric
        self.clips: list[Clip] = load_clips(data)
        self.validation = None
        if validate is not None and fabric.is_global_zero:
            self.validation = Validation(validate, warped=config.losses.motion_only)
        self.validates = validate is not None
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        network = Network(model).to(memory_format=torch.channels_last)
        self.on_gpu = fabric.device.type == "cuda"
        optimizer = torch.optim.Adam(
            network.parameters(), config.learning_rate, betas=(0.5, 0.999), fused=self.on_gpu or None
        )
        module = TrainingStep(network, config.losses, rank_seed(config.seed, fabric))
        self.crops = module.generator
        self.step_module, self.optimizer = fabric.setup(module, optimizer)
        self.network = network
        self.ema = Ema(network, config.ema)  # after the set-up, which moves the network to its device
        self.adversary = None
        if config.adversarial_from is not None:
            self.adversary = Adversary(config.discriminator, config.discriminator_learning_rate, fabric)
        self.step = 0
        self.seconds = 0.0
        self.best_psnr = -math.inf
        self.interrupted = False  # whether the last run ended because it was asked to
        self.writer = SummaryWriter(str(out / "scalars")) if fabric.is_global_zero else None

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's state lies."""
        return self.out / CHECKPOINT_NAME

    def _random(self) -> dict[str, Any]:
        return {"torch": torch.get_rng_state(), "crops": self.crops.get_state()}

    def save(self) -> None:
        """Write the whole state, whole or not at all. Raises InputError when the disk refuses."""
        first, *others = gather(self.fabric, self._random())
        state = {
            "model": self.model.to_dict(),
            "network": self.network.state_dict(),
            "ema": self.ema.state,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "best_psnr": self.best_psnr,
            "random": first,
            "random_of_others": others,
        }
        if self.adversary is not None:
            state["adversary"] = self.adversary.state_dict()
        first_does(self.fabric, lambda: write_checkpoint(state, self.checkpoint_path))

    def start_from(self, network: Network) -> None:
        """Begin with trained weights, not random ones. Raises WeightsError for another configuration.

        They may be those of the whole model where this one is an ablation of it: it begins without that part.
        And they may lack the enlarger, which is nothing at first.
        """
        without = ablate(
            network.config, [name for name, key in ABLATIONS.items() if not getattr(self.model, key)]
        )
        if grown(without, self.model) != self.model:
            raise WeightsError(f"the weights are of another configuration than preset {self.model.name}")
        state = parts_of(network.state_dict(), self.network.state_dict())
        self.network.load_state_dict(state)
        self.ema.load(state)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint, exactly where it stood.

        One without random state or adversary is taken too: those then start afresh, as do the random states
        of processes that were not there. Raises WeightsError when the file is damaged, or of another format
        or configuration, and InputError when this run would lose its discriminator.
        """
        state = read_checkpoint(path)
        if ModelConfig.from_dict(state["model"]) != self.model:
            raise WeightsError(
                f"{path} was trained with another model configuration; start a new run with another --out"
            )
        if "network" not in state:
            raise WeightsError(f"{path} holds averaged weights alone; begin a new run with --start {path}")
        if self.adversary is None and "adversary" in state:
            raise InputError(f"{path} has a discriminator; add --adversarial-from with the step it joined at")
        self.network.load_state_dict(state["network"])
        self.ema.load(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.best_psnr = state.get("best_psnr", -math.inf)
        known = [state.get("random"), *state.get("random_of_others", [])]
        if self.fabric.global_rank < len(known) and (random := known[self.fabric.global_rank]):
            torch.set_rng_state(random["torch"])
            self.crops.set_state(random["crops"])
        if self.adversary is not None and "adversary" in state:
            self.adversary.load_state_dict(state["adversary"])

    def _feed(self) -> Feed:
        """Batches of the size due now. Each has the number of its step: a run resumes with the next one."""
        config, seed = self.config, rank_seed(self.config.seed, self.fabric)
        sampler = PairSampler(self.clips, config.data, config.size_at(self.step), seed)
        workers = default_workers(self.fabric.world_size) if config.workers is None else config.workers
        return Feed(sampler, config.batch, self.step, workers=workers, pinned=self.on_gpu)

    def _adversary_now(self) -> Adversary | None:
        start = self.config.adversarial_from
        return self.adversary if start is not None and self.step >= start else None

    def _one_step(self, batch: Batch) -> tuple[dict[str, Tensor], Picture]:
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(self.step)
        total, parts, picture = self.step_module(Whole(batch), self.step)
        adversary, real = self._adversary_now(), batch.pictures[:, 1]
        if adversary is not None:
            extra, named = adversary.judge(picture.image, real, config.losses)
            total, parts = total + config.adversarial_share_at(self.step) * extra, parts | named
        self.optimizer.zero_grad()
        self.fabric.backward(total)
        norm = self.fabric.clip_gradients(
            self.step_module, self.optimizer, max_norm=GRADIENT_NORM, error_if_nonfinite=False
        )
        if norm is None or not torch.isfinite(norm):  # the same in all processes: they share their gradients
            self._diverged(parts)
        self.optimizer.step()
        if adversary is not None:
            rate = config.discriminator_learning_rate * config.decay_at(self.step)
            parts["discriminator"] = adversary.learn(picture.image, real, rate)
        self.step += 1
        self.ema.update(self.network, self.step)
        return parts, picture

    def _diverged(self, parts: dict[str, Tensor]) -> NoReturn:
        broken = next((name for name, part in parts.items() if not torch.isfinite(part)), None)
        what = "the gradient is" if broken is None else f"the loss {broken!r} is"
        raise AvcallError(
            f"{what} not a finite number at step {self.step}, which was not saved; "
            "go on from the last checkpoint with --resume and a lower --learning-rate"
        )

    def _log(self, batch: Batch, parts: dict[str, Tensor], picture: Picture, samples_per_s: float) -> None:
        assert self.writer is not None
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
        batch = move_batch(feed.next(), self.fabric)
        parts, picture = self._one_step(batch)
        took = time.monotonic() - began
        self.seconds += took
        if self.step % LOG_EVERY == 0 and self.writer is not None:
            self._log(batch, parts, picture, self.config.batch * self.fabric.world_size / took)
        if self.step % VALIDATE_EVERY == 0:
            self._validate()

    def _validate(self) -> None:
        if self.validates:
            first_does(self.fabric, self._keep_best)

    def _keep_best(self) -> None:
        """Measure the averaged weights, and keep them when none were better."""
        assert self.validation is not None and self.writer is not None
        psnr = self.validation.psnr(self.network, self.ema.state)
        self.writer.add_scalar("validate/psnr", psnr, self.step)
        best = psnr > self.best_psnr
        self.fabric.print(
            f"step {self.step}  validate {psnr:.2f} dB{'  the best' if best else ''}", flush=True
        )
        if best:
            self.best_psnr = psnr
            kept = {"model": self.model.to_dict(), "ema": self.ema.state, "psnr": psnr}
            write_checkpoint(kept | {"step": self.step, "seconds": self.seconds}, self.out / BEST_NAME)

    def run(self, hours: float, *, until_step: int | None = None) -> None:
        """Train for `hours` of wall time or until a step, whichever is first, then save.

        Ctrl-C or SIGTERM end it after the step at hand: it is saved, and `interrupted` says so.
        """
        end = time.monotonic() + hours * 3600
        saved = time.monotonic()
        self.step_module.train()
        with StopRequest() as request:

            def going() -> bool:
                nonlocal saved
                over = time.monotonic() >= end or (until_step is not None and self.step >= until_step)
                due = time.monotonic() - saved > CHECKPOINT_SECONDS
                self.interrupted, over, due = agree(self.fabric, request.made, over, due)
                if due and not (self.interrupted or over):
                    self.save()
                    saved = time.monotonic()
                return not (self.interrupted or over)

            goes_on = going()
            while goes_on:
                with self._feed() as feed:
                    while goes_on and feed.size_px == self.config.size_at(self.step):
                        self._timed_step(feed)
                        goes_on = going()
        if not self.interrupted and self.step % VALIDATE_EVERY:
            self._validate()
        self.save()
        if self.writer is not None:
            self.writer.flush()


def grown(known: ModelConfig, wanted: ModelConfig) -> ModelConfig:
    """A known configuration, with the wanted one's enlarger if it has none."""
    width = known.generator.enlarger_width or wanted.generator.enlarger_width
    return dataclasses.replace(known, generator=dataclasses.replace(known.generator, enlarger_width=width))


def parts_of(whole: dict[str, Tensor], part: dict[str, Tensor]) -> dict[str, Tensor]:
    """What of a whole network's state another has; `part` is that other's own: it says what, and how large.

    What an ablated one leaves out comes last among a layer's inputs. Scales and shifts of a norm are two
    halves. What a grown one adds stays as it is in `part`.
    """
    found = {}
    for key, like in part.items():
        if key not in whole:
            found[key] = like
        elif like.shape == whole[key].shape:
            found[key] = whole[key]
        else:
            halves = 2 if ".scale_shift." in key else 1
            sizes = (len(like) // halves, *like.shape[1:])
            found[key] = torch.cat([half[tuple(map(slice, sizes))] for half in whole[key].chunk(halves)])
    return found


def move_batch(batch: Batch, fabric: Fabric) -> Batch:
    """The batch as a step takes it, on the training device; if pinned, it goes there while that computes."""
    return Batch(*map(fabric.to_device, batch)).floats()
