"""Packetize: gathers the access units of one tick into one media message.

Headers cost as much as the content (51 bytes a message), so the tick sets the rate of a call. A message takes
what is ready: motion comes later than the speech of the same moment, because a network has to look at the
picture first, and waiting for it would delay the speech.
"""

from dataclasses import dataclass

from avcall.bitstream import packet as wire
from avcall.bitstream.motion import UNIT_BYTES, MotionMode
from avcall.bitstream.packet import MediaPacket
from avcall.types import AccessUnit, MediaKind
from sender.encode import MotionGroupEncoder
from sender.ratecontrol import Rung

THIN_GAP_MS = 70  # at half the frames, one that comes sooner after the last is left out
MAX_PENDING_UNITS = 48  # two seconds of units that nobody polled for; then the oldest go


@dataclass(frozen=True, slots=True)
class PacketizerStats:
    """Counts since the start; `motion_bytes` and `audio_bytes` are bare payloads.

    `refused_units` had an old pts; `overflowed_units` were never polled; `thinned_units` of motion were left
    out to save bits. Speech that is repeated counts again.
    """

    packets: int
    motion_units: int
    audio_units: int
    motion_bytes: int
    audio_bytes: int
    refused_units: int
    overflowed_units: int
    thinned_units: int


class Packetizer:
    """Collects units and emits them every `tick_ms` of the caller's clock."""

    def __init__(self, tick_ms: int, group: MotionGroupEncoder | None = None) -> None:
        """With `group` motion travels coded, without it in half floats."""
        if tick_ms <= 0:
            raise ValueError(f"a tick takes more than 0 ms, not {tick_ms}")
        self._tick_ms = tick_ms
        self._every = 1
        self._with_motion = True
        self._repeat = False
        self._repeated: list[AccessUnit] = []  # the speech of the last packet
        self._group = group
        self._pending: list[AccessUnit] = []
        self._due_ms: float | None = None
        self._sequence = 0
        self._last_pts_ms: dict[MediaKind, int] = {}
        self._packets = 0
        self._sent = dict.fromkeys(MediaKind, 0)
        self._sent_bytes = dict.fromkeys(MediaKind, 0)
        self._refused = 0
        self._overflowed = 0
        self._thinned = 0

    def configure(self, rung: Rung, *, repeat_audio: bool) -> None:
        """Go on at `rung` from the next packet on; with `repeat_audio` each repeats the last one's speech."""
        self._tick_ms, self._every, self._with_motion = rung.tick_ms, rung.every, rung.motion
        self._repeat = repeat_audio

    def push(self, unit: AccessUnit) -> bool:
        """Take a unit for the coming message; False when its pts is not after the last of its medium."""
        if unit.pts_ms <= self._last_pts_ms.get(unit.kind, -1):
            self._refused += 1
            return False
        if unit.kind is MediaKind.MOTION and self._is_thinned(unit):
            self._thinned += 1
            return False
        self._last_pts_ms[unit.kind] = unit.pts_ms
        self._pending.append(unit)
        if len(self._pending) > MAX_PENDING_UNITS:
            del self._pending[0]
            self._overflowed += 1
        return True

    def poll(self, now_ms: float) -> list[bytes]:
        """The messages that are due: none before the tick is over, usually one, more if one is too small.

        The first tick starts with the first poll that finds a unit. Raises PacketError or AudioFormatError
        for a unit that may not go on the wire.
        """
        if self._due_ms is None:
            self._due_ms = now_ms + self._tick_ms if self._pending else None
            return []
        if now_ms < self._due_ms:
            return []
        next_ms = self._due_ms + self._tick_ms
        # A caller that slept for several ticks must not send several messages in a row.
        self._due_ms = next_ms if next_ms > now_ms else now_ms + self._tick_ms
        return self.flush()

    def flush(self) -> list[bytes]:
        """The messages for everything that is pending, whether the tick is over or not."""
        units = sorted(self._pending, key=lambda unit: unit.pts_ms)
        self._pending.clear()
        messages = []
        while units:
            count = _fitting(units)
            messages.append(self._serialize(units[:count]))
            del units[:count]
        return messages

    def stats(self) -> PacketizerStats:
        """Counts since the start."""
        return PacketizerStats(
            packets=self._packets,
            motion_units=self._sent[MediaKind.MOTION],
            audio_units=self._sent[MediaKind.AUDIO],
            motion_bytes=self._sent_bytes[MediaKind.MOTION],
            audio_bytes=self._sent_bytes[MediaKind.AUDIO],
            refused_units=self._refused,
            overflowed_units=self._overflowed,
            thinned_units=self._thinned,
        )

    def _is_thinned(self, unit: AccessUnit) -> bool:
        gap_ms = unit.pts_ms - self._last_pts_ms.get(unit.kind, -THIN_GAP_MS)
        return not self._with_motion or (self._every > 1 and gap_ms < THIN_GAP_MS)

    def _serialize(self, units: list[AccessUnit]) -> bytes:
        motion = tuple(unit for unit in units if unit.kind is MediaKind.MOTION)
        audio = tuple(unit for unit in units if unit.kind is MediaKind.AUDIO)
        audio, self._repeated = self._with_repeated(audio, units), list(audio)
        coded = self._group.encode(motion) if self._group is not None and motion else None
        plain = motion if coded is None else ()
        pts_ms = min(unit.pts_ms for unit in (*units, *audio))
        data = wire.serialize(MediaPacket(self._sequence, pts_ms, plain, audio, coded))
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._packets += 1
        self._sent[MediaKind.MOTION] += len(motion)
        self._sent[MediaKind.AUDIO] += len(audio)
        plain_bytes = len(motion) * UNIT_BYTES[MotionMode.FP16]
        motion_bytes = plain_bytes if coded is None else len(coded.payload)
        self._sent_bytes[MediaKind.MOTION] += motion_bytes
        self._sent_bytes[MediaKind.AUDIO] += sum(len(unit.payload) for unit in audio)
        return data

    def _with_repeated(
        self, audio: tuple[AccessUnit, ...], units: list[AccessUnit]
    ) -> tuple[AccessUnit, ...]:
        """`audio` behind as much of the last packet's speech as there is room for."""
        if not self._repeat:
            return audio
        room = wire.MAX_UNITS - len(audio)
        newest_ms = max(unit.pts_ms for unit in units)
        near = [unit for unit in self._repeated if newest_ms - unit.pts_ms <= wire.MAX_OFFSET_MS]
        again = near[-room:] if room else []
        size_bytes = sum(map(wire.unit_size_bytes, (*units, *again)))
        if wire.header_size_bytes() + size_bytes > wire.MAX_MESSAGE_BYTES:
            return audio
        return (*again, *audio)


def _fitting(units: list[AccessUnit]) -> int:
    """How many of `units`, by increasing pts, go into one message: at least one."""
    size_bytes = wire.header_size_bytes()
    counts = dict.fromkeys(MediaKind, 0)
    last_motion: AccessUnit | None = None
    for index, unit in enumerate(units):
        size_bytes += wire.unit_size_bytes(unit)
        counts[unit.kind] += 1
        too_many = counts[unit.kind] > wire.MAX_UNITS
        too_far = unit.pts_ms - units[0].pts_ms > wire.MAX_OFFSET_MS
        if index and (too_many or too_far or size_bytes > wire.MAX_MESSAGE_BYTES):
            return index
        if unit.kind is MediaKind.MOTION:
            # Coded frames share their keyframe, and the gap between two of them is one byte.
            if last_motion is not None and not _go_together(last_motion, unit):
                return index
            last_motion = unit
    return len(units)


def _go_together(first: AccessUnit, second: AccessUnit) -> bool:
    same = first.keyframe_index == second.keyframe_index
    return same and second.pts_ms - first.pts_ms <= wire.MAX_GAP_MS
