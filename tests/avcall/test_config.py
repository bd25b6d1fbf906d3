from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from avcall.config import NetworkConfig, ReceiveConfig, SendConfig, from_mapping
from avcall.errors import ConfigError


def test_the_defaults_are_allowed() -> None:
    assert SendConfig(peer="http://h/call").tick_ms == 80
    assert ReceiveConfig().network == NetworkConfig()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"tick_ms": 20}, "--tick-ms is 20; choose one of 40, 80, 120"),
        ({"motion": "jpeg"}, "--motion is jpeg; choose one of "),
        ({"device": "tpu"}, "--device is tpu; choose one of auto, cpu, cuda"),
        ({"audio_bitrate_bps": 5_999}, "--audio-bps is 5999; it goes from 6000 to 16000"),
        ({"audio_bitrate_bps": 16_001}, "--audio-bps is 16001"),
        ({"audio_frame_ms": 30}, "audio_frame_ms is 30; choose one of 20, 40, 60"),
        ({"keyframe_bytes": 999}, "--keyframe-bytes is 999; it goes from 1000 to 32768"),
        ({"keyframe_bytes": 40_000}, "--keyframe-bytes is 40000"),
        ({"max_kbps": 11}, "--max-kbps is 11; it goes from 12 to 500"),
        ({"duration_s": 0.0}, "--seconds is 0; it must be more than 0"),
        ({"duration_s": float("nan")}, "--seconds is nan"),
    ],
)
def test_a_sender_setting_out_of_range_is_named(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        SendConfig(peer="http://h/call", **setting)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_frames_of_speech_fill_the_tick() -> None:
    frames_ms = [SendConfig(peer="x", tick_ms=tick_ms).speech_frame_ms for tick_ms in (40, 80, 120)]
    assert frames_ms == [40, 40, 60]
    assert SendConfig(peer="x", tick_ms=120, audio_frame_ms=20).speech_frame_ms == 20


@pytest.mark.parametrize("setting", [{"max_delay_ms": 39}, {"max_delay_ms": 5001}, {"device": "tpu"}])
def test_a_receiver_setting_out_of_range_is_named(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(setting)).replace('_', '-')} is"):
        ReceiveConfig(**setting)


def test_an_unknown_setting_is_an_error_that_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match="unknown setting 'tick'") as error:
        from_mapping(SendConfig, {"peer": "http://h/call", "tick": 80})
    assert all(field.name in str(error.value) for field in fields(SendConfig))


def test_a_missing_setting_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"a setting is missing .*'peer'"):
        from_mapping(SendConfig, {})


def test_a_mapping_becomes_a_configuration() -> None:
    assert from_mapping(ReceiveConfig, {"display": "none"}) == ReceiveConfig(display="none")


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        SendConfig(peer="http://h/call").tick_ms = 40  # type: ignore[misc]
