"""Queue: how long packets wait in the network now, from when units were made and when they came.

The transit of a unit (arrival - pts) means nothing by itself, since the clocks differ; but packets that queue
up come later and later. So the least transit of the last second is set against the least of the last half
minute, for each medium by itself: motion takes longer than speech, and a packet that comes at the end of its
tick brings units of different ages, of which the freshest counts.
"""

from collections import deque

from avcall.types import MediaKind

RECENT_MS = 1_000.0  # several packets of the longest tick
BASE_MS = 30_000.0  # after that long, a queue that never empties counts as distance


class _LeastOf:
    """The least of the values of the last `window_ms` (a monotonic queue)."""

    def __init__(self, window_ms: float) -> None:
        self._window_ms = window_ms
        self._points: deque[tuple[float, float]] = deque()

    def add(self, now_ms: float, value: float) -> None:
        while self._points and self._points[-1][1] >= value:
            self._points.pop()
        self._points.append((now_ms, value))

    def least(self, now_ms: float) -> float | None:
        while self._points and now_ms - self._points[0][0] > self._window_ms:
            self._points.popleft()
        return self._points[0][1] if self._points else None


class QueueEstimator:
    """Transits in, the delay that queues add out."""

    def __init__(self) -> None:
        self._recent = {kind: _LeastOf(RECENT_MS) for kind in MediaKind}
        self._base = {kind: _LeastOf(BASE_MS) for kind in MediaKind}

    def add(self, kind: MediaKind, pts_ms: int, now_ms: float) -> None:
        """A unit of `kind` came at `now_ms` for the first time."""
        self._recent[kind].add(now_ms, now_ms - pts_ms)
        self._base[kind].add(now_ms, now_ms - pts_ms)

    def queue_ms(self, now_ms: float) -> float:
        """By how much packets come later than they can; 0 when none came lately."""
        found = [
            recent - base
            for kind in MediaKind
            if (recent := self._recent[kind].least(now_ms)) is not None
            and (base := self._base[kind].least(now_ms)) is not None
        ]
        return max(0.0, min(found, default=0.0))
