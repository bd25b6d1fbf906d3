"""What the numbers look like: strips of frames, and films side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from avcall.bench.clip import Clip
from avcall.bench.speech import chunks
from avcall.types import FRAME_MS, FRAME_SIZE_PX, U8Image
from receiver.record import Mp4Writer

MOMENTS = 6
GAP_PX = 4
JPEG_QUALITY = 88


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a strip: what it is, and (frames, 256, 256, 3)."""

    title: str
    frames: U8Image


def strip(rows: Sequence[Row], moments: int = MOMENTS) -> U8Image:
    """Rows of the same moments, evenly spread over the clip, (H, W, 3); the last row's are at the bottom."""
    count = min(len(row.frames) for row in rows)
    chosen = np.linspace(count * 0.1, count - 1, moments).round().astype(int)
    lines = [np.concatenate([row.frames[i] for i in chosen], 1) for row in rows]
    gap = np.full((GAP_PX, lines[0].shape[1], 3), 255, np.uint8)
    parts = [part for line in lines for part in (line, gap)][:-1]
    return np.concatenate(parts, 0)


def as_jpeg(rgb: U8Image) -> bytes:
    """A picture (H, W, 3) for the report."""
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    assert ok
    return data.tobytes()


def write_film(path: Path, rows: Sequence[Row], clip: Clip) -> None:
    """The rows side by side with the clip's own sound. Raises RecordingError when it cannot be written."""
    width_px = len(rows) * FRAME_SIZE_PX + (len(rows) - 1) * GAP_PX
    writer = Mp4Writer(path, width_px=width_px, height_px=FRAME_SIZE_PX)
    gap = np.full((FRAME_SIZE_PX, GAP_PX, 3), 255, np.uint8)
    sound = chunks(clip, FRAME_MS)
    try:
        for number in range(min(len(row.frames) for row in rows)):
            parts = [part for row in rows for part in (row.frames[number], gap)][:-1]
            writer.add_video(np.ascontiguousarray(np.concatenate(parts, 1)), number * FRAME_MS)
            chunk = next(sound, None)
            if chunk is not None:
                writer.add_audio(chunk.pcm, chunk.pts_ms)
    finally:
        writer.close()
