"""Runs: what is saved, and that a resumed run is the uninterrupted one."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from avcall.errors import InputError, WeightsError
from models.config import ModelConfig
from models.discriminator import DiscriminatorConfig
from models.training.trainer import TrainConfig, Trainer
from tests.models.tiny import TINY_LIVE, random_network, write_prepared

CONFIG = TrainConfig(
    batch=2,
    sizes=((64, 0), (128, 4)),
    adversarial_from=2,
    discriminator=DiscriminatorConfig(width=4, levels=3, max_width=8),
)
PLAIN = dataclasses.replace(CONFIG, adversarial_from=None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_prepared(folder / "a.npz", seed=1)
    write_prepared(folder / "b.npz", seed=2)
    return folder


def make(data: Path, out: Path, config: TrainConfig = CONFIG, model: ModelConfig = TINY_LIVE) -> Trainer:
    return Trainer(model, config, data, out, Fabric(accelerator="cpu", devices=1))


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Two nested states are equal, bit by bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def read(trainer: Trainer) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(trainer.checkpoint_path, weights_only=True)
    del state["seconds"]  # of wall time
    return state


@pytest.mark.parametrize("stops", [(3,), (4,), (1, 5)], ids=str)
def test_a_resumed_run_is_the_uninterrupted_one(data: Path, tmp_path: Path, stops: tuple[int, ...]) -> None:
    whole = make(data, tmp_path / "whole")
    whole.run(1, until_step=6)
    for stop in (*stops, 6):
        part = make(data, tmp_path / "parts")
        if part.checkpoint_path.exists():
            torch.rand(3)  # whatever else drew random numbers meanwhile
            part.load(part.checkpoint_path)
        part.run(1, until_step=stop)
    assert part.step == 6
    assert_same(read(whole), read(part))


def test_training_moves_network_average_and_discriminator(data: Path, tmp_path: Path) -> None:
    trainer = make(data, tmp_path / "run")
    assert trainer.adversary is not None
    weights = {
        "network": trainer.network.state_dict(),
        "ema": trainer.ema.state,
        "discriminator": trainer.adversary.discriminator.state_dict(),
    }
    before = {name: {k: v.clone() for k, v in state.items()} for name, state in weights.items()}
    trainer.run(1, until_step=2)
    assert not torch.equal(
        weights["network"]["generator.head.weight"], before["network"]["generator.head.weight"]
    )
    assert not torch.equal(weights["ema"]["generator.head.weight"], before["ema"]["generator.head.weight"])
    assert_same(weights["discriminator"], before["discriminator"])  # it joins at step 2
    trainer.run(1, until_step=3)
    head = "head.parametrizations.weight.original"
    assert not torch.equal(weights["discriminator"][head], before["discriminator"][head])


def test_a_checkpoint_without_random_state_or_adversary_loads(data: Path, tmp_path: Path) -> None:
    plain = make(data, tmp_path / "run", PLAIN)
    plain.run(1, until_step=1)
    state = torch.load(plain.checkpoint_path, weights_only=True)
    assert "adversary" not in state
    del state["random"]
    torch.save(state, plain.checkpoint_path)
    trainer = make(data, tmp_path / "run")
    trainer.load(trainer.checkpoint_path)
    assert trainer.step == 1
    trainer.run(1, until_step=3)
    assert trainer.step == 3


def test_a_damaged_checkpoint_is_one_line(data: Path, tmp_path: Path) -> None:
    trainer = make(data, tmp_path / "run", PLAIN)
    trainer.save()
    whole = trainer.checkpoint_path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        trainer.checkpoint_path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="cannot be read as a checkpoint") as caught:
            trainer.load(trainer.checkpoint_path)
        assert "\n" not in str(caught.value)


def test_a_missing_checkpoint_is_named(data: Path, tmp_path: Path) -> None:
    trainer = make(data, tmp_path / "run", PLAIN)
    with pytest.raises(WeightsError, match=r"checkpoint\.pt cannot be read"):
        trainer.load(trainer.checkpoint_path)


def test_another_format_or_configuration_is_refused(data: Path, tmp_path: Path) -> None:
    trainer = make(data, tmp_path / "run", PLAIN)
    torch.save({"format": 99}, trainer.checkpoint_path)
    with pytest.raises(WeightsError, match="another format"):
        trainer.load(trainer.checkpoint_path)
    trainer.save()
    silent = dataclasses.replace(TINY_LIVE, audio_prior=False)
    with pytest.raises(WeightsError, match="another model configuration"):
        make(data, tmp_path / "run", PLAIN, silent).load(trainer.checkpoint_path)


def test_a_full_disk_keeps_the_last_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(data, tmp_path / "run", PLAIN)
    trainer.save()
    before = trainer.checkpoint_path.read_bytes()

    def full(_state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("unexpected pos 64 vs 0\nstack")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="free some space") as caught:
        trainer.save()
    assert "\n" not in str(caught.value)
    assert trainer.checkpoint_path.read_bytes() == before
    assert sorted(p.name for p in trainer.out.glob("checkpoint*")) == ["checkpoint.pt"]


def test_a_run_may_begin_with_trained_weights(data: Path, tmp_path: Path) -> None:
    trained = random_network(TINY_LIVE, seed=5)
    trainer = make(data, tmp_path / "run")
    trainer.start_from(trained)
    assert_same(trainer.network.state_dict(), trained.state_dict())
    assert_same(trainer.ema.state, trained.state_dict())
    with pytest.raises(WeightsError, match="another configuration"):
        trainer.start_from(random_network(dataclasses.replace(TINY_LIVE, audio_prior=False)))
