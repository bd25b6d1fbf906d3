"""Trains as two processes; run by test_ranks.py, for Lightning starts the second one as a script of its own.

Arguments: a folder of prepared clips, and a folder that gets `whole`, a run of three steps, `parts`, the same
run interrupted after two, and rank0.pt and rank1.pt: what each process knows at the end.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from avcall.errors import InputError
from models.discriminator import DiscriminatorConfig
from models.training.ranks import agree, first_does
from models.training.settings import TrainConfig
from models.training.trainer import Trainer
from tests.models.tiny import TINY_LIVE

CONFIG = TrainConfig(
    batch=2,
    sizes=((64, 0),),
    adversarial_from=1,
    discriminator=DiscriminatorConfig(width=4, levels=3, max_width=8),
)


def train(data: Path, out: Path, fabric: Fabric, until_step: int) -> Trainer:
    # Without the finer scales of the identity encoder: no parameter may be left without a gradient.
    model = dataclasses.replace(TINY_LIVE, identity_aware=False)
    trainer = Trainer(model, CONFIG, data, out, fabric, validate=data)
    if trainer.checkpoint_path.exists():
        trainer.load(trainer.checkpoint_path)
    trainer.run(1, until_step=until_step)
    return trainer


def failure(fabric: Fabric) -> str:
    """What each process hears of an error of the first."""

    def fail() -> None:
        raise InputError("the disk is full")

    try:
        first_does(fabric, fail)
    except InputError as error:
        return str(error)
    return ""


def known_of(trainer: Trainer) -> dict[str, Any]:
    """Weights, random states, and where the landmarks of the next pairs lie."""
    with trainer._feed() as feed:
        pairs = feed.next().landmarks
    network = dict(trainer.network.named_parameters())
    return {"network": network, "random": trainer._random(), "pairs": pairs}


def main(data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    whole = train(data, out / "whole", fabric, 3)
    train(data, out / "parts", fabric, 2)
    fabric.barrier()
    parts = train(data, out / "parts", fabric, 3)
    own = fabric.global_rank == 1
    known: dict[str, Any] = {
        "whole": known_of(whole),
        "parts": known_of(parts),
        "agreed": agree(fabric, own, False, True),
        "failure": failure(fabric),
    }
    torch.save(known, out / f"rank{fabric.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
