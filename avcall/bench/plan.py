"""What a run measures: its settings, and which codecs at which settings that means."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from avcall.bench.call_codec import CallCodec, CallSetting
from avcall.bench.codec import Codec
from avcall.bench.ffmpeg import FFmpeg, find_ffmpeg
from avcall.bench.still import StillCodecRow
from avcall.bench.video_codecs import ANCHORS, PRESETS, Anchor, VideoCodec
from avcall.config import MOTION_MODES, SendConfig
from avcall.errors import ConfigError, InputError
from avcall.types import FaceCrop
from models.runtime import ModelRuntime

CODECS = ("avcall", *ANCHORS)
_DEFAULTS = SendConfig(peer="")
# Of the pictures of keyframes: the curve of a motion mode.
KEYFRAME_SIZES = tuple(_DEFAULTS.keyframe_bytes * share // 2 for share in (1, 2, 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """Everything that a user sets. Raises ConfigError for a value out of range."""

    clips: tuple[Path, ...]
    out: Path
    codecs: tuple[str, ...] = CODECS
    seconds: float | None = None
    source: Path | None = None
    inception: Path | None = None
    syncnet: Path | None = None
    weights: Path | None = None
    preset: str = "medium"
    tick_ms: int = _DEFAULTS.tick_ms
    every: int = 10
    jobs: int = 0  # 0: one for each core
    motion_modes: tuple[str, ...] = field(default=MOTION_MODES)

    def __post_init__(self) -> None:
        for codec in self.codecs:
            if codec not in CODECS:
                raise ConfigError(f"--codecs {codec} is unknown; choose from {', '.join(CODECS)}")
        if not self.clips:
            raise ConfigError("no clip to compare on; give one video file at least")
        if self.preset not in PRESETS:
            raise ConfigError(
                f"--preset {self.preset} would hobble H.266; choose one of {', '.join(PRESETS)}"
            )
        if self.seconds is not None and not self.seconds >= 1:
            raise ConfigError(f"--seconds is {self.seconds:g}; a clip needs at least one second")
        if self.every < 1:
            raise ConfigError(f"--every is {self.every}; it goes from 1 up")


@dataclass(frozen=True, slots=True)
class Steered:
    """An anchor with the means to make its codec at any quality."""

    anchor: Anchor
    codec: Callable[[float], Codec]


@dataclass(frozen=True, slots=True)
class Plan:
    """The codecs of a run: fixed points, and encoders that are steered. `missing` says what is left out."""

    fixed: tuple[Codec, ...]
    steered: tuple[Steered, ...]
    default: Codec | None
    cross: Codec | None
    missing: tuple[tuple[str, str], ...]


def make_plan(config: BenchConfig, runtime: Callable[[], ModelRuntime], photo: FaceCrop | None) -> Plan:
    """All codecs that the configuration asks for and this machine has."""
    default_size = _DEFAULTS.keyframe_bytes
    fixed: list[Codec] = [StillCodecRow(default_size, config.tick_ms)]
    default = cross = None
    if "avcall" in config.codecs:
        calls = {
            (mode, size): CallCodec(_setting(config, mode, size), runtime, config.weights)
            for mode in config.motion_modes
            for size in KEYFRAME_SIZES
        }
        fixed += calls.values()
        mode = default_mode(config)
        default = calls[mode, default_size]
        if photo is not None:
            cross = CallCodec(_setting(config, mode, default_size), runtime, config.weights, photo)
    steered, missing = _steered(config)
    return Plan(tuple(fixed), tuple(steered), default, cross, tuple(missing))


def default_mode(config: BenchConfig) -> str:
    """The motion mode of a call that was not told otherwise."""
    return _DEFAULTS.motion if _DEFAULTS.motion in config.motion_modes else config.motion_modes[0]


def _setting(config: BenchConfig, mode: str, keyframe_bytes: int) -> CallSetting:
    first_bytes = _DEFAULTS.first_keyframe_bytes
    return CallSetting(
        motion=mode,
        motion_step=_DEFAULTS.motion_step,
        keyframe_bytes=keyframe_bytes,
        # In front of a small keyframe a preliminary one is a waste of bits.
        first_keyframe_bytes=first_bytes if keyframe_bytes > 2 * first_bytes else 0,
        keyframe_budget_bits=_DEFAULTS.keyframe_budget_bits,
        tick_ms=config.tick_ms,
        audio_bitrate_bps=_DEFAULTS.audio_bitrate_bps,
        audio_frame_ms=SendConfig(peer="", tick_ms=config.tick_ms).speech_frame_ms,
    )


def _steered(config: BenchConfig) -> tuple[list[Steered], list[tuple[str, str]]]:
    wanted = [anchor for name in config.codecs for anchor in ANCHORS.get(name, ())]
    if not wanted:
        return [], []
    try:
        ffmpeg = find_ffmpeg()
    except InputError as error:
        return [], [(anchor.name, str(error)) for anchor in wanted]
    steered: list[Steered] = []
    missing: list[tuple[str, str]] = []
    for anchor in wanted:
        try:
            ffmpeg.require(anchor.encoder)
        except InputError as error:
            missing.append((anchor.name, str(error)))
        else:
            steered.append(Steered(anchor, _maker(anchor, ffmpeg, config)))
    return steered, missing


def _maker(anchor: Anchor, ffmpeg: FFmpeg, config: BenchConfig) -> Callable[[float], Codec]:
    return lambda quality: VideoCodec(anchor, quality, ffmpeg, config.preset, config.tick_ms)
