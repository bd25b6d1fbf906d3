"""Small video and sound files that tests make for themselves, and a wait that only moves a clock."""

import threading
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avcall.clock import Clock, ManualClock
from avcall.types import SAMPLE_RATE_HZ, Pcm

GREY_STEP = 5  # picture k of a clip is grey of level 20 + 5 k, up to 40 pictures


def virtual_wait(clock: Clock, due_ms: float, stop: threading.Event) -> bool:
    """In place of `wait_until`: the ManualClock jumps to `due_ms` at once."""
    assert isinstance(clock, ManualClock)
    clock.advance(max(0.0, due_ms - clock.now_ms()))
    return not stop.is_set()


def tone(hz: float, duration_ms: int, level: float = 8000.0) -> Pcm:
    """A sine of `duration_ms` at 16 kHz, (samples,) int16."""
    t = np.arange(duration_ms * SAMPLE_RATE_HZ // 1000) / SAMPLE_RATE_HZ
    return np.asarray(level * np.sin(2 * np.pi * hz * t), dtype=np.int16)


def tone_level(pcm: Pcm, hz: float) -> float:
    """Amplitude of the component at `hz`."""
    t = np.arange(len(pcm)) / SAMPLE_RATE_HZ
    return float(2 * abs(np.mean(pcm * np.exp(-2j * np.pi * hz * t))))


def grey_index(rgb: np.ndarray) -> int:
    """Which picture of a clip this is, from its grey level."""
    return round((float(rgb.mean()) - 20) / GREY_STEP)


def write_wav(path: Path, pcm: Pcm) -> Path:
    """A 16 kHz mono WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(pcm.tobytes())
    return path


def write_clip(
    path: Path,
    pts_ms: Sequence[int],
    sound: Pcm | None = None,
    *,
    sound_start_ms: int = 0,
    size_px: tuple[int, int] = (64, 48),
) -> Path:
    """A lossless-looking clip (width, height) with picture k at `pts_ms[k]`, and perhaps sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "1", "bf": "0"})
        video.width, video.height = size_px
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = (
            None if sound is None else container.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono")
        )
        for index, pts in enumerate(pts_ms):
            grey = np.full((size_px[1], size_px[0], 3), 20 + GREY_STEP * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            block = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="s16", layout="mono")
            block.sample_rate = SAMPLE_RATE_HZ
            block.pts, block.time_base = sound_start_ms * 16, Fraction(1, SAMPLE_RATE_HZ)
            container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path
