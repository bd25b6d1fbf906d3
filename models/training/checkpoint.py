"""A run's files: checkpoint.pt, from which it goes on, and best.pt, its best averaged weights."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from avcall.errors import InputError, WeightsError
from models.config import ModelConfig
from models.network import Network

CHECKPOINT_FORMAT = 1
CHECKPOINT_NAME = "checkpoint.pt"
BEST_NAME = "best.pt"


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a state, whole or not at all. Raises InputError when the disk refuses."""
    partial = path.with_suffix(".part")
    try:
        torch.save({"format": CHECKPOINT_FORMAT, **state}, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError on a full disk
        partial.unlink(missing_ok=True)
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be written ({reason}); free some space, then use --resume") from None


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


def averaged_network(path: Path) -> Network:
    """The network of a checkpoint with its averaged weights, in evaluation mode. Raises WeightsError."""
    state = read_checkpoint(path)
    network = Network(ModelConfig.from_dict(state["model"]))
    network.load_state_dict(state["ema"])
    return network.eval()
