"""Pictures at 25 a second and speech at 16 kHz, read from any video as a stream."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.error
import av.stream
import cv2
import numpy as np

from avcall.types import FRAME_RATE, FRAME_SIZE_PX, SAMPLE_RATE_HZ, Pcm, U8Image

MAX_SIDE_PX = 8192  # a wider or higher picture is refused before it is decoded
MAX_PAUSE_FRAMES = 2 * FRAME_RATE  # a picture that stands for longer means time stamps that are broken


class MediaError(Exception):
    """A video that cannot be read; the message is the reason, in a few words."""


def open_video(path: Path) -> av.container.InputContainer:
    """Open a video for reading. Raises MediaError."""
    try:
        # Absolute, so that a colon in a file name is not taken for a protocol.
        return av.open(str(path.absolute()), metadata_errors="ignore")
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(error.strerror or type(error).__name__) from None


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first moving picture. Raises MediaError when there is none or it is too large."""
    cover_art = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover_art]
    if not streams:
        raise MediaError("no video inside")
    codec = streams[0].codec_context
    if codec is None:
        raise MediaError("nothing here decodes its video")
    width, height = codec.width, codec.height
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
        raise MediaError(f"{width}x{height}; the limit is {MAX_SIDE_PX} pixels a side")
    streams[0].thread_type = "NONE"  # the workers are the parallel ones
    return streams[0]


def _upright(frame: av.VideoFrame, aspect: Fraction) -> U8Image:
    """(height, width, 3) RGB with square pixels, upright: phones store the angle to turn the picture by."""
    width = max(1, round(frame.width * aspect))
    rgb = frame.to_ndarray(format="rgb24", width=width, height=frame.height)
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90) % 4), np.uint8)


def read_frames(path: Path) -> Iterator[U8Image]:
    """Frames (height, width, 3) uint8 of a video, resampled to 25 a second by dropping and repeating.

    Raises MediaError, also in the middle: a damaged video is not used at all.
    """
    with open_video(path) as container:
        stream = video_stream(container)
        coded = (stream.codec_context.width, stream.codec_context.height)
        # What is 256x256 is a face crop already and taken as it is, whatever shape of pixels it claims.
        cropped = coded == (FRAME_SIZE_PX, FRAME_SIZE_PX)
        aspect = Fraction(1) if cropped else stream.sample_aspect_ratio or Fraction(1)
        zero_s: float | None = None
        due = 0
        try:
            for frame in container.decode(stream):
                seconds = due / FRAME_RATE if frame.time is None else frame.time
                zero_s = seconds if zero_s is None else zero_s
                last = (seconds - zero_s) * FRAME_RATE + 0.5
                if last - due > MAX_PAUSE_FRAMES:
                    raise MediaError(f"its time stamps leap by {(last - due) / FRAME_RATE:.0f} s")
                if due <= last:
                    rgb = _upright(frame, aspect)
                while due <= last:
                    yield rgb
                    due += 1
        except (av.error.FFmpegError, IndexError) as error:
            raise MediaError(str(error)) from None


def read_pictures(path: Path) -> Iterator[U8Image]:
    """Frames of a video that is a face crop already, (256, 256, 3) uint8 at 25 a second."""
    for rgb in read_frames(path):
        if rgb.shape[:2] == (FRAME_SIZE_PX, FRAME_SIZE_PX):
            yield rgb
        else:
            resized = cv2.resize(rgb, (FRAME_SIZE_PX, FRAME_SIZE_PX), interpolation=cv2.INTER_AREA)
            yield np.asarray(resized, np.uint8)


def first_picture_s(path: Path) -> float:
    """The time of a video's first picture on the file's own clock. Raises MediaError."""
    with open_video(path) as container:
        try:
            first = next(container.decode(video_stream(container)), None)
        except (av.error.FFmpegError, IndexError) as error:
            raise MediaError(str(error)) from None
    return 0.0 if first is None or first.time is None else first.time


class Speech:
    """The sound of a video as mono speech at 16 kHz, whose sample 0 belongs to the first picture.

    It is read forwards, once: what lies before the last `take` is forgotten. `present` says whether there is
    any. Raises MediaError.
    """

    def __init__(self, path: Path) -> None:
        zero_s = first_picture_s(path)
        self._container = open_video(path)
        self.present = bool(self._container.streams.audio)
        self._parts = self._decode(zero_s) if self.present else iter(())
        self._held = np.zeros(0, np.int16)
        self._start = 0  # sample of the video at which `_held` begins

    def take(self, first: int, last: int) -> Pcm:
        """Samples `first` to `last` - 1, fewer where the sound ends; `first` never goes back."""
        while self._start + len(self._held) < last:
            part = next(self._parts, None)
            if part is None:
                break
            self._held = np.concatenate([self._held, part])
            self._drop(first)
        self._drop(first)
        return self._held[: last - first].copy()

    def _drop(self, first: int) -> None:
        count = min(max(first - self._start, 0), len(self._held))
        self._held = self._held[count:]
        self._start += count

    def _decode(self, zero_s: float) -> Iterator[Pcm]:
        """Pieces of sound from the first picture on: silence before late sound, early sound left out."""
        resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ)
        early: int | None = None
        try:
            for frame in self._container.decode(audio=0):
                if early is None:
                    early = 0 if frame.time is None else round((zero_s - frame.time) * SAMPLE_RATE_HZ)
                    yield np.zeros(max(-early, 0), np.int16)
                    early = max(early, 0)
                for out in resampler.resample(frame):
                    samples = out.to_ndarray()[0].astype(np.int16, copy=False)
                    yield samples[early:]
                    early = max(early - len(samples), 0)
            yield from (out.to_ndarray()[0].astype(np.int16) for out in resampler.resample(None))
        except (av.error.FFmpegError, ValueError, IndexError) as error:
            raise MediaError(f"its sound: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()
