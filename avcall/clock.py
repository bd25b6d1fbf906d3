"""The one place that reads the machine's clock; everything else takes the time as an argument."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock in milliseconds."""

    def now_ms(self) -> float:
        """Milliseconds since an arbitrary, fixed start."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def now_ms(self) -> float:
        """Milliseconds since an arbitrary, fixed start."""
        return time.monotonic() * 1000.0


class ManualClock:
    """A clock that moves only when told to: virtual time for loopback runs and tests."""

    def __init__(self, start_ms: float = 0.0) -> None:
        self._now_ms = start_ms

    def now_ms(self) -> float:
        """Milliseconds of virtual time."""
        return self._now_ms

    def advance(self, delta_ms: float) -> None:
        """Move the clock forward by `delta_ms` >= 0."""
        if delta_ms < 0:
            raise ValueError(f"a clock cannot go back ({delta_ms} ms)")
        self._now_ms += delta_ms


WAIT_SLICE_MS = 20.0  # longest nap of `wait_until`: a clock that jumps is noticed this soon


def wait_until(clock: Clock, due_ms: float, stop: threading.Event) -> bool:
    """Block this thread until `clock` reads `due_ms`; False as soon as `stop` is set, else True."""
    while (remaining_ms := due_ms - clock.now_ms()) > 0:
        if stop.wait(min(remaining_ms, WAIT_SLICE_MS) / 1000.0):
            return False
    return not stop.is_set()
