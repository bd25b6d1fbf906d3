"""Speaker and microphone on real sound devices: a private PulseAudio server whose sink goes nowhere."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avcall.audio_devices import find_device, list_devices
from avcall.clock import SystemClock
from avcall.errors import AudioDeviceError
from avcall.types import SAMPLE_RATE_HZ, Pcm
from receiver.speaker import open_speaker
from sender.microphone import open_microphone
from tests.clips import tone_level

TONE_HZ = 440
LEVEL = 8000
MAX_CHUNKS = 400  # 16 s: a fresh sink may take seconds to wake up


@pytest.fixture(scope="module")
def sound_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A PulseAudio server of the test's own, whose null sink and monitor PortAudio sees as 'pulse'."""
    sounddevice = pytest.importorskip("sounddevice", reason="needs PortAudio", exc_type=OSError)
    if shutil.which("pulseaudio") is None or shutil.which("pactl") is None:
        pytest.skip("needs pulseaudio and pulseaudio-utils")
    folder = tmp_path_factory.mktemp("pulse")
    folder.chmod(0o700)
    socket = folder / "native"
    own = {
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "PULSE_RUNTIME_PATH": str(folder / "run"),
        "PULSE_SERVER": f"unix:{socket}",
        "PULSE_SINK": "nowhere",
        "PULSE_SOURCE": "nowhere.monitor",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        with start_server(socket) as server:
            sounddevice._terminate()  # PortAudio looks for devices only when it starts
            sounddevice._initialize()
            yield
            sounddevice._terminate()
            server.terminate()
    sounddevice._initialize()


def start_server(socket: Path) -> subprocess.Popen[bytes]:
    sink = "module-null-sink sink_name=nowhere rate=48000"
    protocol = f"module-native-protocol-unix auth-anonymous=1 socket={socket}"
    options = ["-n", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm=yes", "-L", sink, "-L", protocol]
    server = subprocess.Popen(["pulseaudio", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pause = threading.Event()
    for _ in range(100):
        if (
            subprocess.run(
                ["pactl", "info"], env=dict(os.environ), capture_output=True, check=False
            ).returncode
            == 0
        ):
            return server
        pause.wait(0.1)
    server.terminate()
    server.wait()
    pytest.fail("pulseaudio did not start")


class Tone:
    """A `pull` that plays an endless tone."""

    def __init__(self) -> None:
        self._position = 0

    def __call__(self, count: int) -> Pcm:
        t = (self._position + np.arange(count)) / SAMPLE_RATE_HZ
        self._position += count
        return np.asarray(LEVEL * np.sin(2 * np.pi * TONE_HZ * t), np.int16)


@pytest.mark.usefixtures("sound_server")
def test_what_the_speaker_plays_the_microphone_hears() -> None:
    clock = SystemClock()
    speaker = open_speaker("pulse", clock)
    microphone = open_microphone("pulse", clock, clock.now_ms(), 40)
    try:
        speaker.start(Tone())
        heard, chunks = 0.0, []
        while heard < 0.8 * LEVEL and len(chunks) < MAX_CHUNKS:
            chunk = microphone.read()
            assert chunk is not None
            assert chunk.pcm.shape == (640,)
            chunks.append(chunk)
            heard = tone_level(chunk.pcm, TONE_HZ)
        assert heard == pytest.approx(LEVEL, rel=0.2)
        steps = np.diff([chunk.pts_ms for chunk in chunks])
        assert (steps > 0).all()
        assert (steps % 40 == 0).all()
        assert 0 < speaker.latency_ms < 2000
        assert speaker.description == microphone.description == "pulse"
    finally:
        speaker.close()
        microphone.close()
    assert microphone.read() is None


@pytest.mark.usefixtures("sound_server")
def test_close_ends_a_blocked_read() -> None:
    clock = SystemClock()
    microphone = open_microphone("pulse", clock, clock.now_ms() + 1e9, 40)  # nothing is due for days
    threading.Timer(0.1, microphone.close).start()
    assert microphone.read() is None


@pytest.mark.usefixtures("sound_server")
def test_devices_are_found_by_index_name_and_part_of_a_name() -> None:
    devices = list_devices("output")
    pulse = find_device("pulse", "output")
    assert pulse in devices
    assert find_device(str(pulse.index), "output") == pulse
    assert find_device("PUL", "output") == pulse
    assert find_device("default", "output") in devices


@pytest.mark.usefixtures("sound_server")
def test_an_unknown_device_lists_those_there_are() -> None:
    with pytest.raises(AudioDeviceError, match=r"'no such thing' is no microphone; choose from.*pulse"):
        open_microphone("no such thing", SystemClock(), 0.0, 40)
    with pytest.raises(AudioDeviceError, match=r"'no such thing' is no speaker; choose from.*pulse"):
        open_speaker("no such thing", SystemClock())


@pytest.mark.usefixtures("sound_server")
def test_a_speaker_that_is_gone_before_it_starts_is_one_line() -> None:
    speaker = open_speaker("pulse", SystemClock())
    speaker.close()
    with pytest.raises(AudioDeviceError, match=r"speaker 'pulse' cannot be opened .*try 'default' or 'none'"):
        speaker.start(lambda count: np.zeros(count, np.int16))
