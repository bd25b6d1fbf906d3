"""Speaker: pulls sound when it needs it, and so sets the pace of playout.

`pull(count)` is called from the speaker's own thread and returns `count` samples of 16 kHz mono, at once. The
first of them is heard `latency_ms` later.
"""

import threading
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avcall.audio_devices import find_device, load_sounddevice
from avcall.clock import Clock, wait_until
from avcall.errors import AudioDeviceError, RecordingError
from avcall.types import SAMPLE_RATE_HZ, Pcm

BLOCK_MS = 20
BLOCK_SAMPLES = BLOCK_MS * SAMPLE_RATE_HZ // 1000
MAX_BEHIND_BLOCKS = 25  # half a second: a machine that slept does not play back what it missed
LATENCY_SMOOTHING = 0.1  # weight of a new reading; single ones jump by a block
MAX_LATENCY_S = 2.0  # a device that reports more reports nonsense
JOIN_TIMEOUT_S = 2.0

Pull = Callable[[int], Pcm]
Waiter = Callable[[Clock, float, threading.Event], bool]


class Speaker(Protocol):
    """Where speech goes."""

    @property
    def description(self) -> str:
        """What this is, for a status line."""
        ...

    @property
    def latency_ms(self) -> float:
        """Time from a pull until its first sample is heard."""
        ...

    @property
    def underruns(self) -> int:
        """Blocks that were not ready in time, or that `pull` failed to deliver."""
        ...

    def start(self, pull: Pull) -> None:
        """Begin to pull."""
        ...

    def close(self) -> None:
        """Stop pulling and let go of the device or file."""
        ...


class _Source:
    """Wraps `pull`: always `count` samples, never an exception, since a callback has nobody to tell."""

    def __init__(self, pull: Pull) -> None:
        self._pull = pull
        self.failures = 0

    def take(self, count: int) -> Pcm:
        try:
            pcm = self._pull(count)
        except Exception:  # the sound must go on, and the count tells
            self.failures += 1
            return np.zeros(count, np.int16)
        return pcm if len(pcm) == count else np.pad(pcm[:count], (0, count - len(pcm[:count])))


class ClockedSpeaker:
    """No device: pulls 20 ms every 20 ms by the clock, and keeps it in a WAV file or nowhere.

    The WAV file is whole after every block, so it plays even when the program is killed.
    """

    latency_ms = 0.0

    def __init__(self, clock: Clock, path: Path | str | None = None, wait: Waiter = wait_until) -> None:
        self.description = "none" if path is None else str(path)
        self.skipped_blocks = 0
        self._clock = clock
        self._wait = wait
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._source: _Source | None = None
        self._failure: RecordingError | None = None
        self._file = None if path is None else _WavFile(path)

    @property
    def underruns(self) -> int:
        """Blocks skipped because the machine stood still, or that `pull` failed to deliver."""
        return self.skipped_blocks + (self._source.failures if self._source else 0)

    def start(self, pull: Pull) -> None:
        """Begin to pull, in a thread of its own."""
        self._source = _Source(pull)
        self._thread = threading.Thread(target=self._run, args=(self._source,), name="speaker", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. Raises RecordingError when the file could not be written."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(JOIN_TIMEOUT_S)
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except RecordingError as failure:
                self._failure = self._failure or failure
        unsaid, self._failure = self._failure, None
        if unsaid is not None:
            raise unsaid

    def _run(self, source: _Source) -> None:
        start_ms = self._clock.now_ms()
        block = 0
        while self._wait(self._clock, start_ms + block * BLOCK_MS, self._stop):
            behind = int((self._clock.now_ms() - start_ms) / BLOCK_MS) - block
            if behind > MAX_BEHIND_BLOCKS:
                self.skipped_blocks += behind
                self._write(np.zeros(behind * BLOCK_SAMPLES, np.int16))
                block += behind
            self._write(source.take(BLOCK_SAMPLES))
            block += 1

    def _write(self, pcm: Pcm) -> None:
        if self._file is None or self._failure is not None:
            return
        try:
            self._file.write(pcm)
        except RecordingError as failure:
            self._failure = failure


class _WavFile:
    """A WAV file of 16 kHz mono that is whole after every write; raises RecordingError."""

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        try:
            # Unbuffered, so that the header never promises samples that are not there.
            self._raw = open(path, "wb", buffering=0)  # noqa: SIM115 (closed with the speaker)
        except OSError as cause:
            raise self._error(cause) from cause
        self._wav = wave.open(self._raw, "wb")  # noqa: SIM115 (closed with the speaker)
        self._wav.setnchannels(1)
        self._wav.setsampwidth(2)
        self._wav.setframerate(SAMPLE_RATE_HZ)

    def write(self, pcm: Pcm) -> None:
        """Append (n,) int16."""
        try:
            self._wav.writeframes(pcm.tobytes())
        except OSError as cause:
            raise self._error(cause) from cause

    def close(self) -> None:
        """Finish the file."""
        try:
            self._wav.close()
        except OSError as cause:
            raise self._error(cause) from cause
        finally:
            self._raw.close()

    def _error(self, cause: OSError) -> RecordingError:
        return RecordingError(
            f"cannot write {self._path} ({cause.strerror}); free some space or choose another place"
        )


class DeviceSpeaker:
    """A sound device through PortAudio."""

    def __init__(self, spec: str) -> None:
        device = find_device(spec, "output")
        self.description = device.name
        self._source: _Source | None = None
        self._late_blocks = 0
        self._sounddevice = load_sounddevice()
        try:
            self._stream = self._sounddevice.OutputStream(
                device=device.index,
                samplerate=SAMPLE_RATE_HZ,
                channels=1,
                dtype="int16",
                blocksize=BLOCK_SAMPLES,
                latency="low",
                callback=self._on_demand,
            )
        except self._sounddevice.PortAudioError as cause:
            raise self._refused(cause) from cause
        self._latency_s = float(self._stream.latency)

    @property
    def latency_ms(self) -> float:
        """Time from a pull until its first sample is heard, as the device reports it."""
        return self._latency_s * 1000.0

    @property
    def underruns(self) -> int:
        """Blocks that came too late for the device, or that `pull` failed to deliver."""
        return self._late_blocks + (self._source.failures if self._source else 0)

    def start(self, pull: Pull) -> None:
        """Begin to pull, in PortAudio's thread. Raises AudioDeviceError when the device is gone."""
        self._source = _Source(pull)
        try:
            self._stream.start()
        except self._sounddevice.PortAudioError as cause:
            raise self._refused(cause) from cause

    def close(self) -> None:
        """Close the device."""
        self._stream.close()

    def _refused(self, cause: Exception) -> AudioDeviceError:
        return AudioDeviceError(
            f"speaker '{self.description}' cannot be opened ({cause.args[0]}); try 'default' or 'none'"
        )

    def _on_demand(self, out: Pcm, count: int, times: Any, status: Any) -> None:
        """PortAudio's callback: it must neither raise nor wait."""
        if status.output_underflow:
            self._late_blocks += 1
        ahead_s = times.outputBufferDacTime - times.currentTime
        if times.outputBufferDacTime > 0 and 0 <= ahead_s < MAX_LATENCY_S:
            self._latency_s += LATENCY_SMOOTHING * (ahead_s - self._latency_s)
        assert self._source is not None  # set before the stream starts
        out[:, 0] = self._source.take(count)


def open_speaker(spec: str, clock: Clock) -> Speaker:
    """Open "none", a WAV file to write, or a device ("default", an index, a name).

    Raises AudioDeviceError, which lists the devices, or RecordingError for a file that cannot be written.
    """
    if spec == "none":
        return ClockedSpeaker(clock)
    if Path(spec).suffix.lower() == ".wav":
        return ClockedSpeaker(clock, spec)
    return DeviceSpeaker(spec)
