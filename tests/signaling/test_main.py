"""python -m signaling: alone, with nothing of avcall that is heavy, and with errors of one line."""

import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from signaling.__main__ import main

HEAVY = ("aiortc", "av", "cv2", "mediapipe", "numpy", "onnxruntime", "torch")


def test_the_package_imports_nothing_heavy() -> None:
    script = f"import sys, signaling.__main__; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_serves_until_it_is_told_to_stop() -> None:
    command = [sys.executable, "-m", "signaling", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = re.search(r"http://\S+:\d+", process.stderr.readline())
        assert url is not None
        with urllib.request.urlopen(url.group() + "/health", timeout=10) as response:
            assert response.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--listen", "nowhere"], "--listen"),
        (["--max-rooms", "0"], "at least 1"),
        (["--room-lifetime", "0"], "lifetime"),
        (["--turn-credentials"], "TURN_SECRET"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TURN_SECRET", raising=False)
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert named in lines[0]


def test_turn_credentials_come_as_options_to_paste(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURN_SECRET", "north")
    assert main(["--turn-credentials", "--turn-lifetime", "60"]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"--turn-user \d+:avcall --turn-password [A-Za-z0-9+/]{27}=\n", out)
    assert "north" not in out
