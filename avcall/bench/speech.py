"""The speech of a clip as avcall codes it: the same units for every codec, so only pictures differ."""

from collections.abc import Iterator

import numpy as np

from avcall.bench.clip import SAMPLES_PER_MS, Clip
from avcall.config import SendConfig
from avcall.types import AccessUnit, AudioChunk
from sender.speech import SpeechPath

_DEFAULTS = SendConfig(peer="")
AUDIO_BITRATE_BPS, AUDIO_FRAME_MS = _DEFAULTS.audio_bitrate_bps, _DEFAULTS.speech_frame_ms


def chunks(clip: Clip, frame_ms: int = AUDIO_FRAME_MS) -> Iterator[AudioChunk]:
    """The sound as a microphone hands it out; the last chunk is padded with silence."""
    size = frame_ms * SAMPLES_PER_MS
    for number, start in enumerate(range(0, len(clip.pcm), size)):
        pcm = clip.pcm[start : start + size]
        yield AudioChunk(np.pad(pcm, (0, size - len(pcm))), number * frame_ms)


def coded_speech(clip: Clip) -> list[AccessUnit]:
    """Every audio unit of the clip; empty when it has no sound."""
    path = SpeechPath(AUDIO_BITRATE_BPS, AUDIO_FRAME_MS)
    return [unit for chunk in chunks(clip) for unit in path.process(chunk)]
