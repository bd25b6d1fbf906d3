"""The speech of a clip as avcall codes it: the same units for every codec, so only pictures differ."""

from collections.abc import Iterator

import numpy as np

from avcall.bench.clip import SAMPLES_PER_MS, Clip
from avcall.config import SendConfig
from avcall.types import AccessUnit, AudioChunk
from sender.speech import SpeechPath


def chunks(clip: Clip, frame_ms: int) -> Iterator[AudioChunk]:
    """The sound as a microphone hands it out; the last chunk is padded with silence."""
    size = frame_ms * SAMPLES_PER_MS
    for number, start in enumerate(range(0, len(clip.pcm), size)):
        pcm = clip.pcm[start : start + size]
        yield AudioChunk(np.pad(pcm, (0, size - len(pcm))), number * frame_ms)


def coded_speech(clip: Clip, tick_ms: int) -> list[AccessUnit]:
    """Every audio unit of the clip, as a call with that tick sends them; empty when it has no sound."""
    config = SendConfig(peer="", tick_ms=tick_ms)
    path = SpeechPath(config.audio_bitrate_bps, config.speech_frame_ms)
    return [unit for chunk in chunks(clip, config.speech_frame_ms) for unit in path.process(chunk)]
