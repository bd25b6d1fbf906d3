"""Recording: H.264 and AAC in a fragmented MP4 that plays at any moment, however the program ends.

Each second of the call is a fragment of its own (ISO/IEC 14496-12 section 8.8), so a file that stops short,
by a kill or by a full disk, plays up to its last whole fragment.
"""

import contextlib
import os
import queue
import threading
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.container
import av.error
import numpy as np

from avcall.errors import RecordingError
from avcall.types import FRAME_RATE, FRAME_SIZE_PX, SAMPLE_RATE_HZ, Pcm, U8Image

SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000
VIDEO_TIME_BASE = Fraction(1, 1000)
AUDIO_BITRATE_BPS = 64_000
VIDEO_OPTIONS = {"preset": "veryfast", "tune": "zerolatency", "crf": "18"}
FRAGMENT_US = 1_000_000
CONTAINER_OPTIONS = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "frag_duration": str(FRAGMENT_US),
    "flush_packets": "1",
    "max_interleave_delta": str(FRAGMENT_US),  # one silent medium does not hold the other back
}
TOLERANCE_SAMPLES = 20 * SAMPLES_PER_MS  # sound that strays less than this from its pts is played as it comes
MAX_AUDIO_LAG_MS = 1_000  # sound that is missing for so long becomes silence, or the file would not grow
AAC_PRIMING_SAMPLES = (
    1024  # an AAC encoder starts so much before the first sample: both media move back by it
)
MAX_JUMP_MS = 10_000  # a longer leap in pts is cut out: no hour of silence because of one bad timestamp
SILENCE_SAMPLES = SAMPLE_RATE_HZ  # padding is encoded in pieces of a second
QUEUE_ITEMS = 256  # about 3 s of a call; a disk slower than that loses pieces, the call does not wait
CLOSE_TIMEOUT_S = 10.0


class Timeline:
    """Maps the pts of a call to those of a file: it starts at 0, and long leaps are cut out."""

    def __init__(self) -> None:
        self._offset_ms: int | None = None
        self._latest_ms = 0

    def place(self, pts_ms: int) -> int:
        """The time in the file for `pts_ms`; negative for what lies before the first pts seen."""
        if self._offset_ms is None:
            self._offset_ms = pts_ms
        placed_ms = pts_ms - self._offset_ms
        if abs(placed_ms - self._latest_ms) > MAX_JUMP_MS:
            self._offset_ms = pts_ms - self._latest_ms
            placed_ms = self._latest_ms
        self._latest_ms = max(self._latest_ms, placed_ms)
        return placed_ms


class Mp4Writer:
    """Writes one file, in the caller's thread: for work that is not live. `Recorder` is for calls."""

    def __init__(
        self,
        path: Path | str,
        frame_rate: int = FRAME_RATE,
        width_px: int = FRAME_SIZE_PX,
        height_px: int = FRAME_SIZE_PX,
        *,
        with_audio: bool = True,
    ) -> None:
        if width_px % 2 or height_px % 2:
            raise ValueError(f"H.264 needs even sides, not {width_px}x{height_px}")
        self._path = str(path)
        self._shape = (height_px, width_px, 3)
        self._timeline = Timeline()
        self._last_video_ms = -1
        self._audio_samples = 0  # given to the encoder, silence included
        self._open = True
        try:
            self._container = av.open(self._path, "w", format="mp4", options=CONTAINER_OPTIONS)
            self._video = _add_video(self._container, frame_rate, width_px, height_px)
            self._audio = _add_audio(self._container) if with_audio else None
            self._container.start_encoding()
        except (av.error.FFmpegError, OSError) as cause:
            raise _recording_error(self._path, cause) from cause

    def add_video(self, rgb: U8Image, pts_ms: int) -> None:
        """One picture, (height_px, width_px, 3) uint8; one that is not later than the last is left out."""
        if rgb.shape != self._shape:
            raise ValueError(f"a picture is {rgb.shape}, not {self._shape}")
        placed_ms = self._timeline.place(pts_ms)
        if not self._open or placed_ms <= self._last_video_ms:
            return
        self._last_video_ms = placed_ms
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts = placed_ms
        frame.time_base = VIDEO_TIME_BASE
        try:
            self._container.mux(self._video.encode(frame))
            self._pad_audio((placed_ms - MAX_AUDIO_LAG_MS) * SAMPLES_PER_MS)
        except (av.error.FFmpegError, OSError) as cause:
            raise self._give_up(cause) from cause

    def add_audio(self, pcm: Pcm, pts_ms: int) -> None:
        """A run of samples, (n,) int16; a gap before it becomes silence, an overlap is cut."""
        if not self._open or self._audio is None:
            return
        start = self._timeline.place(pts_ms) * SAMPLES_PER_MS
        if abs(start - self._audio_samples) <= TOLERANCE_SAMPLES:
            start = self._audio_samples
        try:
            self._pad_audio(start)
            self._encode_audio(pcm[self._audio_samples - start :])
        except (av.error.FFmpegError, OSError) as cause:
            raise self._give_up(cause) from cause

    def close(self) -> None:
        """Finish the file. Raises RecordingError when its end cannot be written; the rest still plays."""
        if not self._open:
            return
        try:
            self._container.mux(self._video.encode(None))
            if self._audio is not None:
                self._pad_audio(self._last_video_ms * SAMPLES_PER_MS)
                self._container.mux(self._audio.encode(None))
            self._open = False
            self._container.close()
        except (av.error.FFmpegError, OSError) as cause:
            raise self._give_up(cause) from cause

    def _pad_audio(self, until_samples: int) -> None:
        while self._audio is not None and (missing := until_samples - self._audio_samples) > 0:
            self._encode_audio(np.zeros(min(missing, SILENCE_SAMPLES), np.int16))

    def _encode_audio(self, pcm: Pcm) -> None:
        if not len(pcm) or self._audio is None:
            return
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.time_base = Fraction(1, SAMPLE_RATE_HZ)
        frame.pts = self._audio_samples
        self._audio_samples += len(pcm)
        self._container.mux(self._audio.encode(frame))

    def _give_up(self, cause: Exception) -> RecordingError:
        self._open = False
        whole_bytes = whole_fragments_bytes(self._path) if os.path.isfile(self._path) else None
        # Closing meets the same full disk again: the first error says it all.
        with contextlib.suppress(av.error.FFmpegError, OSError):
            self._container.close()
        if whole_bytes is not None:
            with contextlib.suppress(OSError):
                os.truncate(self._path, whole_bytes)
        return _recording_error(self._path, cause)


def whole_fragments_bytes(path: str) -> int:
    """How much of a fragmented MP4 is whole: up to its last whole box, but no `moof` without its `mdat`.

    A box is its size (4 bytes), its type (4 bytes), perhaps a long size (8 bytes), and its content
    (ISO/IEC 14496-12 section 4.2).
    """
    whole_bytes = box_start = 0
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file_bytes = os.path.getsize(path)
        while len(header := file.read(16)) >= 8:
            size_bytes = int.from_bytes(header[:4])
            if size_bytes == 1:
                size_bytes = int.from_bytes(header[8:])
            if size_bytes < 8 or box_start + size_bytes > file_bytes:
                break
            box_start += size_bytes
            if header[4:8] != b"moof":
                whole_bytes = box_start
            file.seek(box_start)
    return whole_bytes


def _add_video(
    container: av.container.OutputContainer, frame_rate: int, width_px: int, height_px: int
) -> av.VideoStream:
    stream = container.add_stream("libx264", rate=frame_rate, options=VIDEO_OPTIONS)
    stream.width = width_px
    stream.height = height_px
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = VIDEO_TIME_BASE
    stream.codec_context.gop_size = frame_rate  # a keyframe each second starts a fragment
    stream.codec_context.thread_count = 1  # the call needs the cores
    return stream


def _add_audio(container: av.container.OutputContainer) -> av.AudioStream:
    stream = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
    stream.bit_rate = AUDIO_BITRATE_BPS
    return stream


def _recording_error(path: str, cause: Exception) -> RecordingError:
    reason = getattr(cause, "strerror", None) or type(cause).__name__
    return RecordingError(f"cannot record to {path} ({reason}); free some space or choose another place")


class Recorder:
    """Records a call: `add_video` and `add_audio` return at once, and a thread of its own writes.

    When the file cannot be written any more, the next call raises RecordingError, once; the rest do nothing.
    """

    def __init__(
        self,
        path: Path | str,
        frame_rate: int = FRAME_RATE,
        width_px: int = FRAME_SIZE_PX,
        height_px: int = FRAME_SIZE_PX,
        *,
        with_audio: bool = True,
    ) -> None:
        self._writer = Mp4Writer(path, frame_rate, width_px, height_px, with_audio=with_audio)
        self._items: queue.Queue[tuple[U8Image | Pcm, int] | None] = queue.Queue(QUEUE_ITEMS)
        self._failure: RecordingError | None = None
        self._failed = False
        self._closing = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def add_video(self, rgb: U8Image, pts_ms: int) -> None:
        """One picture, (height_px, width_px, 3) uint8. Raises RecordingError once."""
        self._add(rgb, pts_ms)

    def add_audio(self, pcm: Pcm, pts_ms: int) -> None:
        """A run of samples, (n,) int16. Raises RecordingError once."""
        self._add(pcm, pts_ms)

    def close(self) -> None:
        """Write what is left and finish the file. Raises RecordingError unless that was done before."""
        if not self._closing:
            self._closing = True
            self._items.put(None)
            self._thread.join(CLOSE_TIMEOUT_S)
        self._raise_once()

    def _add(self, data: U8Image | Pcm, pts_ms: int) -> None:
        self._raise_once()
        if self._failed or self._closing:
            return
        try:
            self._items.put_nowait((data, pts_ms))
        except queue.Full:
            self.dropped += 1

    def _raise_once(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            self._guarded(item)
        self._guarded(None)

    def _guarded(self, item: tuple[U8Image | Pcm, int] | None) -> None:
        if self._failed:
            return
        try:
            if item is None:
                self._writer.close()
            elif item[0].ndim == 3:
                self._writer.add_video(cast(U8Image, item[0]), item[1])
            else:
                self._writer.add_audio(cast(Pcm, item[0]), item[1])
        except RecordingError as failure:
            self._failed = True
            self._failure = failure
