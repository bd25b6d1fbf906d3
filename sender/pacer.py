"""Pacer: decides what goes to the transport now. Media first, keyframes in slices, stale media never.

A keyframe sent at once would sit in front of the media for hundreds of ms on a slow link; released slice by
slice, it delays each message by one slice at most. The transport cannot take back what it was given, so media
that waited too long is dropped here.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from avcall.bitstream.keyframe import MAX_SLICE_BYTES, reslice
from avcall.transport.base import Channel

MAX_MEDIA_MESSAGES = 32  # over a second of ticks; the receiver would find older ones late
MAX_CONTROL_MESSAGES = 64
MAX_KEYFRAMES = 4  # as many as may be live at once
ALIGN_ABOVE_MS = 60.0  # between slices: the link is slow, and slices wait for the right moment,
ALIGNED_MS = 10.0  # which is so soon after media, or
MEDIA_GONE_MS = 300.0  # when there is no media


@dataclass(frozen=True, slots=True)
class PacerStats:
    """Counts since the start: what was released, and what was dropped as stale or for lack of room."""

    released_media: int
    released_control: int
    released_slices: int
    stale_media: int
    overflowed: int


class Pacer:
    """Queues between packetizer and transport; every queue is bounded and drops its oldest."""

    def __init__(self, interval_ms: float = 20.0, max_age_ms: float = 400.0) -> None:
        """Release a keyframe slice every `interval_ms` at most; drop media older than `max_age_ms`."""
        if interval_ms <= 0 or max_age_ms <= 0:
            raise ValueError(f"interval {interval_ms} ms and age {max_age_ms} ms must be above 0")
        self._interval_ms = interval_ms
        self._max_age_ms = max_age_ms
        self._media: deque[tuple[float, bytes]] = deque()
        self._control: deque[bytes] = deque()
        self._keyframes: deque[deque[bytes]] = deque()
        self._slice_bytes = MAX_SLICE_BYTES
        self._slice_ms = float("-inf")  # when the last one was released,
        self._media_ms = float("-inf")  # and the last media
        self._cut = False  # whether the first keyframe of the queue has its final slices
        self._released = dict.fromkeys(("media", "control", "slices"), 0)
        self._stale = 0
        self._overflowed = 0

    def set_pace(self, interval_ms: float, slice_bytes: int) -> None:
        """Release slices of at most `slice_bytes` every `interval_ms`; a begun keyframe keeps its slices.

        Slow ones go right behind media, so that the link has the rest of the tick for them.
        """
        self._interval_ms, self._slice_bytes = interval_ms, slice_bytes

    @property
    def pending_slices(self) -> int:
        """Keyframe slices that still wait."""
        return sum(len(slices) for slices in self._keyframes)

    def push_media(self, message: bytes, now_ms: float) -> None:
        """Queue a media message made at `now_ms`."""
        self._media.append((now_ms, message))
        if len(self._media) > MAX_MEDIA_MESSAGES:
            self._media.popleft()
            self._overflowed += 1

    def push_control(self, message: bytes) -> None:
        """Queue a control message; it goes out with the next `pop`, before any slice."""
        self._control.append(message)
        if len(self._control) > MAX_CONTROL_MESSAGES:
            self._control.popleft()
            self._overflowed += 1

    def push_keyframe(self, slices: Sequence[bytes]) -> None:
        """Queue the slices of one keyframe. A fifth keyframe pushes the oldest out whole."""
        if not slices:
            return
        self._keyframes.append(deque(slices))
        if len(self._keyframes) > MAX_KEYFRAMES:
            self._overflowed += len(self._keyframes.popleft())
            self._cut = False

    def pop(
        self, now_ms: float, *, media_open: bool = True, slices_open: bool = True
    ) -> list[tuple[Channel, bytes]]:
        """What to send now, in this order: fresh media, control messages, at most one keyframe slice.

        While the transport is behind, media (`media_open` False) and slices (`slices_open` False) stay here,
        where stale media is still dropped.
        """
        ready: list[tuple[Channel, bytes]] = []
        while self._media and now_ms - self._media[0][0] > self._max_age_ms:
            self._media.popleft()
            self._stale += 1
        while self._media and media_open:
            ready.append((Channel.MEDIA, self._media.popleft()[1]))
            self._released["media"] += 1
            self._media_ms = now_ms
        ready.extend((Channel.CONTROL, message) for message in self._control)
        self._released["control"] += len(self._control)
        self._control.clear()
        if self._keyframes and slices_open and self._slice_is_due(now_ms):
            ready.append((Channel.CONTROL, self._pop_slice()))
            self._slice_ms = now_ms
        return ready

    def stats(self) -> PacerStats:
        """Counts since the start."""
        return PacerStats(
            released_media=self._released["media"],
            released_control=self._released["control"],
            released_slices=self._released["slices"],
            stale_media=self._stale,
            overflowed=self._overflowed,
        )

    def _slice_is_due(self, now_ms: float) -> bool:
        if now_ms - self._slice_ms < self._interval_ms:
            return False
        since_media_ms = now_ms - self._media_ms
        return self._interval_ms < ALIGN_ABOVE_MS or not ALIGNED_MS < since_media_ms < MEDIA_GONE_MS

    def _pop_slice(self) -> bytes:
        if not self._cut:
            if max(map(len, self._keyframes[0])) > self._slice_bytes:
                self._keyframes[0] = deque(reslice(self._keyframes[0], self._slice_bytes))
            self._cut = True
        message = self._keyframes[0].popleft()
        if not self._keyframes[0]:
            self._keyframes.popleft()
            self._cut = False
        self._released["slices"] += 1
        return message
