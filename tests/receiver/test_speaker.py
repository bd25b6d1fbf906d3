"""The speaker without a device; with one it is tested in tests/e2e/test_sound_devices.py."""

import threading
import wave
from pathlib import Path

import numpy as np
import pytest

from avcall.clock import Clock, ManualClock, SystemClock
from avcall.errors import AudioDeviceError, RecordingError
from avcall.types import Pcm
from receiver.speaker import BLOCK_SAMPLES, ClockedSpeaker, open_speaker
from tests.clips import tone, virtual_wait


class Script:
    """Waits in virtual time until `end_ms`, then tells the test and blocks."""

    def __init__(self, end_ms: float) -> None:
        self._end_ms = end_ms
        self.reached = threading.Event()

    def __call__(self, clock: Clock, due_ms: float, stop: threading.Event) -> bool:
        if due_ms < self._end_ms:
            return virtual_wait(clock, due_ms, stop)
        self.reached.set()
        stop.wait()
        return False


class Player:
    """A `pull` that plays a tone and remembers when it was asked."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.sound = tone(440, 10_000)
        self.asked: list[float] = []

    def __call__(self, count: int) -> Pcm:
        self.asked.append(self._clock.now_ms())
        position = (len(self.asked) - 1) * BLOCK_SAMPLES
        return self.sound[position : position + count]


def read_wav(path: Path) -> Pcm:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def test_none_pulls_every_20_ms() -> None:
    clock = ManualClock(300.0)
    script, player = Script(1300.0), Player(clock)
    speaker = ClockedSpeaker(clock, wait=script)
    speaker.start(player)
    assert script.reached.wait(5)
    speaker.close()
    assert player.asked == [300.0 + 20 * n for n in range(50)]
    assert speaker.latency_ms == 0.0
    assert speaker.underruns == 0


def test_wav_holds_what_was_pulled_even_before_it_is_closed(tmp_path: Path) -> None:
    clock = ManualClock()
    script, player = Script(1000.0), Player(clock)
    path = tmp_path / "out.wav"
    speaker = ClockedSpeaker(clock, path, wait=script)
    speaker.start(player)
    assert script.reached.wait(5)
    assert np.array_equal(read_wav(path), player.sound[:16_000])
    speaker.close()
    assert np.array_equal(read_wav(path), player.sound[:16_000])


def test_a_machine_that_slept_does_not_play_back_what_it_missed(tmp_path: Path) -> None:
    clock = ManualClock()
    script = Script(3000.0)
    path = tmp_path / "out.wav"
    pulls = 0

    def pull(count: int) -> Pcm:
        nonlocal pulls
        pulls += 1
        if pulls == 10:
            clock.advance(2000.0)
        return np.ones(count, np.int16)

    speaker = ClockedSpeaker(clock, path, wait=script)
    speaker.start(pull)
    assert script.reached.wait(5)
    speaker.close()
    assert pulls < 60
    assert speaker.underruns > 90
    assert len(read_wav(path)) == 48_000  # the file keeps time all the same


@pytest.mark.parametrize("length", [0, 100, 1000])
def test_a_pull_of_the_wrong_length_is_put_right(tmp_path: Path, length: int) -> None:
    clock = ManualClock()
    script = Script(100.0)
    path = tmp_path / "out.wav"
    speaker = ClockedSpeaker(clock, path, wait=script)
    speaker.start(lambda _count: np.ones(length, np.int16))
    assert script.reached.wait(5)
    speaker.close()
    pcm = read_wav(path)
    assert len(pcm) == 1600
    assert pcm.sum() == 5 * min(length, BLOCK_SAMPLES)


def test_a_pull_that_fails_is_silence_and_counted(tmp_path: Path) -> None:
    def pull(count: int) -> Pcm:
        raise RuntimeError("broken")

    clock = ManualClock()
    script = Script(100.0)
    path = tmp_path / "out.wav"
    speaker = ClockedSpeaker(clock, path, wait=script)
    speaker.start(pull)
    assert script.reached.wait(5)
    speaker.close()
    assert speaker.underruns == 5
    assert len(read_wav(path)) == 1600


def test_a_full_disk_is_told_once_and_the_call_goes_on() -> None:
    clock = ManualClock()
    script, player = Script(1000.0), Player(clock)
    speaker = ClockedSpeaker(clock, "/dev/full", wait=script)
    speaker.start(player)
    assert script.reached.wait(5)
    assert len(player.asked) == 50
    with pytest.raises(RecordingError, match="cannot write /dev/full"):
        speaker.close()
    speaker.close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"nowhere/out\.wav"):
        open_speaker(str(tmp_path / "nowhere" / "out.wav"), SystemClock())


def test_close_without_start(tmp_path: Path) -> None:
    speaker = open_speaker(str(tmp_path / "out.wav"), SystemClock())
    speaker.close()
    assert len(read_wav(tmp_path / "out.wav")) == 0


def test_an_unknown_device_is_told_with_what_there_is() -> None:
    with pytest.raises(AudioDeviceError, match=r"no speaker|is no speaker; choose from"):
        open_speaker("no such thing", SystemClock())
