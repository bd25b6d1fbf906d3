"""Runs: what is saved, and that a resumed run is the uninterrupted one."""

import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from avcall.errors import AvcallError, InputError, WeightsError
from models.config import ModelConfig
from models.discriminator import DiscriminatorConfig
from models.training import trainer as module
from models.training.checkpoint import averaged_network, read_checkpoint
from models.training.settings import TrainConfig
from models.training.step import Whole
from models.training.trainer import Trainer
from tests.models.tiny import TINY_LIVE, pictures, random_network, write_prepared

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


def make(
    data: Path,
    out: Path,
    config: TrainConfig = CONFIG,
    model: ModelConfig = TINY_LIVE,
    validate: Path | None = None,
) -> Trainer:
    return Trainer(model, config, data, out, Fabric(accelerator="cpu", devices=1), validate)


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


@pytest.mark.parametrize(("stops", "workers"), [((3,), 2), ((4,), 0), ((1, 5), 1)], ids=str)
def test_a_resumed_run_is_the_uninterrupted_one(
    data: Path, tmp_path: Path, stops: tuple[int, ...], workers: int
) -> None:
    whole = make(data, tmp_path / "whole")
    whole.run(1, until_step=6)
    for stop in (*stops, 6):
        part = make(data, tmp_path / "parts", dataclasses.replace(CONFIG, workers=workers))
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


def test_a_checkpoint_with_a_state_of_the_sampler_loads(data: Path, tmp_path: Path) -> None:
    make(data, tmp_path / "run", PLAIN).run(1, until_step=1)
    trainer = make(data, tmp_path / "run", PLAIN)
    state = torch.load(trainer.checkpoint_path, weights_only=True)
    state["random"]["sampler"] = (64, '{"bit_generator": "PCG64"}')
    torch.save(state, trainer.checkpoint_path)
    trainer.load(trainer.checkpoint_path)
    trainer.run(1, until_step=2)
    assert trainer.step == 2


def test_a_run_does_not_lose_its_discriminator_unawares(data: Path, tmp_path: Path) -> None:
    make(data, tmp_path / "run").save()
    plain = make(data, tmp_path / "run", PLAIN)
    with pytest.raises(InputError, match="add --adversarial-from"):
        plain.load(plain.checkpoint_path)


def test_the_best_weights_are_kept_and_can_be_used(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VALIDATE_EVERY", 2)
    trainer = make(data, tmp_path / "run", PLAIN, validate=data)
    scores, states = iter([20.0, 25.0, 24.0]), []

    def psnr(_network: object, weights: dict[str, torch.Tensor]) -> float:
        states.append({k: v.clone() for k, v in weights.items()})
        return next(scores)

    monkeypatch.setattr(trainer.validation, "psnr", psnr)
    trainer.run(1, until_step=5)  # scored at 2, at 4, and at its end
    best = read_checkpoint(tmp_path / "run" / "best.pt")
    assert (best["step"], best["psnr"]) == (4, 25.0)
    assert_same(best["ema"], states[1])
    assert_same(averaged_network(tmp_path / "run" / "best.pt").state_dict(), states[1])
    resumed = make(data, tmp_path / "run", PLAIN, validate=data)
    resumed.load(resumed.checkpoint_path)
    assert resumed.best_psnr == 25.0
    with pytest.raises(WeightsError, match="averaged weights alone"):
        resumed.load(tmp_path / "run" / "best.pt")


def test_validation_leaves_no_trace_in_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VALIDATE_EVERY", 1)
    states = []
    for name, validate in (("with", data), ("without", None)):
        trainer = make(data, tmp_path / name, validate=validate)
        trainer.run(1, until_step=3)
        states.append(read(trainer))
        del states[-1]["best_psnr"]
        assert (tmp_path / name / "best.pt").exists() == (validate is not None)
    assert_same(*states)


def test_an_interrupted_run_saves_the_step_at_hand(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(data, tmp_path / "run", PLAIN)
    step = Trainer._one_step

    def interrupted(self: Trainer, batch: Any) -> Any:
        if self.step == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_one_step", interrupted)
    trainer.run(1, until_step=5)
    assert (trainer.step, trainer.interrupted) == (2, True)
    assert read_checkpoint(trainer.checkpoint_path)["step"] == 2


@pytest.mark.parametrize("name", ["flow", None], ids=str)
def test_a_loss_that_is_no_number_stops_the_run_unsaved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    trainer = make(data, tmp_path / "run", PLAIN)
    trainer.run(1, until_step=1)
    before = {k: v.clone() for k, v in trainer.network.named_parameters()}
    forward = trainer.step_module.forward

    def broken(*arguments: Any) -> Any:
        total, parts, picture = forward(*arguments)
        if name is None:
            return total * torch.inf, parts, picture
        return total, parts | {name: parts[name] * torch.nan}, picture

    if name is not None:
        monkeypatch.setattr(trainer.fabric, "clip_gradients", lambda *_, **__: torch.tensor(torch.nan))
    monkeypatch.setattr(trainer, "step_module", broken)
    with (
        trainer._feed() as feed,
        pytest.raises(AvcallError, match=r"at step 1, which was not saved; .*--resume") as caught,
    ):
        trainer._timed_step(feed)
    assert ("'flow'" if name else "the gradient is") in str(caught.value)
    assert_same(dict(trainer.network.named_parameters()), before)
    assert read_checkpoint(trainer.checkpoint_path)["step"] == 1


@pytest.fixture
def no_mkldnn() -> Iterator[None]:
    """Its convolutions in bfloat16 read beyond narrow pictures (pytorch issue 163347)."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.usefixtures("no_mkldnn")
def test_mixed_precision_trains(data: Path, tmp_path: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    trainer = Trainer(TINY_LIVE, CONFIG, data, tmp_path / "run", fabric, data)
    trainer.run(1, until_step=4)
    assert trainer.step == 4
    assert {value.dtype for value in trainer.network.parameters()} == {torch.float32}
    assert trainer.best_psnr > 5


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.usefixtures("no_mkldnn")
def test_mixed_precision_leaves_positions_alone(data: Path, tmp_path: Path) -> None:
    found = []
    for precision in ("32-true", "bf16-mixed"):
        fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
        trainer = Trainer(TINY_LIVE, PLAIN, data, tmp_path / precision, fabric)
        batch = trainer._feed().next().floats()
        _, parts, picture = trainer.step_module(Whole(batch), 0)
        found.append((parts, picture))
    (exact, _), (rounded, picture) = found
    for name in ("flow", "optical", "tracked", "anchor", "equivariance_value"):
        assert rounded[name].item() == pytest.approx(exact[name].item(), rel=1e-4), name
    assert picture.generated.requires_grad and not torch.equal(picture.generated, found[0][1].generated)


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


def test_a_run_may_begin_with_weights_without_the_enlarger(data: Path, tmp_path: Path) -> None:
    generator = dataclasses.replace(TINY_LIVE.generator, enlarger_width=0)
    smaller = random_network(dataclasses.replace(TINY_LIVE, generator=generator), seed=5)
    trainer = make(data, tmp_path / "run")
    fresh = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    trainer.start_from(smaller)
    begun, known = trainer.network.state_dict(), smaller.state_dict()
    assert_same({key: begun[key] for key in known}, known)
    assert any(key.startswith("identity.enlarger") for key in begun.keys() - known.keys())
    assert_same(
        {key: begun[key] for key in begun.keys() - known.keys()},
        {k: fresh[k] for k in fresh if k not in known},
    )
    with pytest.raises(WeightsError, match="another configuration"):
        wider = dataclasses.replace(TINY_LIVE.generator, enlarger_width=8)
        trainer.start_from(random_network(dataclasses.replace(TINY_LIVE, generator=wider)))


@pytest.mark.parametrize("switch", ["audio_prior", "structural_prior", "identity_aware"])
@torch.no_grad()
def test_an_ablation_begins_with_the_whole_network_without_a_part(
    switch: str, data: Path, tmp_path: Path
) -> None:
    whole, fewer = random_network(TINY_LIVE, seed=5), dataclasses.replace(TINY_LIVE, **{switch: False})
    trainer = make(data, tmp_path / "run", model=fewer)
    trainer.start_from(whole)
    begun, known = trainer.network.eval(), whole.state_dict()
    assert set(begun.state_dict()) <= set(known)
    small, priors = pictures(1, 64), torch.zeros(1, 2, 64, 64)
    # What sees nothing of the part that is left out works as it did.
    if switch == "structural_prior":
        whole.detector.hourglass.down[0][0].weight[:, 3:] = 0
    for one, other in zip(begun.detect(small, priors), whole.detect(small, priors), strict=True):
        torch.testing.assert_close(one, other)
    if switch == "identity_aware":
        norm, mine = whole.generator.merges[0].norm1, begun.generator.merges[0].norm1
        channels, inputs = mine.norm.num_features, norm.scale_shift.in_channels
        x, condition = torch.rand(1, norm.norm.num_features, 8, 8), torch.rand(1, inputs, 8, 8)
        assert channels < x.shape[1]
        torch.testing.assert_close(mine(x[:, :channels], condition), norm(x, condition)[:, :channels])
