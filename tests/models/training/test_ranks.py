"""Several processes that train as one, and the wish to stop."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from models.training.ranks import StopRequest, agree, gather, rank_seed
from tests.models.tiny import write_prepared


def test_two_processes_train_one_network_on_different_pairs_and_resume_exactly(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    write_prepared(data / "a.npz", seed=1)
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.training.two_processes", str(data), str(out)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in first["whole"]["network"].items():
        assert torch.equal(value, second["whole"]["network"][name]), name
        assert torch.equal(value, first["parts"]["network"][name]), name
    for process in (first, second):
        for state in ("random", "pairs"):
            torch.testing.assert_close(process["whole"][state], process["parts"][state], rtol=0, atol=0)
        assert process["agreed"] == (True, False, True)
        assert process["failure"] == "the disk is full"
    for name, one in first["whole"]["random"].items():
        assert (name == "torch") == torch.equal(one, second["whole"]["random"][name])
    assert not torch.equal(first["whole"]["pairs"], second["whole"]["pairs"])
    assert sorted(p.name for p in (out / "whole").iterdir()) == ["best.pt", "checkpoint.pt", "scalars"]
    assert len(list((out / "whole" / "scalars").iterdir())) == 1
    assert done.stdout.count("validate") == 3  # the first process alone speaks


def test_one_process_decides_for_itself() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    assert agree(fabric, True, False) == (True, False)
    assert gather(fabric, "own") == ["own"]
    assert rank_seed(7, fabric) == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_asks_and_the_second_acts_as_ever(number: signal.Signals) -> None:
    seen: list[int] = []

    def outer(received: int, _frame: Any) -> None:
        seen.append(received)

    before = signal.signal(number, outer)
    try:
        with StopRequest() as request:
            assert not request.made
            signal.raise_signal(number)
            assert request.made and not seen
            signal.raise_signal(number)
            assert seen == [number]
        assert signal.getsignal(number) is outer
    finally:
        signal.signal(number, before)
