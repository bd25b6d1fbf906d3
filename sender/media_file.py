"""What the camera and the microphone share when they play a file: opening it and decoding one stream."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import av
import av.container
import av.error
import av.stream

from avcall.errors import AudioDeviceError, CameraError
from avcall.types import FRAME_MS

MAX_SIDE_PX = 4096  # a wider or higher picture is refused before it is decoded

FrameT = TypeVar("FrameT", av.VideoFrame, av.AudioFrame)
StreamT = TypeVar("StreamT", av.VideoStream, av.AudioStream)
MediaError = type[CameraError] | type[AudioDeviceError]


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A video file at a glance. `duration_ms` is a whole number of 40 ms frames, at least one."""

    width_px: int
    height_px: int
    duration_ms: int
    has_audio: bool


def open_media(path: Path, error: MediaError) -> av.container.InputContainer:
    """Open `path` for reading; raises `error` in one line when that cannot be done."""
    if not path.is_file():
        raise error(f"no such file: {path}; check the path")
    try:
        # Absolute, so that a colon in a file name is not taken for a protocol.
        return av.open(str(path.absolute()), metadata_errors="ignore")
    except (av.error.FFmpegError, OSError) as cause:
        reason = cause.strerror or type(cause).__name__
        raise error(f"{path} cannot be read ({reason}); give a file that ffmpeg plays") from cause


def video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The first moving picture of a file; raises CameraError when there is none or it is too large."""
    cover_art = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover_art]
    if not streams:
        raise CameraError(f"{path} holds no video; give a video file or a camera index")
    stream = streams[0]
    check_size(stream.codec_context.width, stream.codec_context.height, path)
    return stream


def check_size(width_px: int, height_px: int, path: Path) -> None:
    """Raise CameraError when a picture is empty or larger than `MAX_SIDE_PX` on a side."""
    if not (0 < width_px <= MAX_SIDE_PX and 0 < height_px <= MAX_SIDE_PX):
        raise CameraError(
            f"{path} is {width_px}x{height_px}; the limit is {MAX_SIDE_PX} pixels a side: scale it down first"
        )


def first_picture_s(path: Path) -> float | None:
    """The time of a file's first picture on the file's own clock; None when it has no picture.

    Decoded, not looked up: the start that Matroska names is that of the file, not of the stream.
    """
    with open_media(path, CameraError) as container:
        try:
            stream = video_stream(container, path)
        except CameraError:
            return None
        first = next(decode_video(container, stream), None)
        return None if first is None else first.time


def decode_video(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Every picture that decodes; damaged packets are passed over, and a damaged tail is the end."""
    for frame in _decode(container, stream):
        if isinstance(frame, av.VideoFrame):
            yield frame


def decode_audio(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    """Every block of sound that decodes; damaged packets are passed over."""
    for frame in _decode(container, stream):
        if isinstance(frame, av.AudioFrame):
            yield frame


def _decode(
    container: av.container.InputContainer, stream: av.VideoStream | av.AudioStream
) -> Iterator[object]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue
        yield from frames


def probe_video(path: Path | str) -> VideoInfo:
    """Size, length and sound of a video file, without decoding it. Raises CameraError."""
    path = Path(path)
    with open_media(path, CameraError) as container:
        stream = video_stream(container, path)
        duration_s = 0.0
        if stream.duration is not None and stream.time_base is not None:
            duration_s = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            duration_s = container.duration / av.time_base
        return VideoInfo(
            width_px=stream.codec_context.width,
            height_px=stream.codec_context.height,
            duration_ms=max(1, round(duration_s * 1000 / FRAME_MS)) * FRAME_MS,
            has_audio=bool(container.streams.audio),
        )
