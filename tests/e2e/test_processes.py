"""Two real processes over WebRTC on the loopback, started as a user starts them."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from avcall.bitstream.packet import MessageType
from avcall.demo import DemoFiles, call_processes, compose
from avcall.sample import build_sample
from avcall.transport.base import Channel
from avcall.transport.webrtc import IceConfig, WebRtcTransport
from signaling.client import post_offer

CALL_S = 4.0
TOKEN = "a-token"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sample(tmp_path_factory.mktemp("sample") / "sample.mp4", CALL_S)


class End:
    """One `avcall` process; killed at the end of a test whatever happens."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "avcall", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, timeout_s: float = 60.0) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err


@pytest.fixture
def receiver_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def receiver(receiver_port: int, tmp_path: Path) -> Iterator[End]:
    end = End(
        *("receive", "--listen", f"127.0.0.1:{receiver_port}", "--display", "none", "--speaker", "none"),
        *(
            "--token",
            TOKEN,
            "--record",
            str(tmp_path / "call.mp4"),
            "--stats",
            str(tmp_path / "receive.json"),
        ),
    )
    wait_until_listening(receiver_port)
    yield end
    end.process.kill()
    end.process.communicate()


def wait_until_listening(port: int) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("avcall receive does not listen")


def start_sender(port: int, sample: Path, *more: str, token: str = TOKEN) -> End:
    url = f"http://127.0.0.1:{port}/call"
    return End("send", "--peer", url, "--token", token, "--camera", str(sample), *more)


def decodes(path: Path) -> tuple[int, int]:
    """Pictures and seconds of sound that a file decodes to."""
    with av.open(str(path)) as container:
        pictures = sum(1 for _ in container.decode(video=0))
    with av.open(str(path)) as container:
        samples = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    return pictures, int(samples)


def wait_until_drawn(recording: Path) -> None:
    """Until a picture is in the receiver's file: however busy the machine, the call is then in progress."""
    for _ in range(600):
        with contextlib.suppress(av.error.FFmpegError, IndexError):  # its end may be half written
            if decodes(recording)[0] > 0:
                return
        time.sleep(0.1)
    raise AssertionError("no picture was drawn")


@pytest.mark.parametrize("motion", ["coded", "fp16"])
def test_a_whole_call_is_seen_and_heard(motion: str, sample: Path, tmp_path: Path) -> None:
    files = DemoFiles(tmp_path)
    options = ["--camera", str(sample), "--loop", "--seconds", f"{CALL_S:g}", "--motion", motion]
    statistics = call_processes(files, options, CALL_S, None)
    sent, received = statistics["sender"], statistics["receiver"]
    counts = sent["snapshot"]["stats"]
    if motion == "fp16":
        assert counts["motion_bytes"] == 120 * counts["motion_units"]  # the paper's 960 bits a frame
    else:
        # About half of that, deformations included; more where a busy machine sends packets of one frame.
        assert 0 < counts["motion_bytes"] < 110 * counts["motion_units"]
    assert received["snapshot"]["pictures"]["shown"] > 10  # a machine that is busy draws few
    assert 2 <= received["snapshot"]["stats"]["keyframes"] <= 4  # rough, better, and what the face asks for
    assert received["snapshot"]["stats"]["packets"]["dropped"] == {}
    assert sent["bill"]["wire_bytes"] > sent["bill"]["motion_bytes"] + sent["bill"]["audio_bytes"]
    compose(sample, files, received["recording_start_ms"])
    pictures, seconds = decodes(files["call.mp4"])
    assert pictures > 10
    assert seconds >= 2
    assert speech_is_heard(files["call.mp4"])
    assert picture_moves(files["received.mp4"])


def speech_is_heard(path: Path) -> bool:
    with av.open(str(path)) as container:
        levels = [np.abs(frame.to_ndarray()).max() for frame in container.decode(audio=0)]
    return float(np.percentile(levels, 90)) > 0.02


def picture_moves(path: Path) -> bool:
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="gray").astype(np.int16) for frame in container.decode(video=0)]
    return max(float(np.abs(p - pictures[0]).mean()) for p in pictures[1:]) > 2.0


def test_ctrl_c_at_the_sender_ends_both_cleanly(
    receiver: End, receiver_port: int, sample: Path, tmp_path: Path
) -> None:
    sender = start_sender(receiver_port, sample, "--loop", "--stats", str(tmp_path / "send.json"))
    wait_until_drawn(tmp_path / "call.mp4")
    sender.process.send_signal(signal.SIGINT)
    code, out, err = sender.finish()
    assert (code, err) == (0, "")
    assert "the call was ended on this side" in out
    code, out, err = receiver.finish()
    assert (code, err) == (0, "")
    assert "the other side ended the call" in out
    assert decodes(tmp_path / "call.mp4")[0] > 0
    assert json.loads((tmp_path / "send.json").read_text())["reason"] == "the call was ended on this side"


def test_ctrl_c_at_the_receiver_ends_both_cleanly(
    receiver: End, receiver_port: int, sample: Path, tmp_path: Path
) -> None:
    sender = start_sender(receiver_port, sample, "--loop")
    wait_until_drawn(tmp_path / "call.mp4")
    receiver.process.send_signal(signal.SIGINT)
    code, _, err = receiver.finish()
    assert (code, err) == (0, "")
    code, out, err = sender.finish()
    assert (code, err) == (0, "")
    assert "the other side ended the call" in out
    assert decodes(tmp_path / "call.mp4")[0] > 0


def test_a_wrong_token_is_refused_and_the_receiver_waits_on(
    receiver: End, receiver_port: int, sample: Path
) -> None:
    code, _, err = start_sender(receiver_port, sample, token="wrong").finish()
    assert code == 2
    assert err.count("\n") == 1
    assert "token" in err
    assert receiver.process.poll() is None


def test_a_second_caller_is_told_that_the_line_is_busy(
    receiver: End, receiver_port: int, sample: Path, tmp_path: Path
) -> None:
    first = start_sender(receiver_port, sample, "--loop")
    wait_until_drawn(tmp_path / "call.mp4")
    code, _, err = start_sender(receiver_port, sample).finish()
    assert code == 2
    assert err.count("\n") == 1
    assert "call" in err
    first.process.send_signal(signal.SIGINT)
    assert first.finish()[0] == 0


async def test_a_peer_of_another_version_is_named(receiver: End, receiver_port: int) -> None:
    transport = await WebRtcTransport.offer(IceConfig(addresses=("127.0.0.1",)))
    session = await post_offer(f"http://127.0.0.1:{receiver_port}/call", transport.local_sdp, TOKEN)
    await transport.set_answer(session.answer_sdp)
    await transport.wait_connected(10_000)
    transport.send(Channel.CONTROL, bytes([2 << 4 | MessageType.CONTROL]))
    code, _, err = await asyncio.to_thread(receiver.finish)
    await transport.close()
    assert code == 2
    assert err.count("\n") == 1
    assert "protocol version 2" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["send", "--peer", "http://127.0.0.1:9/call", "--camera", "nowhere.mp4"], "nowhere.mp4"),
        (["send", "--peer", "http://127.0.0.1:9/call", "--camera", "77"], "no camera 77"),
        (["send", "--peer", "http://127.0.0.1:9/call", "--camera", "SAMPLE"], "nobody answers"),
        (["send", "--peer", "http://127.0.0.1:9/call", "--camera", "SPEECH"], "holds no video"),
        (["send", "--peer", "x", "--camera", "SAMPLE", "--tick-ms", "50"], "--tick-ms is 50"),
        (["send", "--peer", "x", "--camera", "SAMPLE", "--source", "missing.png"], "missing.png"),
        (["receive", "--display", "none", "--speaker", "none", "--listen", "nowhere"], "HOST:PORT"),
        (
            ["receive", "--display", "none", "--speaker", "none", "--record", "no/such/dir.mp4"],
            "cannot record",
        ),
        (["receive", "--display", "none", "--speaker", "none", "--weights", "nowhere"], "no weights"),
        (["signal", "--listen", "nowhere"], "HOST:PORT"),
        (["demo", "--camera", "nowhere.mp4"], "nowhere.mp4"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    arguments: list[str], words: str, sample: Path, tmp_path: Path
) -> None:
    speech = Path(__file__).parents[2] / "avcall" / "assets" / "speech.ogg"
    named = {"SAMPLE": str(sample), "SPEECH": str(speech)}
    command = [sys.executable, "-m", "avcall", *(named.get(a, a) for a in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("avcall: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
