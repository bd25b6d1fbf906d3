"""What this machine has for a call, and the one command that mends what it lacks.

Every check is a function of what it looks at, so that a test can show it another machine. `run_checks` shows
them this one. Heavy modules are imported inside the checks: the doctor must run where they do not.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from avcall.audio_devices import AudioDevice, Direction, list_devices, load_sounddevice
from avcall.errors import AudioDeviceError, AvcallError, DisplayError, WeightsError

FFMPEG_TIMEOUT_S = 20.0
CUDA = "CUDAExecutionProvider"
_PROVIDER_NAMES = {
    CUDA: "CUDA",
    "OpenVINOExecutionProvider": "OpenVINO",
    "CPUExecutionProvider": "the plain CPU",
}
_NVIDIA_SIGNS = (Path("/dev/nvidia0"), Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))
# An ONNX model (IR 8, opset 17) of one Identity node: enough to see which providers a session really gets.
_IDENTITY_MODEL = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)


class Status(Enum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"  # a call works without it
    MISSING = "missing"  # the part of a call that the check is named for does not work


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `detail` says what is there, `remedy` is the one command that mends it, if need be."""

    name: str
    status: Status
    detail: str
    remedy: str | None = None


def run_checks() -> list[Check]:
    """Look at this machine. Never raises for what is missing; may open a camera for a moment."""
    cameras = sorted(Path("/dev").glob("video*")) if sys.platform == "linux" else [Path("0")]
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("weights", partial(check_weights, _verify_weights)),
        ("face finder", partial(check_face_finder, _load_face_finder)),
        ("camera", partial(check_camera, cameras, _camera_gives_a_picture)),
        ("PortAudio", partial(check_portaudio, _portaudio_version)),
        ("microphone", partial(check_sound, "input", list_devices)),
        ("speaker", partial(check_sound, "output", list_devices)),
        ("display", partial(check_display, _try_window)),
        ("GPU", partial(check_gpu, any(sign.exists() for sign in _NVIDIA_SIGNS), _session_providers)),
        ("ffmpeg", partial(check_ffmpeg, _ffmpeg_programs(), _list_encoders)),
    ]
    return [_guarded(name, check) for name, check in checks]


def render(checks: Sequence[Check], console: Console) -> None:
    """Print the findings as a table, each remedy on a line of its own below what it mends, and the count."""
    styles = {Status.OK: "green", Status.WARN: "yellow", Status.MISSING: "bold red"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("part", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("what was found, and what to run", overflow="fold")
    for check in checks:
        found = Text(check.detail)
        if check.remedy is not None:
            found.append(f"\n  {check.remedy}", style="cyan")
        table.add_row(Text(check.name), Text(check.status.value, style=styles[check.status]), found)
    console.print(table)
    count = {status: sum(check.status is status for check in checks) for status in Status}
    console.print(f"{count[Status.OK]} ok, {count[Status.WARN]} to look at, {count[Status.MISSING]} missing")


def check_weights(verify: Callable[[], str]) -> Check:
    """Whether the networks are there and whole; `verify` names them, or raises WeightsError."""
    try:
        return Check("weights", Status.OK, verify())
    except WeightsError as error:
        return Check(
            "weights", Status.MISSING, str(error).partition(";")[0], "git checkout -- models/weights"
        )
    except ImportError as error:
        return Check("weights", Status.MISSING, f"cannot be used: {_first_line(error)}", "make setup")


def check_face_finder(load: Callable[[], str]) -> Check:
    """Whether OpenCV and mediapipe start; `load` returns their versions."""
    try:
        return Check("face finder", Status.OK, load())
    except ImportError as error:
        if "cannot open shared object" in str(error):
            remedy = "sudo apt-get install -y libgl1 libglib2.0-0"
        else:
            remedy = "make setup"
        return Check("face finder", Status.MISSING, _first_line(error), remedy)


def check_camera(devices: Sequence[Path], gives_a_picture: Callable[[Path], bool]) -> Check:
    """Whether one of `devices` gives a picture. A camera may have several devices, some of them without."""
    if not devices:
        return Check(
            "camera",
            Status.MISSING,
            "none; a video file can stand in",
            "avcall send --camera FILE.mp4 --peer URL",
        )
    closed = [device for device in devices if device.exists() and not os.access(device, os.R_OK | os.W_OK)]
    if len(closed) == len(devices):
        detail = f"{closed[0]} is not yours to open (log in again after the command)"
        return Check("camera", Status.MISSING, detail, "sudo usermod -aG video $USER")
    for device in devices:
        if device not in closed and gives_a_picture(device):
            return Check("camera", Status.OK, str(device))
    names = " ".join(str(device) for device in devices)
    return Check("camera", Status.MISSING, f"{names} gives no picture; who holds it?", f"fuser -v {names}")


def check_portaudio(version: Callable[[], str]) -> Check:
    """Whether PortAudio, through which sound devices are reached, can be loaded."""
    try:
        return Check("PortAudio", Status.OK, version())
    except AudioDeviceError:
        remedy = "sudo apt-get install -y libportaudio2"
        return Check("PortAudio", Status.MISSING, "not installed; it reaches the sound devices", remedy)


def check_sound(direction: Direction, devices: Callable[[Direction], list[AudioDevice]]) -> Check:
    """Whether there is a microphone ("input") or a speaker ("output")."""
    name, remedy = {
        "input": ("microphone", "avcall send --mic FILE.wav --camera 0 --peer URL"),
        "output": ("speaker", "avcall receive --speaker FILE.wav"),
    }[direction]
    try:
        found = devices(direction)
    except AudioDeviceError:
        return Check(name, Status.MISSING, "cannot be reached without PortAudio", remedy)
    if not found:
        return Check(name, Status.MISSING, "none; a WAV file can stand in", remedy)
    first = next((device for device in found if device.is_default), found[0])
    others = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return Check(name, Status.OK, f"{first.name}{others}")


def check_display(try_window: Callable[[], None]) -> Check:
    """Whether a window can be opened; `try_window` raises DisplayError if not."""
    try:
        try_window()
    except DisplayError as error:
        detail = str(error).partition(";")[0]
        return Check("display", Status.MISSING, detail, "avcall receive --display FILE.mp4")
    except ImportError:
        return Check("display", Status.MISSING, "OpenCV does not start; see the face finder")
    return Check("display", Status.OK, "a window opens")


def check_gpu(has_nvidia: bool, session_providers: Callable[[], list[str]]) -> Check:
    """Where ONNX Runtime really runs: `session_providers` are those of a session, best first."""
    try:
        providers = session_providers()
    except ImportError:
        return Check("GPU", Status.MISSING, "ONNX Runtime is not installed", "make setup")
    best = _PROVIDER_NAMES.get(providers[0], providers[0])
    if CUDA in providers:
        return Check("GPU", Status.OK, "ONNX Runtime runs on CUDA")
    if has_nvidia:
        detail = f"there is an NVIDIA GPU, but ONNX Runtime runs on {best}"
        return Check("GPU", Status.WARN, detail, "make setup RUNTIME=cuda")
    return Check("GPU", Status.OK, f"none, and none is needed: ONNX Runtime runs on {best}")


def check_ffmpeg(programs: Sequence[str], encoders: Callable[[str], str]) -> Check:
    """Whether one of `programs` encodes H.266; `encoders` returns what `ffmpeg -encoders` prints."""
    for program in programs:
        if "libvvenc" in encoders(program):
            return Check("ffmpeg", Status.OK, f"{program} has libvvenc (H.266)")
    detail = f"{programs[0]} has no libvvenc" if programs else "none"
    remedy = f"{_pip()} install imageio-ffmpeg"
    return Check("ffmpeg", Status.WARN, f"{detail}; only the comparison with H.266 needs it", remedy)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """Run one check so that an odd machine costs its line of the table and not the table."""
    try:
        return check()
    except (AvcallError, OSError, RuntimeError, ValueError, ImportError) as error:
        return Check(name, Status.WARN, f"could not be checked: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    """The error in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _pip() -> str:
    """This environment's pip as a command, short when it lies below the working folder."""
    pip = Path(sys.executable).with_name("pip")
    inside = pip.is_relative_to(Path.cwd())
    return shlex.quote(str(pip.relative_to(Path.cwd()) if inside else pip))


def _verify_weights() -> str:
    """Read every graph and compare it with the manifest. Raises WeightsError, or ImportError."""
    from models.runtime import graphs_in, read_graph, weights_folder

    folder = weights_folder()
    graphs = graphs_in(folder)
    size_bytes = sum(len(read_graph(folder, graph)) for graph in graphs)
    return f"{folder.name}: {', '.join(graph.value for graph in graphs)} ({size_bytes / 1e6:.1f} MB)"


def _load_face_finder() -> str:
    """Versions of OpenCV and mediapipe; ImportError when OpenCV does not start."""
    import cv2

    try:
        return f"mediapipe {distribution('mediapipe').version}, OpenCV {cv2.__version__}"
    except PackageNotFoundError as error:
        raise ImportError("mediapipe is not installed") from error


def _camera_gives_a_picture(device: Path) -> bool:
    """Open the camera `device` for one picture."""
    import cv2

    cv2.setLogLevel(0)  # the finding says it
    capture = cv2.VideoCapture(int(device.name) if device.name.isdigit() else str(device))
    try:
        return bool(capture.read()[0])
    finally:
        capture.release()


def _portaudio_version() -> str:
    """PortAudio's name and version. Raises AudioDeviceError."""
    text: str = load_sounddevice().get_portaudio_version()[1]
    return text.partition(",")[0]


def _try_window() -> None:
    """Open and close a window. Raises DisplayError, or ImportError when OpenCV does not start."""
    from receiver.display import check_window_support

    check_window_support()


def _session_providers() -> list[str]:
    """The providers of a real session: the list of available ones names CUDA without a driver, too."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what a provider lacks shows in the answer
    available = onnxruntime.get_available_providers()
    if CUDA in available and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN from their wheels
    wanted = [provider for provider in _PROVIDER_NAMES if provider in available]
    session = onnxruntime.InferenceSession(_IDENTITY_MODEL, options, providers=wanted)
    return list(session.get_providers())


def _ffmpeg_programs() -> list[str]:
    """The ffmpeg of the wheel imageio-ffmpeg, if installed, and the system's."""
    try:
        import imageio_ffmpeg

        bundled = [str(imageio_ffmpeg.get_ffmpeg_exe())]
    except (ImportError, RuntimeError):
        bundled = []
    system = shutil.which("ffmpeg")
    return list(dict.fromkeys([*bundled, *([system] if system else [])]))


def _list_encoders(program: str) -> str:
    """What `program -encoders` prints, or nothing when it does not run."""
    try:
        command = [program, "-hide_banner", "-encoders"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=FFMPEG_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout
