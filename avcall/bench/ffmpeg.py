"""FFmpeg as a separate process: where it is, what it can do, and one call of it.

The wheel imageio-ffmpeg brings an FFmpeg with libvvenc, libx265 and SVT-AV1. That build is under the GPL; it
is run as a program of its own and never linked.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from avcall.errors import InputError

REMEDY = "pip install imageio-ffmpeg==0.8.1"
TIMEOUT_S = 1_800.0  # one encode of a long clip at a slow preset, on a busy machine
MAX_ERROR_CHARS = 200
# As libvvenc, x265 and SVT-AV1 print them.
_VERSION = re.compile(r"(libvvenc version: \S+|HEVC encoder version \S+|SVT-AV1 Encoder Lib \S+)")


@dataclass(frozen=True, slots=True)
class FFmpeg:
    """An FFmpeg that can be run: its version line and the names of its encoders."""

    path: Path
    version: str
    encoders: frozenset[str]

    def require(self, encoder: str) -> None:
        """Raises InputError, naming the remedy, when this FFmpeg lacks `encoder`."""
        if encoder not in self.encoders:
            raise InputError(f"{self.path} has no {encoder}; get one that has: {REMEDY}")

    def run(self, arguments: list[str], data: bytes) -> bytes:
        """Run it on `data` (its standard input) and return its standard output. Raises InputError."""
        command = [str(self.path), "-hide_banner", "-v", "error", *arguments]
        try:
            done = subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"{self.path} did not run ({type(error).__name__}); {REMEDY}") from error
        if done.returncode != 0 or not done.stdout:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise InputError(f"FFmpeg failed: {lines[0][:MAX_ERROR_CHARS]}")
        return done.stdout

    def encoder_version(self, encoder: str) -> str:
        """The version that an encoder names when it codes a grey picture, or 'unknown'."""
        source = ["-f", "lavfi", "-i", "color=gray:s=64x64:d=0.08:r=25", "-pix_fmt", "yuv420p10le"]
        command = [
            str(self.path),
            "-hide_banner",
            "-v",
            "verbose",
            *source,
            "-c:v",
            encoder,
            "-f",
            "null",
            "-",
        ]
        try:
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return "unknown"
        named = _VERSION.search(done.stderr.decode(errors="replace"))
        return named.group(1) if named else "unknown"


@cache
def find_ffmpeg() -> FFmpeg:
    """The FFmpeg of $IMAGEIO_FFMPEG_EXE or of the wheel. Raises InputError, naming the remedy."""
    path = Path(os.environ.get("IMAGEIO_FFMPEG_EXE") or _bundled())
    try:
        about = [
            subprocess.run([path, "-hide_banner", option], capture_output=True, timeout=60, check=True).stdout
            for option in ("-version", "-encoders")
        ]
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"{path} cannot be run ({type(error).__name__}); {REMEDY}") from error
    version, listing = (text.decode(errors="replace") for text in about)
    names = [line.split()[1] for line in listing.splitlines() if len(line.split()) > 1]
    return FFmpeg(path, version.splitlines()[0] if version else "unknown", frozenset(names))


def _bundled() -> str:
    try:
        import imageio_ffmpeg
    except ImportError:
        raise InputError(f"no FFmpeg for the conventional codecs; {REMEDY}") from None
    try:
        path: str = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        raise InputError(f"imageio-ffmpeg has no program for this machine; {REMEDY}") from None
    return path
