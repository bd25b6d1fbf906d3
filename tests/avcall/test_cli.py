"""The command line by itself: help, what it imports, how it fails."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from avcall.cli import app

COMMANDS = ("receive", "send", "demo", "doctor", "signal", "prepare", "train", "export", "evaluate", "bench")
WIDTH = {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_in_80_columns(command: str) -> None:
    result = CliRunner(env=WIDTH).invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"avcall {command}" in result.output or "Usage" in result.output
    assert max(len(line) for line in result.output.splitlines()) <= 80


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("receive", ("--listen", "--display", "--speaker", "--record", "--token", "--stun", "--turn")),
        ("send", ("--camera", "--peer", "--mic", "--source", "--device", "--motion", "--tick-ms", "--loop")),
        ("demo", ("--camera", "--out", "--seconds")),
    ],
)
def test_the_promised_options_are_there(command: str, options: tuple[str, ...]) -> None:
    output = CliRunner(env=WIDTH).invoke(app, [command, "--help"]).output
    for option in options:
        assert option in output


def test_an_unknown_command_is_named() -> None:
    result = CliRunner(env=WIDTH).invoke(app, ["recieve"])
    assert result.exit_code == 2
    assert "recieve" in result.output


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, avcall.cli; heavy = {'cv2', 'mediapipe', 'onnxruntime', 'torch', 'aiortc', 'av'} "
        "& set(sys.modules); print(sorted(heavy))"
    )
    assert run_python(code).stdout.strip() == "[]"


def test_a_call_loads_no_torch() -> None:
    code = "import sys, avcall.call, avcall.demo; print('torch' in sys.modules, 'onnx' in sys.modules)"
    assert run_python(code).stdout.strip() == "False False"


def test_training_without_its_extra_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['lightning_fabric'] = None; "
        "sys.argv = ['avcall', 'train', '--data', 'x', '--out', 'y']; from avcall.cli import main; main()"
    )
    done = run_python(code)
    assert done.returncode == 2
    assert done.stderr == (
        "avcall: this command needs lightning_fabric; install it with: pip install 'avcall[train]'\n"
    )
