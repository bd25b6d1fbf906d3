"""Finding and running FFmpeg, with programs that are none."""

import stat
import sys
from pathlib import Path

import pytest

from avcall.bench.ffmpeg import find_ffmpeg
from avcall.errors import InputError


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture(autouse=True)
def _fresh() -> None:
    find_ffmpeg.cache_clear()


def test_the_wheel_brings_every_encoder() -> None:
    found = find_ffmpeg()
    assert {"libvvenc", "libx265", "libsvtav1"} <= found.encoders
    assert found.version.startswith("ffmpeg version")
    assert found.encoder_version("libvvenc").startswith("libvvenc version: 1.")
    assert found.encoder_version("libx265").startswith("HEVC encoder version")
    assert found.encoder_version("libsvtav1").startswith("SVT-AV1 Encoder Lib")
    assert found.encoder_version("no such encoder") == "unknown"


def test_an_ffmpeg_without_libvvenc_names_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'case "$2" in -version) echo "ffmpeg version 4";; *) echo " V....D libx264 H.264";; esac'
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program(tmp_path / "ffmpeg", script)))
    found = find_ffmpeg()
    assert found.encoders == {"libx264"}
    with pytest.raises(InputError, match=r"has no libvvenc; .*pip install imageio-ffmpeg==0\.8\.1"):
        found.require("libvvenc")


def test_a_program_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"cannot be run .*pip install imageio-ffmpeg"):
        find_ffmpeg()


def test_the_wheel_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError, match="pip install imageio-ffmpeg"):
        find_ffmpeg()


def test_what_goes_wrong_inside_is_one_line() -> None:
    with pytest.raises(InputError, match="FFmpeg failed: ") as caught:
        find_ffmpeg().run(["-f", "vvc", "-i", "-", "-f", "rawvideo", "-"], b"no bitstream at all")
    assert "\n" not in str(caught.value)
