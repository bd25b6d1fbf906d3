"""Capture: a camera, or a video file that plays as one, at 25 frames a second.

A file is resampled by its timestamps, as a camera would have seen it, and plays in real time: the picture
with pts p is handed out when the clock reads origin + p, and what is late is skipped. A live camera hands
out its latest picture.
"""

import sys
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol

import av
import cv2
import numpy as np

from avcall.clock import Clock, wait_until
from avcall.errors import CameraError
from avcall.types import FRAME_MS, FRAME_RATE, U8Image, VideoFrame
from sender.media_file import check_size, decode_video, open_media, probe_video, video_stream

CAMERA_TIMEOUT_S = 5.0  # a live camera that delivers nothing for so long is gone
MAX_FAILED_GRABS = 50  # in a row, one every 20 ms: a second of nothing
GRAB_RETRY_S = 0.02
PATIENCE_FRAMES = 25  # skip at least so many late pictures before asking whether skipping helps

Waiter = Callable[[Clock, float, threading.Event], bool]


class Camera(Protocol):
    """Where pictures come from."""

    @property
    def frame_rate(self) -> float:
        """Pictures a second that `read` hands out at most."""
        ...

    @property
    def description(self) -> str:
        """What this is, for a status line."""
        ...

    def read(self) -> VideoFrame | None:
        """Block until the next picture is due; None when there is none any more."""
        ...

    def close(self) -> None:
        """Let go of the device or file; a blocked `read` returns None."""
        ...


class VideoCapture(Protocol):
    """The part of `cv2.VideoCapture` that a live camera needs."""

    def read(self) -> tuple[bool, U8Image | None]:
        """The next picture as BGR, blocking."""
        ...

    def release(self) -> None:
        """Close the device."""
        ...


def read_video(path: Path | str) -> Iterator[VideoFrame]:
    """Every picture of a file at 25 frames a second; pts 0 is its first picture. Raises CameraError."""
    path = Path(path)
    for pts_ms, frame in _ticks(path):
        yield VideoFrame(rgb=_to_rgb(frame), pts_ms=pts_ms)


def _ticks(path: Path) -> Iterator[tuple[int, av.VideoFrame]]:
    """One decoded picture for each 40 ms tick: the latest whose time, rounded to a tick, has come."""
    with open_media(path, CameraError) as container:
        stream = video_stream(container, path)
        zero_s: float | None = None
        held: av.VideoFrame | None = None
        tick = 0
        for frame in decode_video(container, stream):
            check_size(frame.width, frame.height, path)
            zero_s = frame.time if zero_s is None else zero_s
            if frame.time is None or zero_s is None:  # raw streams carry no time: a picture for each tick
                frame_tick = tick + (held is not None)
            else:
                frame_tick = int((frame.time - zero_s) * FRAME_RATE + 0.5)
            while held is not None and tick < frame_tick:
                yield tick * FRAME_MS, held
                tick += 1
            held = frame
        if held is None:
            raise CameraError(f"no picture of {path} can be decoded; give another file")
        yield tick * FRAME_MS, held


def _to_rgb(frame: av.VideoFrame) -> U8Image:
    """(height, width, 3) RGB, upright: phones store the sensor's picture and the angle to turn it by."""
    rgb = frame.to_ndarray(format="rgb24")
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns), dtype=np.uint8)


class FileCamera:
    """A video file that plays in real time, once or over and over.

    `duration_ms` is the length of one round; with `loop`, round n begins at exactly n * `duration_ms`.
    """

    frame_rate = float(FRAME_RATE)

    def __init__(
        self, path: Path | str, clock: Clock, origin_ms: float, loop: bool = False, wait: Waiter = wait_until
    ) -> None:
        self._path = Path(path)
        info = probe_video(self._path)
        self.duration_ms = info.duration_ms
        self.has_audio = info.has_audio
        self.description = f"{self._path.name} ({info.width_px}x{info.height_px})"
        self.skipped_frames = 0
        self._clock = clock
        self._origin_ms = origin_ms
        self._loop = loop
        self._wait = wait
        self._stop = threading.Event()
        self._reading = threading.Lock()
        self._timeline = self._play()

    def read(self) -> VideoFrame | None:
        """Block until the next picture is due; None at the end of a file that does not loop."""
        with self._reading:
            first_lag_ms: float | None = None
            skipped = 0
            for pts_ms, frame in self._timeline:
                due_ms = self._origin_ms + pts_ms
                lag_ms = self._clock.now_ms() - due_ms
                first_lag_ms = lag_ms if first_lag_ms is None else first_lag_ms
                # Where the machine decodes slower than real time, skipping would never end.
                helps = skipped < PATIENCE_FRAMES or lag_ms < first_lag_ms
                if lag_ms > FRAME_MS and helps and not self._stop.is_set():
                    skipped += 1
                    continue
                self.skipped_frames += skipped
                if not self._wait(self._clock, due_ms, self._stop):
                    return None
                return VideoFrame(rgb=_to_rgb(frame), pts_ms=pts_ms)
            return None

    def close(self) -> None:
        """Close the file; a blocked `read` returns None."""
        self._stop.set()
        with self._reading:
            self._timeline.close()

    def _play(self) -> Generator[tuple[int, av.VideoFrame], None, None]:
        round_start_ms = 0
        while True:
            for pts_ms, frame in _ticks(self._path):
                if self._loop and pts_ms >= self.duration_ms:
                    break
                yield round_start_ms + pts_ms, frame
            if not self._loop:
                return
            round_start_ms += self.duration_ms


class LiveCamera:
    """A camera device: a thread grabs, and `read` gives the latest picture, 25 a second at most."""

    frame_rate = float(FRAME_RATE)

    def __init__(self, capture: VideoCapture, description: str, clock: Clock, origin_ms: float) -> None:
        self.description = description
        self._capture = capture
        self._clock = clock
        self._origin_ms = origin_ms
        self._changed = threading.Condition()
        self._latest: tuple[U8Image, int] | None = None  # BGR, pts
        self._last_tick = -1
        self._stopped = False
        self._failed = False
        self._thread = threading.Thread(target=self._grab, name="camera", daemon=True)
        self._thread.start()

    def read(self) -> VideoFrame | None:
        """Block until a picture of a new 40 ms tick; None once closed. Raises CameraError when it is gone."""
        with self._changed:
            arrived = self._changed.wait_for(
                lambda: self._stopped or self._failed or self._latest is not None, CAMERA_TIMEOUT_S
            )
            if self._stopped:
                return None
            if self._latest is None or not arrived:
                raise CameraError(f"{self.description} delivers no pictures; is it plugged in and free?")
            bgr, pts_ms = self._latest
            self._latest = None
            self._last_tick = pts_ms // FRAME_MS
        rgb = np.ascontiguousarray(bgr[..., ::-1])
        return VideoFrame(rgb=rgb, pts_ms=pts_ms)

    def close(self) -> None:
        """Release the device; a blocked `read` returns None."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(CAMERA_TIMEOUT_S)

    def _grab(self) -> None:
        failures = 0
        while not self._stopped and failures < MAX_FAILED_GRABS:
            ok, bgr = self._capture.read()
            pts_ms = int(self._clock.now_ms() - self._origin_ms)
            with self._changed:
                if not ok or bgr is None:
                    failures += 1
                    self._changed.wait(GRAB_RETRY_S)
                    continue
                failures = 0
                # A camera of 30 fps is thinned here: one picture for each 40 ms tick.
                if pts_ms >= 0 and pts_ms // FRAME_MS > self._last_tick:
                    self._latest = (bgr, pts_ms)
                    self._changed.notify_all()
        with self._changed:
            self._failed = True
            self._changed.notify_all()
        self._capture.release()


def list_cameras() -> list[str]:
    """Paths of the video devices of this machine (Linux; elsewhere empty)."""
    return sorted(str(path) for path in Path("/dev").glob("video*"))


def open_camera(spec: str, clock: Clock, origin_ms: float, loop: bool = False) -> Camera:
    """Open a camera index ("0"), a device path ("/dev/video0") or a video file.

    `origin_ms` is the clock reading at pts 0. Raises CameraError in one line.
    """
    check_camera(spec)
    if is_device(spec):
        return _open_live(spec, clock, origin_ms)
    return FileCamera(spec, clock, origin_ms, loop)


def check_camera(spec: str) -> None:
    """Raise CameraError for a camera or file that cannot be there, without opening a device."""
    if not is_device(spec):
        if not Path(spec).is_file():
            raise CameraError(f"no such camera or file: {spec}; give an index such as 0, or a video file")
        probe_video(spec)
        return
    device = f"/dev/video{spec}" if spec.isdecimal() else spec
    if sys.platform == "linux" and not Path(device).exists():
        have = ", ".join(list_cameras()) or "none"
        raise CameraError(f"no camera {spec} (this machine has: {have}); give another, or a video file")


def is_device(spec: str) -> bool:
    """Whether `spec` names a camera, not a file."""
    return spec.isdecimal() or spec.startswith("/dev/")


def _open_live(spec: str, clock: Clock, origin_ms: float) -> LiveCamera:
    cv2.setLogLevel(2)  # errors only: what goes wrong is said here, in one line
    capture = cv2.VideoCapture(int(spec) if spec.isdecimal() else spec)
    if not capture.isOpened():
        raise CameraError(f"camera {spec} cannot be opened; is another program using it?")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a queue in the driver is delay
    width_px = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    height_px = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    try:
        check_size(width_px, height_px, Path(f"camera {spec}"))
    except CameraError:
        capture.release()
        raise
    return LiveCamera(capture, f"camera {spec} ({width_px}x{height_px})", clock, origin_ms)
