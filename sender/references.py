"""References: the keyframes that the receiver holds, which one motion animates, and when a new one is due.

How well a reference serves is predicted as one number: the mean absolute difference between the warped
keyframe and the camera's picture at 64x64, where white is 1. It follows the perceptual distance of the
synthesized picture (docs/bitrate.md). The preview graph measures it now and then (`Estimate`); from one frame
to the next it is carried on by how far the keypoints have moved, in the space of the motion coder. Without
that graph the distance alone predicts it, which is less sure.

Pure: time is the pts of the frames.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from avcall.bitstream.live import MAX_LIVE_KEYFRAMES, LiveKeyframes
from avcall.bitstream.motion_coded import flatten
from avcall.bitstream.packet import KEYFRAME_INDICES
from avcall.types import Keypoints
from sender.encode import EncodedKeyframe

BASE_ERROR = 0.01  # of a keyframe in its own pose
UNSURE = 2.0  # times that, while the preview graph has not looked at a reference
ERROR_PER_DISTANCE = 0.03  # fitted on the validation clips
SERVES_ERROR = 0.06  # a reference with a larger predicted error does not serve
OF_LEAST_ERROR = 1.5  # unless it is below this much of the least that any reference reached: noise, flicker
BAD_FOR_MS = 400  # none serves for so long: a new keyframe is due; a blink or a gesture is shorter
STAY_MS = 1_000  # with a reference: a change is seen, and splits a packet in two
BETTER = 0.8  # of the present reference's error: what another must promise to take over
ORDER_GAP_MS = (
    10_000  # between new keyframes: the first that none serves may be a pose that never comes again
)
RETRY_MS = 10_000  # a keyframe that was ordered or sent and not acknowledged for so long is given up
MINUTE_MS = 60_000
COARSE_ERROR = 0.002  # that coding with few bits is worth beside a sharp keyframe: docs/bitrate.md


def distance(one: Keypoints, other: Keypoints) -> float:
    """Between two poses: Euclidean over the motion coder's 60 numbers; 0.1 is a nod, 1 a turned head."""
    return float(np.linalg.norm(flatten(one) - flatten(other)))


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the preview graph found for one reference: the error, and the pose's distance at that moment."""

    index: int
    error: float
    distance: float


class KeyframeBudget:
    """How many bits new keyframes may take in any minute of the call.

    Keyframes of the start and those that the receiver asks for are not charged.
    """

    def __init__(self, bits_per_minute: float = 0.0) -> None:
        self.bits_per_minute = bits_per_minute
        self._spent: deque[tuple[int, float]] = deque()

    def allows(self, bits: float, pts_ms: int) -> bool:
        """Whether `bits` may be spent now."""
        while self._spent and pts_ms - self._spent[0][0] >= MINUTE_MS:
            self._spent.popleft()
        return bits > 0 and sum(spent for _, spent in self._spent) + bits <= self.bits_per_minute

    def spend(self, bits: float, pts_ms: int) -> None:
        """Charge a keyframe."""
        self._spent.append((pts_ms, bits))


@dataclass(slots=True)
class _Reference:
    keyframe: EncodedKeyframe
    acknowledged: bool = False
    superseded: bool = False  # by one of the same picture
    used_ms: int = -1
    measured: Estimate | None = None
    least_error: float = 0.0  # measured so far

    @property
    def passing(self) -> bool:
        """Whether it is there only until a better one of the same picture is."""
        return self.keyframe.preliminary or self.superseded

    @property
    def sharp(self) -> bool:
        """Whether it was sent for its sharpness."""
        return self.keyframe.instead_of is not None

    def error(self, to: float) -> float:
        """Predicted for a pose that is `to` away."""
        if self.measured is None:
            return BASE_ERROR + UNSURE * ERROR_PER_DISTANCE * to
        carried = self.measured.error + ERROR_PER_DISTANCE * (to - self.measured.distance)
        return max(carried, 0.0)


class ReferenceSet:
    """The live keyframes as the sender knows them."""

    def __init__(
        self, budget: KeyframeBudget | None = None, keyframe_bytes: int = 0, sharp_bytes: int = 0
    ) -> None:
        """`keyframe_bytes` is what a new keyframe may take; without a budget there are no new ones.

        `sharp_bytes` is what the first one may take when it is sent once more; 0: it is not.
        """
        self.budget = budget or KeyframeBudget()
        self._keyframe_bits = keyframe_bytes * 8
        self._sharp_bits = sharp_bytes * 8  # 0 once it was ordered
        self._first: int | None = None  # the index of the first full keyframe
        self._live: LiveKeyframes[_Reference] = LiveKeyframes()
        self._current: _Reference | None = None
        self._changed_ms = -STAY_MS
        self._bad_since_ms: int | None = None
        self._awaited_ms: int | None = None  # since when a new keyframe is ordered, or on its way
        self._ordered_ms = -ORDER_GAP_MS
        self._charge_next = False
        self.candidates: tuple[EncodedKeyframe, ...] = ()  # the current one first; replaced as a whole

    @property
    def current(self) -> EncodedKeyframe | None:
        """The reference that motion animates; None until one is acknowledged."""
        return self._current.keyframe if self._current else None

    def next_index(self) -> int:
        """The index for a new keyframe: that of a free place, else of the one least in need.

        One that a better one of the same picture replaces goes first, then the one unused for longest; the
        current one stays.
        """
        held = {ref.keyframe.index % MAX_LIVE_KEYFRAMES: ref for ref in self._live.values()}
        for place in range(MAX_LIVE_KEYFRAMES):
            if place not in held:
                return place
        others = [ref for ref in held.values() if ref is not self._current]
        victim = min(others, key=lambda ref: (not ref.passing, ref.used_ms))
        return (victim.keyframe.index + MAX_LIVE_KEYFRAMES) % KEYFRAME_INDICES

    def push(self, keyframe: EncodedKeyframe, pts_ms: int) -> None:
        """A keyframe is on its way. The one whose place it takes is animated no more."""
        if self._charge_next:
            self.budget.spend(8 * sum(len(message) for message in keyframe.slices), pts_ms)
            self._charge_next = False
        if self._first is None and not keyframe.preliminary:
            self._first = keyframe.index
        replaced = self._current
        self._live.put(keyframe.index, _Reference(keyframe))
        if replaced is not None and replaced not in self._usable():
            self._current = None
        self._awaited_ms = pts_ms
        self._refresh()

    def acknowledge(self, index: int, pts_ms: int) -> None:
        """The receiver holds keyframe `index`; what is no live keyframe is ignored."""
        reference = self._live.get(index)
        if reference is None or reference.acknowledged:
            return
        reference.acknowledged = True
        reference.used_ms = pts_ms
        if not reference.keyframe.preliminary:
            self._awaited_ms = None
            self._bad_since_ms = None
        coarser_index = reference.keyframe.instead_of
        coarser = None if coarser_index is None else self._live.get(coarser_index)
        if coarser is not None:
            coarser.superseded = True
        replaces = self._current is None or self._current is coarser
        if replaces or not (reference.sharp or reference.passing):
            self._take(reference, pts_ms)
        else:
            self._refresh()

    def choose(self, keypoints: Keypoints, pts_ms: int) -> int | None:
        """The index of the reference for this pose; None until one is acknowledged."""
        usable = self._usable()
        if not usable:
            return None
        errors = {id(ref): ref.error(distance(ref.keyframe.keypoints, keypoints)) for ref in usable}
        if any(ref.sharp for ref in usable):
            errors |= {id(ref): errors[id(ref)] + COARSE_ERROR for ref in usable if not ref.sharp}
        best = min(usable, key=lambda ref: errors[id(ref)])
        current = self._current
        if current is None or (
            pts_ms - self._changed_ms >= STAY_MS and errors[id(best)] < BETTER * errors[id(current)]
        ):
            current = self._take(best, pts_ms)
        current.used_ms = pts_ms
        if errors[id(best)] <= self._serves_error(usable):
            self._bad_since_ms = None
        elif self._bad_since_ms is None:
            self._bad_since_ms = pts_ms
        return current.keyframe.index

    def measured(self, estimates: tuple[Estimate, ...]) -> None:
        """What the preview graph found."""
        for estimate in estimates:
            reference = self._live.get(estimate.index)
            if reference is not None:
                first = reference.measured is None
                reference.least_error = (
                    estimate.error if first else min(reference.least_error, estimate.error)
                )
                reference.measured = estimate

    def order(self, pts_ms: int) -> int | None:
        """The index of a new keyframe when none of the references serves and the budget allows one."""
        if self._bad_since_ms is None or pts_ms - self._bad_since_ms < BAD_FOR_MS:
            return None
        if self._awaited_ms is not None and pts_ms - self._awaited_ms < RETRY_MS:
            return None
        if pts_ms - self._ordered_ms < ORDER_GAP_MS:
            return None
        if not self.budget.allows(self._keyframe_bits, pts_ms):
            return None
        self._awaited_ms = self._ordered_ms = pts_ms
        self._charge_next = True
        return self.next_index()

    def order_sharper(self, pts_ms: int, bits_per_minute: float) -> int | None:
        """The index for the first keyframe sent again with more bits, once in a call; None: not now.

        It needs the first one in use, nothing on its way, and a minute that carries it: `bits_per_minute` is
        what the link has for keyframes.
        """
        current = self._current
        if current is None or current.keyframe.index != self._first or self._awaited_ms is not None:
            return None
        if not 0 < self._sharp_bits <= bits_per_minute:
            return None
        self._sharp_bits = 0
        self._awaited_ms = pts_ms
        return self.next_index()

    def missing(self) -> EncodedKeyframe | None:
        """What to send again when the receiver says that it lacks a keyframe.

        It does not say which: nothing but the current one is trusted any more.
        """
        waiting = [ref.keyframe for ref in self._live.values() if not ref.acknowledged]
        for reference in list(self._live.values()):
            if reference.acknowledged and reference is not self._current:
                self._live.drop(reference.keyframe.index)
        self._refresh()
        full = [keyframe for keyframe in waiting if not keyframe.preliminary]
        return next(iter(full or waiting), self.current)

    def _usable(self) -> list[_Reference]:
        """The acknowledged ones; one that a better one is to replace only while there is no other."""
        known = [ref for ref in self._live.values() if ref.acknowledged]
        return [ref for ref in known if not ref.passing] or known

    def _serves_error(self, usable: list[_Reference]) -> float:
        """The largest error with which a reference serves."""
        least = min((ref.least_error for ref in usable if ref.measured), default=0.0)
        return max(SERVES_ERROR, OF_LEAST_ERROR * least)

    def _take(self, reference: _Reference, pts_ms: int) -> _Reference:
        self._current = reference
        self._changed_ms = pts_ms
        self._refresh()
        return reference

    def _refresh(self) -> None:
        others = [ref.keyframe for ref in self._usable() if ref is not self._current]
        self.candidates = (self._current.keyframe, *others) if self._current else tuple(others)
