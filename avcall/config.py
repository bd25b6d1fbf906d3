"""What the two ends of a call can be told, one frozen dataclass an end; the command line fills them."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avcall.errors import ConfigError

TICKS_MS = (40, 80, 120)
AUDIO_BITRATES_BPS = (6_000, 16_000)
AUDIO_FRAMES_MS = (20, 40, 60)
KEYFRAME_BYTES = (1_000, 32_768)
FIRST_KEYFRAME_BYTES = SHARP_KEYFRAME_BYTES = (0, 32_768)
KEYFRAME_BUDGET_BITS = (0, 10_000_000)
MOTION_MODES = ("coded", "fp16")
MOTION_STEPS = (0, 7)
MAX_KBPS = (12, 500)
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """How to find a path to the peer; see RFC 7064 and RFC 7065 for the URLs."""

    stun_url: str | None = None
    turn_url: str | None = None
    turn_user: str | None = None
    turn_password: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SendConfig:
    """The sender. Raises ConfigError for a value out of range."""

    peer: str
    token: str | None = None
    camera: str = "0"
    microphone: str | None = None  # None: the camera's own sound if it is a file, else the default device
    loop: bool = False
    source: Path | None = None
    device: str = "auto"
    motion: str = "coded"
    motion_step: int = 2
    tick_ms: int = 80
    audio_bitrate_bps: int = 9_000  # see docs/bitrate.md for what a whole call costs
    audio_frame_ms: int | None = None  # None: 60 where that divides the tick, which saves headers, else 40
    keyframe_bytes: int = 4_000
    first_keyframe_bytes: int = 1_500  # of the picture that comes before the first full one; 0: none does
    sharp_keyframe_bytes: int = 12_000  # of the first picture sent again, where there is room; 0: never
    keyframe_budget_bits: int = 70_000  # a minute, for new keyframes during the call; 0: there are none
    max_kbps: float | None = None  # None: what the link carries
    weights: Path | None = None
    duration_s: float | None = None
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        _one_of("--tick-ms", self.tick_ms, TICKS_MS)
        _one_of("--motion", self.motion, MOTION_MODES)
        _within("--motion-step", self.motion_step, *MOTION_STEPS)
        _one_of("--device", self.device, DEVICES)
        _within("--audio-bps", self.audio_bitrate_bps, *AUDIO_BITRATES_BPS)
        _one_of("audio_frame_ms", self.speech_frame_ms, AUDIO_FRAMES_MS)
        _within("--keyframe-bytes", self.keyframe_bytes, *KEYFRAME_BYTES)
        _within("--first-keyframe-bytes", self.first_keyframe_bytes, *FIRST_KEYFRAME_BYTES)
        _within("--sharp-keyframe-bytes", self.sharp_keyframe_bytes, *SHARP_KEYFRAME_BYTES)
        _within("--keyframe-budget", self.keyframe_budget_bits, *KEYFRAME_BUDGET_BITS)
        if self.max_kbps is not None:
            _within("--max-kbps", self.max_kbps, *MAX_KBPS)
        if self.duration_s is not None and not self.duration_s > 0:
            raise ConfigError(f"--seconds is {self.duration_s:g}; it must be more than 0")

    @property
    def speech_frame_ms(self) -> int:
        """The length of an Opus frame."""
        if self.audio_frame_ms is not None:
            return self.audio_frame_ms
        return 60 if self.tick_ms % 60 == 0 else 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveConfig:
    """The receiver. Raises ConfigError for a value out of range."""

    listen: str = "127.0.0.1:8790"
    rendezvous: str | None = None  # its URL; then nothing is listened on
    host_token: str | None = None  # what the rendezvous wants of those who open rooms
    token: str | None = None
    display: str = "window"
    speaker: str = "default"
    record: Path | None = None
    device: str = "auto"
    weights: Path | None = None
    max_delay_ms: int = 800
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        _one_of("--device", self.device, DEVICES)
        _within("--max-delay-ms", self.max_delay_ms, 40, 5_000)


def from_mapping(kind: type[Any], values: dict[str, Any]) -> Any:
    """Build a configuration from plain values.

    Raises ConfigError for an unknown key, listing the valid ones, and for one that is missing.
    """
    valid = [f.name for f in dataclasses.fields(kind)]
    for key in values:
        if key not in valid:
            raise ConfigError(f"unknown setting {key!r}; valid ones: {', '.join(valid)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"a setting is missing ({error}); valid ones: {', '.join(valid)}") from error


def _one_of(option: str, value: object, valid: tuple[object, ...]) -> None:
    if value not in valid:
        raise ConfigError(f"{option} is {value}; choose one of {', '.join(map(str, valid))}")


def _within(option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{option} is {value}; it goes from {low} to {high}")
