"""Jitter buffer: holds both media until they are due, and says what media time is due now.

Packets arrive unevenly, so playout runs behind the sender's clock by a delay that covers nearly all of them.
With transit = arrival - pts of a unit (its absolute value means nothing, the clocks differ):

    base    = the least transit of the last 10 s, of both media: the fastest way through the network
    jitter  = 97th percentile of transit - base, of the medium that comes later
    delay   = jitter + margin, within its limits
    media time = now - (base + delay)

Motion is later than speech by the time that inference takes; that is part of its jitter, so one clock plays
both in step. base + delay is raised at once, because units are late already (media time stands still
meanwhile), and lowered by at most 5 % of the time that passes (media time runs up to 5 % fast).

    FILLING   nothing is due yet; media time is None
    PLAYING   media time advances and never goes back
    STARVED   media time advances past everything that came; conceal. A unit ends it.

After a long starvation, or when for a second every unit was too late or impossibly early (the sender's clock
jumped), the buffer forgets everything and is FILLING again.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter

from avcall.bitstream.audio import SILENCE_LASTS_MS, is_silence
from avcall.types import AccessUnit, MediaKind

REMEMBERED_UNITS = 256  # of each medium: 10 s of speech
MAX_TRANSITS = 1024  # bounds the memory of a window when a peer floods

_pts = attrgetter("pts_ms")


class JitterState(Enum):
    """Where playout stands; see the module's description."""

    FILLING = "filling"
    PLAYING = "playing"
    STARVED = "starved"


@dataclass(frozen=True, slots=True)
class JitterBufferConfig:
    """Limits and speeds of a JitterBuffer."""

    min_delay_ms: float = 40.0
    max_delay_ms: float = 800.0  # above it people talk over each other, and losing units is the lesser evil
    margin_ms: float = 10.0  # on top of the jitter: the playout thread wakes up a little late
    window_ms: float = 10_000.0
    percentile: float = 0.97  # three units of a hundred may come too late: concealment hides them
    catch_up_rate: float = 0.05  # how much faster than real time media time may run
    capacity_units: int = 128  # of each medium: 5 s
    discontinuity_ms: float = 5_000.0  # a transit further than this from base belongs to another clock
    resync_after_ms: float = 1_000.0  # of refused units only
    refill_after_ms: float = 2_000.0  # of starvation


@dataclass(frozen=True, slots=True)
class JitterStats:
    """Counts of units since the start, and the delay now.

    `late` came after its time, `duplicate` twice, `implausible` with a pts far from all others, `overflowed`
    was pushed out by newer ones, `skipped` is audio that was held but never asked for.
    """

    state: JitterState
    accepted: int
    late: int
    duplicate: int
    implausible: int
    overflowed: int
    skipped: int
    starvations: int
    resyncs: int
    jitter_ms: float
    playout_delay_ms: float
    buffered_motion: int
    buffered_audio: int


class _TransitWindow:
    """Transits of the last `window_ms`, in order of arrival and sorted."""

    def __init__(self, window_ms: float) -> None:
        self._window_ms = window_ms
        self._by_arrival: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, now_ms: float, transit_ms: float) -> None:
        self._by_arrival.append((now_ms, transit_ms))
        insort(self._sorted, transit_ms)
        if len(self._sorted) > MAX_TRANSITS:
            self._drop_oldest()

    def expire(self, now_ms: float) -> None:
        while self._by_arrival and now_ms - self._by_arrival[0][0] > self._window_ms:
            self._drop_oldest()

    def least(self) -> float:
        return self._sorted[0]

    def percentile(self, share: float) -> float:
        return self._sorted[math.ceil(share * len(self._sorted)) - 1]

    def _drop_oldest(self) -> None:
        _, transit_ms = self._by_arrival.popleft()
        del self._sorted[bisect_left(self._sorted, transit_ms)]


class _DelayEstimator:
    """base, jitter and the offset base + delay, from the transits of both media."""

    def __init__(self, config: JitterBufferConfig) -> None:
        self._config = config
        self._windows = {kind: _TransitWindow(config.window_ms) for kind in MediaKind}
        self._updated_ms = 0.0
        self.base_ms = 0.0
        self.jitter_ms = 0.0
        self.offset_ms: float | None = None  # None before the first unit

    @property
    def delay_ms(self) -> float:
        return 0.0 if self.offset_ms is None else self.offset_ms - self.base_ms

    def is_plausible(self, transit_ms: float) -> bool:
        known = self.offset_ms is not None
        return not known or abs(transit_ms - self.base_ms) <= self._config.discontinuity_ms

    def add(self, kind: MediaKind, now_ms: float, transit_ms: float) -> None:
        self._windows[kind].add(now_ms, transit_ms)

    def update(self, now_ms: float, slew: bool) -> None:
        """Bring the offset to `now_ms`; lower it slowly if `slew`, at once if not."""
        for window in self._windows.values():
            window.expire(now_ms)
        windows = [window for window in self._windows.values() if len(window)]
        if not windows:
            return
        config = self._config
        self.base_ms = min(window.least() for window in windows)
        self.jitter_ms = max(window.percentile(config.percentile) for window in windows) - self.base_ms
        delay_ms = min(max(self.jitter_ms + config.margin_ms, config.min_delay_ms), config.max_delay_ms)
        target_ms = self.base_ms + delay_ms
        if slew and self.offset_ms is not None:
            allowed_ms = config.catch_up_rate * max(now_ms - self._updated_ms, 0.0)
            target_ms = max(target_ms, self.offset_ms - allowed_ms)
        self.offset_ms = target_ms
        self._updated_ms = now_ms


class _Shelf:
    """The units of one medium by pts, and how far they were played."""

    def __init__(self) -> None:
        self.units: list[AccessUnit] = []
        self.played_until_ms = -math.inf
        self.popped_pts_ms = -1
        self._known: deque[int] = deque(maxlen=REMEMBERED_UNITS)

    def is_late(self, unit: AccessUnit) -> bool:
        past = unit.pts_ms + unit.duration_ms <= self.played_until_ms
        return past or unit.pts_ms <= self.popped_pts_ms

    def knows(self, unit: AccessUnit) -> bool:
        """Whether a unit of that pts has come before, be it held, played or refused."""
        return unit.pts_ms in self._known

    def remember(self, unit: AccessUnit) -> None:
        self._known.append(unit.pts_ms)

    def insert(self, unit: AccessUnit, capacity: int) -> bool:
        """Put `unit` in its place; True when the oldest had to go for it."""
        insort(self.units, unit, key=_pts)
        if len(self.units) <= capacity:
            return False
        del self.units[0]
        return True

    def pop_first(self) -> AccessUnit:
        unit = self.units.pop(0)
        self.popped_pts_ms = unit.pts_ms
        return unit


class _Timeline:
    """Everything that a resync forgets."""

    def __init__(self, config: JitterBufferConfig) -> None:
        self.state = JitterState.FILLING
        self.estimator = _DelayEstimator(config)
        self.shelves = {kind: _Shelf() for kind in MediaKind}
        self.media_ms = -math.inf
        self.horizon_ms = -math.inf  # the end of the newest unit
        self.starved_ms = 0.0  # since when STARVED
        self.refused_ms: float | None = None  # since when nothing but refusals

    def update_delay(self, now_ms: float) -> None:
        self.estimator.update(now_ms, slew=self.state is not JitterState.FILLING)

    def first_pts_ms(self) -> float:
        return min(
            (shelf.units[0].pts_ms for shelf in self.shelves.values() if shelf.units), default=math.inf
        )


class JitterBuffer:
    """Holds units of both media and the playout clock; time is an argument, in ms of any monotonic clock.

    Not safe to share between threads.
    """

    def __init__(self, config: JitterBufferConfig | None = None) -> None:
        self._config = config or JitterBufferConfig()
        self._counts = dict.fromkeys(
            ("accepted", "late", "duplicate", "implausible", "overflowed", "skipped"), 0
        )
        self._starvations = 0
        self._resyncs = 0
        self._line = _Timeline(self._config)

    @property
    def state(self) -> JitterState:
        """The state as of the last call."""
        return self._line.state

    @property
    def playout_delay_ms(self) -> float:
        """How far playout runs behind the fastest arrival."""
        return self._line.estimator.delay_ms

    def push(self, unit: AccessUnit, now_ms: float, ready_in_ms: float = 0.0) -> bool:
        """Take a unit that arrived at `now_ms`; False when it is late, a repeat, or of an impossible pts.

        A unit that takes `ready_in_ms` to be made use of, such as motion that has to be drawn, is waited for
        by so much longer.
        """
        if (
            self._line.state is JitterState.STARVED
            and now_ms - self._line.starved_ms > self._config.refill_after_ms
        ):
            self._resync()
        reason = self._refusal(unit, now_ms, ready_in_ms)
        if reason in ("late", "implausible"):
            self._line.refused_ms = now_ms if self._line.refused_ms is None else self._line.refused_ms
            if now_ms - self._line.refused_ms >= self._config.resync_after_ms:
                self._resync()
                reason = self._refusal(unit, now_ms, ready_in_ms)
        if reason is not None:
            self._counts[reason] += 1
            return False
        self._accept(unit)
        return True

    def media_time_ms(self, now_ms: float) -> float | None:
        """The media time to play at `now_ms`; None while FILLING, else never going back."""
        line = self._line
        line.update_delay(now_ms)
        if line.estimator.offset_ms is None:
            return None
        due_ms = now_ms - line.estimator.offset_ms
        if line.state is JitterState.FILLING:
            if due_ms < line.first_pts_ms():
                return None
            line.state = JitterState.PLAYING
        line.media_ms = max(line.media_ms, due_ms)
        if line.state is JitterState.PLAYING and line.media_ms >= line.horizon_ms:
            line.state = JitterState.STARVED
            line.starved_ms = now_ms
            self._starvations += 1
        return line.media_ms

    def pop_audio(self, pts_ms: float) -> AccessUnit | None:
        """The audio unit that covers `pts_ms`, or None: conceal. Older ones are dropped."""
        shelf = self._line.shelves[MediaKind.AUDIO]
        shelf.played_until_ms = max(shelf.played_until_ms, pts_ms)
        while shelf.units and shelf.units[0].pts_ms + shelf.units[0].duration_ms <= pts_ms:
            del shelf.units[0]
            self._counts["skipped"] += 1
        if shelf.units and shelf.units[0].pts_ms <= pts_ms:
            return shelf.pop_first()
        return None

    def pop_motion(self, media_ms: float) -> list[AccessUnit]:
        """All motion units with pts <= `media_ms`, by increasing pts."""
        shelf = self._line.shelves[MediaKind.MOTION]
        shelf.played_until_ms = max(shelf.played_until_ms, media_ms)
        due = []
        while shelf.units and shelf.units[0].pts_ms <= media_ms:
            due.append(shelf.pop_first())
        return due

    def next_motion(self) -> AccessUnit | None:
        """The motion unit that is due next, if one has arrived; it stays."""
        units = self._line.shelves[MediaKind.MOTION].units
        return units[0] if units else None

    def next_audio_pts_ms(self) -> int | None:
        """The pts of the oldest audio unit that waits, if there is one."""
        units = self._line.shelves[MediaKind.AUDIO].units
        return units[0].pts_ms if units else None

    def stats(self) -> JitterStats:
        """Counts since the start, and the delay as of the last call."""
        return JitterStats(
            state=self._line.state,
            **self._counts,
            starvations=self._starvations,
            resyncs=self._resyncs,
            jitter_ms=self._line.estimator.jitter_ms,
            playout_delay_ms=self._line.estimator.delay_ms,
            buffered_motion=len(self._line.shelves[MediaKind.MOTION].units),
            buffered_audio=len(self._line.shelves[MediaKind.AUDIO].units),
        )

    def _resync(self) -> None:
        self._line = _Timeline(self._config)
        self._resyncs += 1

    def _refusal(self, unit: AccessUnit, now_ms: float, ready_in_ms: float) -> str | None:
        """Why `unit` is refused, or None. A late unit still teaches that the delay is too short."""
        transit_ms = now_ms + ready_in_ms - unit.pts_ms
        if not self._line.estimator.is_plausible(transit_ms):
            return "implausible"
        shelf = self._line.shelves[unit.kind]
        if shelf.knows(unit):
            return "duplicate"  # which teaches nothing: speech is repeated on purpose, a packet later
        shelf.remember(unit)
        self._line.estimator.add(unit.kind, now_ms, transit_ms)
        self._line.update_delay(now_ms)
        return "late" if shelf.is_late(unit) else None

    def _accept(self, unit: AccessUnit) -> None:
        self._counts["accepted"] += 1
        self._line.refused_ms = None
        if self._line.shelves[unit.kind].insert(unit, self._config.capacity_units):
            self._counts["overflowed"] += 1
        silent = unit.kind is MediaKind.AUDIO and is_silence(unit.payload)
        lasts_ms = SILENCE_LASTS_MS if silent else unit.duration_ms
        self._line.horizon_ms = max(self._line.horizon_ms, unit.pts_ms + lasts_ms)
        if self._line.state is JitterState.STARVED and self._line.horizon_ms > self._line.media_ms:
            self._line.state = JitterState.PLAYING
