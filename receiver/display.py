"""Display: where the pictures go. A window, an MP4 file, or nowhere."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Protocol

import cv2

from avcall.errors import DisplayError
from avcall.types import FRAME_SIZE_PX, U8Image
from receiver.record import Recorder

WINDOW_NAME = "avcall"
WINDOW_SCALE = 2  # 256 pixels are small on a screen of today
POLL_S = 0.02  # the window answers the mouse at least so often
CLOSE_KEYS = (ord("q"), 27)  # q and Escape
OPEN_TIMEOUT_S = 20.0
ALTERNATIVES = "use --display none or --display FILE.mp4"
# Qt ends the whole process when it cannot reach the display, so another process tries first.
PROBE = "import cv2; cv2.namedWindow('avcall'); cv2.waitKey(1); cv2.destroyAllWindows()"


class Display(Protocol):
    """Where pictures go."""

    def show(self, rgb: U8Image, pts_ms: int) -> None:
        """Show a picture, (256, 256, 3) uint8; returns at once."""
        ...

    def show_still(self, rgb: U8Image) -> None:
        """Show a keyframe until there is motion; it has no media time, so a file leaves it out."""
        ...

    def poll(self) -> bool:
        """False once the user has closed it."""
        ...

    def close(self) -> None:
        """Let go of the window or file."""
        ...


class NoDisplay:
    """Nowhere: `--display none`."""

    def show(self, rgb: U8Image, pts_ms: int) -> None:
        """Nothing is shown."""

    def show_still(self, rgb: U8Image) -> None:
        """Nothing is shown."""

    def poll(self) -> bool:
        """True: there is nothing to close."""
        return True

    def close(self) -> None:
        """Nothing to let go of."""


class FileDisplay:
    """Into an MP4 file without sound."""

    def __init__(self, path: Path | str) -> None:
        self._recorder = Recorder(path, with_audio=False)

    def show(self, rgb: U8Image, pts_ms: int) -> None:
        """Add the picture to the file. Raises RecordingError once when that fails."""
        self._recorder.add_video(rgb, pts_ms)

    def show_still(self, rgb: U8Image) -> None:
        """Left out."""

    def poll(self) -> bool:
        """True: a file is not closed by the user."""
        return True

    def close(self) -> None:
        """Finish the file. Raises RecordingError when that fails."""
        self._recorder.close()


class WindowDisplay:
    """A window on the screen. OpenCV's windows belong to the thread that made them, so one thread owns it."""

    def __init__(self) -> None:
        check_window_support()
        self._changed = threading.Condition()
        self._picture: U8Image | None = None
        self._closed = False
        self._closed_by_user = False
        self.shown_frames = 0
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)
        self._thread.start()

    def show(self, rgb: U8Image, pts_ms: int) -> None:
        """Show a picture; one that the screen was too slow for is replaced."""
        with self._changed:
            self._picture = rgb
            self._changed.notify_all()

    def show_still(self, rgb: U8Image) -> None:
        """Show a keyframe."""
        self.show(rgb, 0)

    def poll(self) -> bool:
        """False once the user has closed the window or pressed q or Escape in it."""
        return not self._closed_by_user

    def close(self) -> None:
        """Close the window."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(OPEN_TIMEOUT_S)

    def _run(self) -> None:
        cv2.namedWindow(WINDOW_NAME, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        side_px = FRAME_SIZE_PX * WINDOW_SCALE
        cv2.resizeWindow(WINDOW_NAME, side_px, side_px)
        while not (self._closed or self._closed_by_user):
            with self._changed:
                if self._picture is None and not self._closed:
                    self._changed.wait(POLL_S)
                picture, self._picture = self._picture, None
            if picture is not None:
                larger = cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
                cv2.imshow(WINDOW_NAME, cv2.cvtColor(larger, cv2.COLOR_RGB2BGR))
                self.shown_frames += 1
            key = cv2.waitKey(1)
            visible = cv2.getWindowProperty(WINDOW_NAME, cv2.WND_PROP_VISIBLE) >= 1
            self._closed_by_user = key in CLOSE_KEYS or not visible
        cv2.destroyAllWindows()


def check_window_support() -> None:
    """Raise DisplayError, in one line, when no window can be opened on this machine."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise DisplayError(f"no display on this machine (DISPLAY is not set); {ALTERNATIVES}")
    try:
        probe = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, timeout=OPEN_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as cause:
        raise DisplayError(f"the display does not answer; {ALTERNATIVES}") from cause
    if probe.returncode != 0:
        where = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or "this machine"
        raise DisplayError(f"no window can be opened on display '{where}'; {ALTERNATIVES}")


def open_display(spec: str) -> Display:
    """Open "none", "window" or an MP4 file to write. Raises DisplayError or RecordingError in one line."""
    if spec == "none":
        return NoDisplay()
    if spec == "window":
        return WindowDisplay()
    if Path(spec).suffix.lower() == ".mp4":
        return FileDisplay(spec)
    raise DisplayError(f"'{spec}' is no display; use --display window, none or FILE.mp4")
