"""Rates of a call from running totals: what goes on the wire, what it is made of, and the bill at the end."""

from collections import deque
from dataclasses import dataclass

from avcall.types import FRAME_SIZE_PX

PIXELS = FRAME_SIZE_PX * FRAME_SIZE_PX


@dataclass(frozen=True, slots=True)
class Bill:
    """Bytes of one direction of a call, by what they are.

    `wire_bytes` holds every header, and `ack_bytes`: acknowledgements of what came the other way, which takes
    `back_bytes` and is mostly acknowledgements itself.
    """

    elapsed_ms: float
    frames: int
    motion_bytes: int
    audio_bytes: int
    keyframe_bytes: int
    control_bytes: int
    wire_bytes: int
    back_bytes: int
    ack_bytes: int = 0

    @property
    def headers_bytes(self) -> int:
        """What is none of the rest: packet headers of every layer, and what keeps the connection alive."""
        content = self.motion_bytes + self.audio_bytes + self.keyframe_bytes + self.control_bytes
        return max(0, self.wire_bytes - content - self.ack_bytes)

    def kbps(self, size_bytes: float) -> float:
        """`size_bytes` over the call, in kbit/s."""
        return size_bytes * 8 / self.elapsed_ms if self.elapsed_ms > 0 else 0.0

    def bpp(self, size_bytes: float) -> float:
        """Bits per pixel of a 256x256 frame."""
        return size_bytes * 8 / (self.frames * PIXELS) if self.frames else 0.0


class RateMeter:
    """Rate of a running total over the last few seconds."""

    def __init__(self, window_ms: float = 3_000.0) -> None:
        self._window_ms = window_ms
        self._points: deque[tuple[float, float]] = deque()

    def update(self, now_ms: float, total: float) -> float:
        """Register the total at `now_ms`; the rate per second over the window."""
        self._points.append((now_ms, total))
        while len(self._points) > 2 and now_ms - self._points[0][0] > self._window_ms:
            self._points.popleft()
        (start_ms, start), (end_ms, end) = self._points[0], self._points[-1]
        return (end - start) * 1000 / (end_ms - start_ms) if end_ms > start_ms else 0.0
