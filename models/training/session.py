"""One `avcall train`: devices, where the weights begin, and what is said when it is interrupted."""

from dataclasses import dataclass
from pathlib import Path

from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from avcall.errors import AvcallError, InputError
from models.config import PRESETS, ModelConfig
from models.network import Network
from models.training.checkpoint import CHECKPOINT_NAME, averaged_network
from models.training.export import load_network
from models.training.settings import TrainConfig, ablate
from models.training.trainer import Trainer

FULL_PRECISION = "32-true"


def beginning(path: Path) -> Network:
    """The network of a weights file or of a checkpoint's average. Raises WeightsError."""
    return averaged_network(path) if path.suffix == ".pt" else load_network(path)


def launch(accelerator: str, devices: int, precision: str) -> Fabric:
    """Start the processes that train as one: from here on, the code runs in each. Raises InputError."""
    strategy = "ddp" if devices > 1 else "auto"
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, strategy=strategy, precision=precision)
    except (MisconfigurationException, ModuleNotFoundError, ValueError, RuntimeError) as error:
        asked = f"--accelerator {accelerator} --devices {devices} --precision {precision}"
        raise InputError(f"{asked} does not go here: {' '.join(str(error).split())}") from None
    if fabric.device.type == "cpu" and precision != FULL_PRECISION:
        raise InputError(
            f"--precision {precision} needs a GPU: in it, torch's convolutions on CPUs read beyond narrow "
            f"pictures; use --precision {FULL_PRECISION}"
        )
    fabric.launch()
    return fabric


@dataclass(frozen=True, slots=True)
class Session:
    """What is trained, how, on what, and into which folder."""

    preset: str
    without: tuple[str, ...]
    config: TrainConfig
    data: Path
    out: Path
    validate: Path | None = None

    def check(self, *, resume: bool) -> None:
        """Raise InputError for what can be told before anything is started."""
        self._model()
        if not resume and (self.out / CHECKPOINT_NAME).exists():
            raise InputError(f"--out {self.out} holds a run already; add --resume, or choose another folder")

    def run(
        self, fabric: Fabric, hours: float, steps: int | None, *, resume: bool, start: Path | None
    ) -> bool:
        """Train; whether it ended by itself. Raises InputError and WeightsError, in the first process only.

        The other processes end without a word, and well: Lightning ends the first one when one of them fails.
        """
        try:
            trainer = self._trainer(fabric, resume, start)
            trainer.run(hours, until_step=steps)
        except AvcallError:
            if fabric.is_global_zero:
                raise
            return True
        if trainer.interrupted:
            fabric.print(f"stopped and saved at step {trainer.step}; the same command with --resume goes on")
        return not trainer.interrupted or not fabric.is_global_zero

    def _model(self) -> ModelConfig:
        if self.preset not in PRESETS:
            raise InputError(f"--preset {self.preset} is none; choose one of {', '.join(PRESETS)}")
        return ablate(PRESETS[self.preset], self.without)

    def _trainer(self, fabric: Fabric, resume: bool, start: Path | None) -> Trainer:
        trainer = Trainer(self._model(), self.config, self.data, self.out, fabric, self.validate)
        if resume:
            trainer.load(trainer.checkpoint_path)
        elif start is not None:
            trainer.start_from(beginning(start))
        return trainer
