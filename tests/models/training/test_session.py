"""One `avcall train`: where it begins, and what is told before anything is started."""

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from typer.testing import CliRunner

from avcall.cli import app
from avcall.errors import InputError, WeightsError
from models.config import PRESETS
from models.discriminator import DiscriminatorConfig
from models.training.checkpoint import write_checkpoint
from models.training.session import Session, beginning, launch
from models.training.settings import TrainConfig
from tests.models.tiny import TINY_LIVE, random_network, write_prepared

CONFIG = TrainConfig(
    batch=2, sizes=((64, 0),), discriminator=DiscriminatorConfig(width=4, levels=3, max_width=8)
)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setitem(PRESETS, "live", TINY_LIVE)
    (tmp_path / "data").mkdir()
    write_prepared(tmp_path / "data" / "a.npz")
    return Session("live", ("audio",), CONFIG, tmp_path / "data", tmp_path / "run")


def test_a_run_ends_and_goes_on(session: Session) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    session.check(resume=False)
    assert session.run(fabric, 1, 1, resume=False, start=None)
    with pytest.raises(InputError, match="holds a run already; add --resume"):
        session.check(resume=False)
    session.check(resume=True)
    assert session.run(fabric, 1, 2, resume=True, start=None)
    state = torch.load(session.out / "checkpoint.pt", weights_only=True)
    assert (state["step"], state["model"]["audio_prior"]) == (2, False)


def test_an_interrupted_run_says_how_it_goes_on(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    session.run(fabric, 1, 1, resume=False, start=None)
    capsys.readouterr()

    def interrupted(self: object, *_: object, **__: object) -> None:
        self.interrupted = True  # type: ignore[attr-defined]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.training.session.Trainer.run", interrupted)
        assert not session.run(fabric, 1, 2, resume=True, start=None)
    assert capsys.readouterr().out == (
        "stopped and saved at step 1; the same command with --resume goes on\n"
    )


def test_a_run_may_begin_with_the_average_of_another(tmp_path: Path) -> None:
    network = random_network(TINY_LIVE, seed=3)
    path = tmp_path / "best.pt"
    write_checkpoint({"model": TINY_LIVE.to_dict(), "ema": network.state_dict()}, path)
    begun = beginning(path)
    assert begun.config == TINY_LIVE
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in begun.state_dict().items())
    with pytest.raises(WeightsError, match="not a weights file"):
        beginning(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(("accelerator", "precision"), [("tpu", "32-true"), ("cpu", "bf17")])
def test_a_device_that_is_not_there_is_one_line(accelerator: str, precision: str) -> None:
    with pytest.raises(InputError, match="does not go here: ") as caught:
        launch(accelerator, 1, precision)
    assert "\n" not in str(caught.value)


def test_mixed_precision_needs_a_gpu() -> None:
    with pytest.raises(InputError, match=r"bf16-mixed needs a GPU.*use --precision 32-true"):
        launch("cpu", 1, "bf16-mixed")


@pytest.mark.parametrize("workers", ["-1", "257", "many"])
def test_workers_are_a_number_in_their_range(tmp_path: Path, workers: str) -> None:
    command = ["train", "--data", "x", "--out", str(tmp_path / "run"), "--workers", workers]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2 and "--workers" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--preset", "huge"), "--preset huge is none; choose one of paper, live"),
        (("--without", "audio,eyes"), "--without eyes is none"),
        (("--decay-from", "5"), "--decay-from and --decay-to go together"),
    ],
)
def test_options_are_checked_before_anything_is_started(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = CliRunner().invoke(app, ["train", "--data", "x", "--out", str(tmp_path / "run"), *options])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert not (tmp_path / "run").exists()
