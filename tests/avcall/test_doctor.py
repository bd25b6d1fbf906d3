import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from avcall import doctor
from avcall.audio_devices import AudioDevice, Direction
from avcall.doctor import CUDA, Check, Status
from avcall.errors import AudioDeviceError, DisplayError, WeightsError


def rendered(checks: list[Check], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    doctor.render(checks, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def raising(error: Exception) -> object:
    def call(*_: object) -> None:
        raise error

    return call


def test_this_machine_is_checked_without_an_exception() -> None:
    checks = doctor.run_checks()

    names = [
        "weights",
        "face finder",
        "camera",
        "PortAudio",
        "microphone",
        "speaker",
        "display",
        "GPU",
        "ffmpeg",
    ]
    assert [check.name for check in checks] == names
    assert all(check.remedy for check in checks if check.status is Status.MISSING)
    assert not any("could not be checked" in check.detail for check in checks)


def test_real_session_names_its_providers() -> None:
    assert "CPUExecutionProvider" in doctor._session_providers()


def test_weights_name_the_networks_or_what_is_wrong() -> None:
    assert doctor.check_weights(lambda: "live: detect (1.0 MB)").detail == "live: detect (1.0 MB)"

    check = doctor.check_weights(raising(WeightsError("detect.onnx is truncated; reinstall avcall")))
    remedy = "git checkout -- models/weights"
    assert check == Check("weights", Status.MISSING, "detect.onnx is truncated", remedy)
    assert doctor.check_weights(raising(ImportError("No module named 'onnxruntime'"))).remedy == "make setup"


def test_weights_folder_without_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVCALL_WEIGHTS", str(tmp_path))
    check = doctor.check_weights(doctor._verify_weights)
    assert check.status is Status.MISSING
    assert str(tmp_path) in check.detail


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        (
            "libGL.so.1: cannot open shared object file: No such file",
            "sudo apt-get install -y libgl1 libglib2.0-0",
        ),
        ("No module named 'cv2'", "make setup"),
    ],
)
def test_opencv_that_does_not_start(message: str, remedy: str) -> None:
    check = doctor.check_face_finder(raising(ImportError(message)))
    assert check == Check("face finder", Status.MISSING, message, remedy)


def test_camera_is_the_first_device_that_gives_a_picture(tmp_path: Path) -> None:
    devices = [tmp_path / "video0", tmp_path / "video1"]
    for device in devices:
        device.touch()

    check = doctor.check_camera(devices, lambda device: device.name == "video1")
    assert check == Check("camera", Status.OK, str(devices[1]))


def test_no_camera_and_silent_camera(tmp_path: Path) -> None:
    assert doctor.check_camera([], lambda _: True).status is Status.MISSING

    device = tmp_path / "video0"
    device.touch()
    check = doctor.check_camera([device], lambda _: False)
    assert (check.status, check.remedy) == (Status.MISSING, f"fuser -v {device}")


def test_camera_of_another_group_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "video0"
    device.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)

    check = doctor.check_camera([device], raising(AssertionError("opened")))
    assert (check.status, check.remedy) == (Status.MISSING, "sudo usermod -aG video $USER")


def test_portaudio() -> None:
    assert doctor.check_portaudio(lambda: "PortAudio V19").status is Status.OK

    check = doctor.check_portaudio(raising(AudioDeviceError("PortAudio is not installed")))
    assert (check.status, check.remedy) == (Status.MISSING, "sudo apt-get install -y libportaudio2")


@pytest.mark.parametrize(("direction", "name"), [("input", "microphone"), ("output", "speaker")])
def test_sound_devices(direction: Direction, name: str) -> None:
    usb, built_in = AudioDevice(0, "USB [hw:1]", False), AudioDevice(1, "built-in", True)

    assert doctor.check_sound(direction, lambda _: [usb]) == Check(name, Status.OK, "USB [hw:1]")
    both = doctor.check_sound(direction, lambda _: [usb, built_in])
    assert both.detail == "built-in, and 1 more"
    assert doctor.check_sound(direction, lambda _: []).status is Status.MISSING
    assert doctor.check_sound(direction, raising(AudioDeviceError("no"))).status is Status.MISSING


def test_display_keeps_the_reason_and_names_the_file_display() -> None:
    assert doctor.check_display(lambda: None).status is Status.OK

    check = doctor.check_display(raising(DisplayError("no display here; use --display none")))
    assert (check.detail, check.remedy) == ("no display here", "avcall receive --display FILE.mp4")


@pytest.mark.parametrize(
    ("has_nvidia", "providers", "status", "remedy"),
    [
        (True, [CUDA, "CPUExecutionProvider"], Status.OK, None),
        (True, ["OpenVINOExecutionProvider", "CPUExecutionProvider"], Status.WARN, "make setup RUNTIME=cuda"),
        (False, ["CPUExecutionProvider"], Status.OK, None),
    ],
)
def test_gpu(has_nvidia: bool, providers: list[str], status: Status, remedy: str | None) -> None:
    check = doctor.check_gpu(has_nvidia, lambda: providers)
    assert (check.status, check.remedy) == (status, remedy)


def test_ffmpeg_is_the_first_program_with_libvvenc() -> None:
    encoders = {"/a": "libx264", "/b": " V....D libvvenc   H.266"}

    assert doctor.check_ffmpeg(["/a", "/b"], encoders.__getitem__).detail == "/b has libvvenc (H.266)"
    for programs in (["/a"], []):
        check = doctor.check_ffmpeg(programs, encoders.__getitem__)
        assert check.status is Status.WARN
        assert check.remedy is not None and check.remedy.endswith("pip install imageio-ffmpeg")


def test_program_that_does_not_run_has_no_encoders(tmp_path: Path) -> None:
    assert doctor._list_encoders(str(tmp_path / "ffmpeg")) == ""


def test_check_that_fails_costs_only_its_own_line() -> None:
    check = doctor._guarded("camera", raising(RuntimeError("odd\nmachine")))
    assert check == Check("camera", Status.WARN, "could not be checked: odd")


def test_table_fits_80_columns_and_keeps_brackets() -> None:
    remedy = "sudo apt-get install -y libgl1 libglib2.0-0"
    text = rendered(
        [
            Check("microphone", Status.OK, "USB [hw:1] " + "x" * 90),
            Check("face finder", Status.MISSING, "no OpenCV", remedy),
            Check("GPU", Status.WARN, "idle"),
        ]
    )
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "USB [hw:1]" in text
    assert remedy in text  # in one piece, to be copied
    assert "1 ok, 1 to look at, 1 missing" in text
