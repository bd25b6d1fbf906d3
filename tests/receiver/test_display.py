"""Displays. Each window has a process of its own: Qt wants one thread for as long as that lasts."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from avcall.errors import DisplayError
from receiver.display import FileDisplay, NoDisplay, open_display

REPOSITORY = Path(__file__).parents[2]
SHOW_A_PICTURE = """
import sys, threading
import numpy as np
from PIL import ImageGrab
from receiver.display import open_display
display = open_display("window")
pause = threading.Event()
picture = np.zeros((256, 256, 3), np.uint8)
picture[..., 0] = 200  # red above, green below
picture[128:] = (0, 200, 0)
seen = (0, 0)
for n in range(250):
    display.show(picture, 40 * n)
    pause.wait(0.04)
    screen = np.asarray(ImageGrab.grab(xdisplay="")).astype(int)
    red = int(((screen[..., 0] > 150) & (screen[..., 1] < 50)).sum())
    green = int(((screen[..., 1] > 150) & (screen[..., 0] < 50)).sum())
    seen = max(seen, (red, green))
    if min(red, green) > 60_000:
        break
print(seen[0], seen[1], display.poll())
display.close()
"""
USER_CLOSES = """
import cv2, threading
from receiver.display import open_display
import receiver.display
display = open_display("window")
pause = threading.Event()
first = display.poll()
{act}
for n in range(500):
    if not display.poll():
        break
    pause.wait(0.02)
print(first, display.poll())
display.close()
"""


@pytest.fixture(scope="module")
def screen() -> Iterator[dict[str, str]]:
    """The environment of a program on a virtual X screen."""
    if shutil.which("Xvfb") is None:
        pytest.skip("needs Xvfb")
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "1024x768x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[write_end], stderr=subprocess.DEVNULL) as server:
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            number = pipe.readline().strip()
        yield {**os.environ, "DISPLAY": f":{number}"}
        server.terminate()


def run(script: str, environment: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_window_shows_the_picture_enlarged_and_upright_in_its_colours(screen: dict[str, str]) -> None:
    red, green, is_open = run(SHOW_A_PICTURE, screen)
    assert int(red) > 2 * 256 * 256 * 0.9  # half of 512 x 512
    assert int(green) > 2 * 256 * 256 * 0.9
    assert is_open == "True"


@pytest.mark.parametrize(
    "act",
    ["cv2.waitKey = lambda _ms: ord('q')", "cv2.getWindowProperty = lambda _name, _property: 0.0"],
    ids=["key", "button"],
)
def test_the_user_closes_the_window(screen: dict[str, str], act: str) -> None:
    assert run(USER_CLOSES.format(act=act), screen) == ["True", "False"]


def test_no_display_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(DisplayError, match=r"no display.*--display none or --display FILE\.mp4") as caught:
        open_display("window")
    assert "\n" not in str(caught.value)


def test_a_display_that_does_not_answer_does_not_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":9999")
    with pytest.raises(DisplayError, match=r"display ':9999'; use --display none"):
        open_display("window")


def test_file_holds_the_pictures(tmp_path: Path) -> None:
    path = tmp_path / "face.mp4"
    display = open_display(str(path))
    assert isinstance(display, FileDisplay)
    for n in range(30):
        display.show(np.full((256, 256, 3), 100, np.uint8), 40 * n)
        assert display.poll()
    display.close()
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 30


def test_none_shows_nothing() -> None:
    display = open_display("none")
    assert isinstance(display, NoDisplay)
    display.show(np.zeros((256, 256, 3), np.uint8), 0)
    assert display.poll()
    display.close()


def test_an_unknown_display_names_the_choices() -> None:
    with pytest.raises(DisplayError, match="'screen' is no display"):
        open_display("screen")
