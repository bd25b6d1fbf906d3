"""Sound devices by name, through PortAudio: what the microphone and the speaker share.

PortAudio is loaded on first use, so that a call on files needs no sound system at all.
"""

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from avcall.errors import AudioDeviceError

Direction = Literal["input", "output"]


@dataclass(frozen=True, slots=True)
class AudioDevice:
    """One device as PortAudio numbers it."""

    index: int
    name: str
    is_default: bool


def load_sounddevice() -> Any:
    """The `sounddevice` module; raises AudioDeviceError when PortAudio is not installed."""
    try:
        return importlib.import_module("sounddevice")
    except OSError as cause:
        raise AudioDeviceError(
            "PortAudio is missing; run 'apt-get install libportaudio2 libasound2-plugins', or use a file"
        ) from cause


def list_devices(direction: Direction) -> list[AudioDevice]:
    """Every device that can record ("input") or play ("output"). Raises AudioDeviceError."""
    sounddevice = load_sounddevice()
    default_index = sounddevice.default.device[0 if direction == "input" else 1]
    return [
        AudioDevice(index=index, name=device["name"], is_default=index == default_index)
        for index, device in enumerate(sounddevice.query_devices())
        if device[f"max_{direction}_channels"] > 0
    ]


def find_device(spec: str, direction: Direction) -> AudioDevice:
    """The device that `spec` names: "default", an index, a name, or a part of exactly one name.

    Raises AudioDeviceError, which lists the devices that there are.
    """
    devices = list_devices(direction)
    matches = _matches(spec, devices)
    if len(matches) == 1:
        return matches[0]
    kind = "microphone" if direction == "input" else "speaker"
    have = ", ".join(f"{d.index}: {d.name}" for d in devices)
    if not have:
        raise AudioDeviceError(f"this machine has no {kind}; use 'none' or a WAV file")
    problem = "fits several" if matches else "is no"
    raise AudioDeviceError(f"'{spec}' {problem} {kind}; choose from {have}, 'none' or a WAV file")


def _matches(spec: str, devices: list[AudioDevice]) -> list[AudioDevice]:
    if spec == "default":
        return [d for d in devices if d.is_default] or devices[:1]
    if spec.isdecimal():
        return [d for d in devices if d.index == int(spec)]
    exact = [d for d in devices if d.name == spec]
    return exact or [d for d in devices if spec.lower() in d.name.lower()]
