"""Microphone: a sound device, or a file that plays as one, in chunks of 16 kHz mono.

A chunk with pts p is handed out when the clock reads origin + p + its length, as a device would.
"""

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np

from avcall.audio_devices import find_device, load_sounddevice
from avcall.clock import Clock, wait_until
from avcall.errors import AudioDeviceError
from avcall.types import SAMPLE_RATE_HZ, AudioChunk, Pcm
from sender.capture import Waiter
from sender.media_file import decode_audio, first_picture_s, open_media

SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000
GAP_MS = 40  # timestamps in a file that stray further than this are a real gap or overlap
MAX_GAP_MS = 60_000  # a longer hole is a broken timestamp, not silence to play
LATE_MS = 200.0  # a file chunk this late is skipped: playing it would only delay what follows
QUEUE_CHUNKS = 50  # between the device's thread and the reader; the oldest goes first
DEVICE_TIMEOUT_S = 10.0  # sound servers may take seconds to wake a sleeping device
DRIFT_WINDOW_CHUNKS = 25  # lateness that lasts this long is drift, not jitter
SOUND_SUFFIXES = frozenset({".wav", ".mp4", ".mkv", ".webm", ".ogg", ".opus", ".mp3", ".flac", ".m4a"})
MAX_DEVICE_LATENCY_S = 2.0  # a device that reports more reports nonsense


class Microphone(Protocol):
    """Where speech comes from."""

    @property
    def description(self) -> str:
        """What this is, for a status line."""
        ...

    def read(self) -> AudioChunk | None:
        """Block until the next chunk is complete; None when there is none any more."""
        ...

    def close(self) -> None:
        """Let go of the device or file; a blocked `read` returns None."""
        ...


def read_audio(path: Path | str, frame_ms: int) -> Iterator[AudioChunk]:
    """The sound of a file in chunks of exactly `frame_ms`, the last one padded with silence.

    In a file with video, pts 0 is its first picture. Raises AudioDeviceError when it holds no sound.
    """
    return _chunks(_read_pcm(Path(path)), frame_ms)


def _chunks(blocks: Iterable[Pcm], frame_ms: int) -> Iterator[AudioChunk]:
    """Cut blocks of any size into chunks of `frame_ms`."""
    size = frame_ms * SAMPLES_PER_MS
    pts_ms = 0
    rest = np.zeros(0, np.int16)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= size:
            yield AudioChunk(pcm=rest[:size], pts_ms=pts_ms)
            rest = rest[size:]
            pts_ms += frame_ms
    if len(rest):
        yield AudioChunk(pcm=np.pad(rest, (0, size - len(rest))), pts_ms=pts_ms)


def _read_pcm(path: Path) -> Generator[Pcm, None, None]:
    """The sound of a file without a break: gaps become silence, overlaps and what precedes pts 0 are cut."""
    with open_media(path, AudioDeviceError) as container:
        if not container.streams.audio:
            raise AudioDeviceError(f"{path} holds no sound; pass --mic none, or --mic with a sound file")
        stream = container.streams.audio[0]
        zero_s = first_picture_s(path)
        resampler = _new_resampler()
        written = 0  # samples given out
        surplus = 0  # samples to cut, because they overlap what was given out
        heard_to: float | None = None  # samples: where the file's sound has got to
        for frame in decode_audio(container, stream):
            zero_s = frame.time if zero_s is None else zero_s
            start = heard_to or 0.0
            if frame.time is not None and zero_s is not None:
                start = (frame.time - zero_s) * SAMPLE_RATE_HZ
            if heard_to is None or abs(start - heard_to) > GAP_MS * SAMPLES_PER_MS:
                for block in _drain(resampler, None):
                    yield block
                    written += len(block)
                resampler = _new_resampler()
                missing = round(start) - written
                surplus = max(0, -missing)
                if 0 < missing <= MAX_GAP_MS * SAMPLES_PER_MS:
                    yield np.zeros(missing, np.int16)
                    written += missing
            for block in _drain(resampler, frame):
                kept = block[surplus:]
                surplus -= len(block) - len(kept)
                written += len(kept)
                yield kept
            heard_to = start + frame.samples * SAMPLE_RATE_HZ / frame.sample_rate
        yield from _drain(resampler, None)


def _check_sound(path: Path) -> None:
    """Raise AudioDeviceError unless some sound of the file decodes."""
    blocks = _read_pcm(path)
    if not any(len(block) for block in blocks):
        raise AudioDeviceError(f"no sound of {path} can be decoded; give another file")
    blocks.close()


def _new_resampler() -> av.AudioResampler:
    return av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)


def _drain(resampler: av.AudioResampler, frame: av.AudioFrame | None) -> Iterator[Pcm]:
    if frame is not None:
        frame.pts = None  # the caller places the sound; the resampler must not fill gaps of its own
    for resampled in resampler.resample(frame):
        yield resampled.to_ndarray().reshape(-1).astype(np.int16, copy=False)


def _looped(path: Path, loop_ms: int | None) -> Generator[Pcm, None, None]:
    """The sound of a file for ever; each round is cut or padded to `loop_ms`, so that it meets the video."""
    while True:
        left = None if loop_ms is None else loop_ms * SAMPLES_PER_MS
        for block in _read_pcm(path):
            if left is None:
                yield block
                continue
            yield block[:left]
            left -= min(left, len(block))
            if not left:
                break
        if left:
            yield np.zeros(left, np.int16)


class FileMicrophone:
    """The sound of a file, in real time, once or over and over."""

    def __init__(
        self,
        path: Path | str,
        clock: Clock,
        origin_ms: float,
        frame_ms: int,
        *,
        loop: bool = False,
        loop_ms: int | None = None,
        wait: Waiter = wait_until,
    ) -> None:
        self._path = Path(path)
        self.description = self._path.name
        self.skipped_chunks = 0
        self._clock = clock
        self._origin_ms = origin_ms
        self._frame_ms = frame_ms
        self._wait = wait
        self._stop = threading.Event()
        self._reading = threading.Lock()
        _check_sound(self._path)
        self._blocks = _looped(self._path, loop_ms) if loop else _read_pcm(self._path)
        self._timeline = _chunks(self._blocks, frame_ms)

    def read(self) -> AudioChunk | None:
        """Block until the next chunk is complete; None at the end of a file that does not loop."""
        with self._reading:
            for chunk in self._timeline:
                due_ms = self._origin_ms + chunk.pts_ms + self._frame_ms
                if self._clock.now_ms() - due_ms > LATE_MS and not self._stop.is_set():
                    self.skipped_chunks += 1
                    continue
                return chunk if self._wait(self._clock, due_ms, self._stop) else None
            return None

    def close(self) -> None:
        """Close the file; a blocked `read` returns None."""
        self._stop.set()
        with self._reading:
            self._blocks.close()


class NoMicrophone:
    """No sound at all: `--mic none`."""

    description = "none"

    def read(self) -> AudioChunk | None:
        """None: there is no sound."""
        return None

    def close(self) -> None:
        """Nothing to let go of."""


class DeviceTimeline:
    """Pts for the chunks of a device whose clock is not ours.

    Chunks follow each other without a gap. Only when the device has been behind (or ahead) by 3/4 of a chunk
    for a second is one pts skipped (or one chunk dropped): the listener hears one concealed frame. A lower
    limit than 1/2 would swing to and fro.
    """

    def __init__(self, frame_ms: int) -> None:
        self._frame_ms = frame_ms
        self._next_ms: int | None = None
        self._excess_ms: deque[float] = deque(maxlen=DRIFT_WINDOW_CHUNKS)

    def place(self, captured_ms: float) -> int | None:
        """The pts of a chunk whose first sample was captured at `captured_ms`; None drops it."""
        if self._next_ms is None:
            if captured_ms < 0:
                return None
            self._next_ms = round(captured_ms)
        self._excess_ms.append(captured_ms - self._next_ms)
        if len(self._excess_ms) == DRIFT_WINDOW_CHUNKS:
            behind_ms, ahead_ms = min(self._excess_ms), -max(self._excess_ms)
            limit_ms = 0.75 * self._frame_ms
            if behind_ms >= limit_ms:
                self._next_ms += round(behind_ms / self._frame_ms) * self._frame_ms
                self._excess_ms.clear()
            elif ahead_ms >= limit_ms:
                self._excess_ms.clear()
                return None
        pts_ms = self._next_ms
        self._next_ms += self._frame_ms
        return pts_ms


class DeviceMicrophone:
    """A sound device through PortAudio."""

    def __init__(self, spec: str, clock: Clock, origin_ms: float, frame_ms: int) -> None:
        device = find_device(spec, "input")
        self.description = device.name
        self._clock = clock
        self._origin_ms = origin_ms
        self._frame_ms = frame_ms
        self._timeline = DeviceTimeline(frame_ms)
        self._chunks: queue.Queue[AudioChunk | None] = queue.Queue(QUEUE_CHUNKS)
        self._closed = False
        self.dropped_chunks = 0
        sounddevice = load_sounddevice()
        try:
            self._stream = sounddevice.InputStream(
                device=device.index,
                samplerate=SAMPLE_RATE_HZ,
                channels=1,
                dtype="int16",
                blocksize=frame_ms * SAMPLES_PER_MS,
                latency="low",
                callback=self._on_samples,
                finished_callback=lambda: self._put(None),
            )
            self._stream.start()
        except sounddevice.PortAudioError as cause:
            raise AudioDeviceError(
                f"microphone '{device.name}' cannot be opened ({cause.args[0]}); try 'default' or a WAV file"
            ) from cause

    def read(self) -> AudioChunk | None:
        """Block until the next chunk; None once closed. Raises AudioDeviceError when the device is gone."""
        try:
            chunk = None if self._closed else self._chunks.get(timeout=DEVICE_TIMEOUT_S)
        except queue.Empty:
            chunk = None
        if chunk is None and not self._closed:
            raise AudioDeviceError(f"microphone '{self.description}' delivers no sound; is it plugged in?")
        return chunk

    def close(self) -> None:
        """Close the device; a blocked `read` returns None."""
        self._closed = True
        self._put(None)
        self._stream.close()

    def _on_samples(self, samples: Pcm, _count: int, times: Any, _status: object) -> None:
        """PortAudio's callback, in its own thread: it must neither raise nor wait."""
        age_s = times.currentTime - times.inputBufferAdcTime
        if not (times.inputBufferAdcTime > 0 and 0 <= age_s < MAX_DEVICE_LATENCY_S):
            age_s = self._frame_ms / 1000.0
        captured_ms = self._clock.now_ms() - self._origin_ms - age_s * 1000.0
        pts_ms = self._timeline.place(captured_ms)
        if pts_ms is not None:
            self._put(AudioChunk(pcm=samples[:, 0].copy(), pts_ms=pts_ms))

    def _put(self, chunk: AudioChunk | None) -> None:
        while True:
            try:
                self._chunks.put_nowait(chunk)
                return
            except queue.Full:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        try:
            self._chunks.get_nowait()
            self.dropped_chunks += 1
        except queue.Empty:
            return


def open_microphone(
    spec: str,
    clock: Clock,
    origin_ms: float,
    frame_ms: int,
    *,
    loop: bool = False,
    duration_hint_ms: int | None = None,
) -> Microphone:
    """Open "none", a sound or video file, or a device ("default", an index, a name).

    `origin_ms` is the clock reading at pts 0. `duration_hint_ms` is the length of a looping camera file, so
    that sound and picture start over together. Raises AudioDeviceError in one line.
    """
    if spec == "none":
        return NoMicrophone()
    path = _sound_file(spec)
    if path is not None:
        return FileMicrophone(path, clock, origin_ms, frame_ms, loop=loop, loop_ms=duration_hint_ms)
    return DeviceMicrophone(spec, clock, origin_ms, frame_ms)


def check_microphone(spec: str) -> None:
    """Raise AudioDeviceError for a device or file that cannot be there, without recording from it."""
    if spec == "none":
        return
    path = _sound_file(spec)
    if path is not None:
        _check_sound(path)
    else:
        find_device(spec, "input")


def _sound_file(spec: str) -> Path | None:
    """The file that `spec` names, or None for a device. Raises AudioDeviceError for one that is not there."""
    path = Path(spec)
    if path.is_file() or (path.suffix and not spec.isdecimal() and len(path.parts) > 1):
        return path
    if path.suffix.lower() in SOUND_SUFFIXES:
        raise AudioDeviceError(f"no such file: {spec}; check the path, or pass --mic none")
    return None
