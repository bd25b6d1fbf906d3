"""Rate control: what the link carries, and what to send through it. Pure: time is an argument.

The estimate is a rate that adapts like TCP's: it falls to 85 % of what arrived when the link shows that it is
full, and rises by 8 % a second after it has not done so for two. The link is full when

  - a report says that packets queue up: their one-way delay is `QUEUED_MS`, or a tick if that is longer,
    above its least value, and no smaller than in the last report;
  - reports say that more than 15 % of the packets of the last five seconds were lost;
  - what was handed to the transport has not left this end for `BACKLOG_MS`.

A rung of the ladder is what is sent: its cost on the wire, headers included, is known beforehand. The highest
rung that fits the estimate is taken; down at once, up one by one. The first has to leave a tenth of it.

    rung   tick        quantiser   frames a second   speech          about, in kbit/s
    0      the user's  the user's  25, deformed      the user's      21.4
    1      the user's  the user's  25                the user's      17.9
    2      80 ms       2 coarser   25                6 kbit/s        14.1
    3      120 ms      2 coarser   25                6 kbit/s        12.0
    4      120 ms      4 coarser   12.5              6 kbit/s        11.0
    5      160 ms      4 coarser   12.5              6 kbit/s        10.1
    6      240 ms      coarsest    12.5              6 kbit/s        9.1
    7      240 ms      none        0                 6 kbit/s        8.5

What the estimate leaves is for keyframes: a slice at a time, no larger than what passes between two media
packets with little delay for the second. Above 2 % loss every packet repeats the speech of the one before;
that is paid for like the rest.
"""

import math
from collections import deque
from dataclasses import dataclass, replace

from avcall.bitstream.control import Report
from avcall.bitstream.packet import MAX_UNITS, header_size_bytes
from avcall.transport.base import CONTROL_OVERHEAD_BYTES, MEDIA_OVERHEAD_BYTES

QUEUED_MS = 80.0  # of one-way delay above its least value: more than a tick of 80 ms jitters
SHRUNK = 0.9  # of the queue that the last report told of
BACKLOG_MS = 250.0
HEAVY_LOSS = 0.15  # below it, losses are the air's; above it, likely a queue that overflows
REPEAT_ABOVE_LOSS = 0.02
REPEAT_BELOW_LOSS = 0.01  # hysteresis
LOSS_WINDOW_MS = 5_000.0
MIN_LOSS_PACKETS = 20  # below so many packets, a loss says nothing of the link
DECREASE = 0.85
RISE_PER_S = 1.08
RISE_AFTER_MS = 2_000.0  # since the last decrease
DECREASE_EVERY_MS = 1_200.0  # a decrease shows after a round trip, the next report, and what had queued up
RUNG_HOLD_MS = 1_500.0  # before the next rung up
PROVEN_FACTOR = 1.5  # the estimate stays below so many times what was really sent, or the next rung's cost
KEYFRAME_SHARE = 0.4  # of what the media leave: small slices have large headers
START_BPS = 100_000.0
START_MS = 4_000.0  # in which the first pictures may go at START_BPS
MAX_BPS = 500_000.0
MIN_BPS = 8_000.0
HEADROOM = 0.97  # of the estimate is for media; keyframes and control messages need a little
DEFORMED_SHARE = 0.9  # of that, where lattices are told: keyframes come first
CONTROL_BPS = 250.0  # STUN, control messages and their acknowledgements
SLICE_DELAY_MS = 40.0  # that a slice may add to the media packet behind it
MIN_SLICE_BYTES, MAX_SLICE_BYTES = 160, 1100  # of a slice message
MIN_SLICE_BPS = 1_000.0
SLICE_INTERVAL_MS = 20.0  # the least between two slices
SENT_WINDOW_MS = 2_000.0
FIRST_PICTURE_TICK_MS = 120
NARROW_BPS = 20_000.0  # below, the first picture comes before quick speech: with the longest tick
LONGEST_TICK_MS = 240
MOTION_HEADER_BYTES = 4  # of coded motion in a packet
AUDIO_HEADER_BYTES = 2  # of an audio unit
FP16_MOTION_BPS = 24_600.0
CODED_MOTION_BPS = (3_900.0, 3_400.0, 2_800.0, 2_350.0, 1_950.0, 1_600.0, 1_300.0, 1_050.0)  # by step
LATTICE_BITS = (370.0, 320.0, 280.0, 230.0, 190.0, 150.0, 120.0, 90.0)  # of a packet, by step
LONG_TICK_FACTOR = 0.85  # of motion, from 120 ms on instead of 80: fewer first frames
HALF_RATE_FACTOR = 0.66  # of motion at half the frames: they differ more
COARSEST = 7


@dataclass(frozen=True, slots=True)
class RateConfig:
    """What the user wants when the link allows it; `max_bps` caps the wire, headers included."""

    tick_ms: int = 80
    motion_step: int | None = 2  # None: half floats
    audio_bps: int = 9_000
    audio_frame_ms: int = 40
    max_bps: float | None = None


@dataclass(frozen=True, slots=True)
class Rung:
    """What is sent of both media. `every` is 2 for 12.5 frames a second; `step` None for half floats.

    With `deforms`, lattices are told beside the keypoints.
    """

    tick_ms: int
    step: int | None
    every: int
    audio_bps: int
    motion: bool = True
    deforms: bool = False


@dataclass(frozen=True, slots=True)
class RateDecision:
    """What to do now: the rung, the repetition of speech, and the pace of keyframe slices.

    `keyframe_bits_per_minute` is what new keyframes may take of what the media leave.
    """

    level: int
    rung: Rung
    repeat_audio: bool
    slice_bytes: int
    slice_interval_ms: float
    keyframe_bits_per_minute: float
    target_bps: float


def ladder(config: RateConfig) -> tuple[Rung, ...]:
    """The rungs for a user's wishes, best first."""

    def rung(tick_ms: int, coarser: int, every: int) -> Rung:
        step = None if config.motion_step is None else min(config.motion_step + coarser, COARSEST)
        return Rung(max(config.tick_ms, tick_ms), step, every, min(config.audio_bps, 6_000))

    sound_only = replace(rung(LONGEST_TICK_MS, COARSEST, 2), motion=False)
    first = Rung(config.tick_ms, config.motion_step, 1, config.audio_bps)
    rungs = (
        replace(first, deforms=config.motion_step is not None),
        first,
        rung(80, 2, 1),
        rung(120, 2, 1),
        rung(120, 4, 2),
        rung(160, 4, 2),
        rung(LONGEST_TICK_MS, 7, 2),
    )
    return (*dict.fromkeys(rungs), sound_only)


def wire_bps(rung: Rung, audio_frame_ms: int, repeat_audio: bool = False) -> float:
    """What a rung costs on the wire while somebody speaks, headers and acknowledgements included."""
    headers_bytes = MEDIA_OVERHEAD_BYTES + header_size_bytes() + MOTION_HEADER_BYTES
    headers_bps = headers_bytes * 8000 / rung.tick_ms
    audio_bps = rung.audio_bps + AUDIO_HEADER_BYTES * 8000 / audio_frame_ms
    motion_bps = 0.0
    if rung.motion:
        motion_bps = FP16_MOTION_BPS if rung.step is None else CODED_MOTION_BPS[rung.step]
        if rung.step is None:
            motion_bps /= rung.every
        else:
            motion_bps *= LONG_TICK_FACTOR if rung.tick_ms >= 120 else 1.0
            motion_bps *= HALF_RATE_FACTOR if rung.every == 2 else 1.0
            lattice_bps = LATTICE_BITS[rung.step] * 1000 / rung.tick_ms
            motion_bps += lattice_bps if rung.deforms else 0.0
    units = math.ceil(rung.tick_ms / audio_frame_ms)
    repeated = min(units, MAX_UNITS - units) / units if repeat_audio else 0.0
    return headers_bps + audio_bps * (1 + repeated) + motion_bps + CONTROL_BPS


class RateController:
    """Reports and what was sent in, decisions out."""

    def __init__(self, config: RateConfig) -> None:
        self._config = config
        self._rungs = ladder(config)
        self._ceiling_bps = min(config.max_bps or MAX_BPS, MAX_BPS)
        self._target_bps = min(START_BPS, self._ceiling_bps)
        self._level = 0
        self._repeat = False
        self._report: Report | None = None
        self._report_ms = 0.0
        self._decreased_ms = self._settled_ms = float("-inf")
        self._updated_ms: float | None = None
        self._started_ms: float | None = None
        self._raised_ms = float("-inf")
        self._backlog_since_ms: float | None = None
        self._losses: deque[tuple[float, int, int]] = deque([(0.0, 0, 0)])
        self._sent: deque[tuple[float, int]] = deque()
        self._level = self._fitting()

    @property
    def target_bps(self) -> float:
        """The estimate: what may be put on the wire."""
        return self._target_bps

    def on_report(self, report: Report, now_ms: float) -> None:
        """What the receiver says."""
        before, elapsed_ms = self._report, now_ms - self._report_ms
        self._report, self._report_ms = report, now_ms
        loss = self._loss(report, now_ms)
        self._repeat = loss > (REPEAT_BELOW_LOSS if self._repeat else REPEAT_ABOVE_LOSS)
        # A queue that shrinks is being mended already; what arrives then says how little is sent.
        shrinks = before is not None and report.queue_ms < SHRUNK * before.queue_ms
        # A long tick has long packets, which take that time themselves on a slow link.
        allowed_ms = max(QUEUED_MS, self._rungs[self._level].tick_ms)
        if (report.queue_ms > allowed_ms and not shrinks) or loss > HEAVY_LOSS:
            arrived_bps = None
            if before is not None and elapsed_ms >= 500:
                arrived_bps = (report.received_bytes - before.received_bytes) * 8000 / elapsed_ms
            self._decrease(now_ms, arrived_bps, report.queue_ms)

    def _loss(self, report: Report, now_ms: float) -> float:
        """The share of packets that were lost lately."""
        self._losses.append((now_ms, report.received_packets, report.lost_packets))
        while len(self._losses) > 2 and now_ms - self._losses[1][0] >= LOSS_WINDOW_MS:
            self._losses.popleft()
        _, received, lost = self._losses[0]
        lost = max(0, report.lost_packets - lost)
        total = max(0, report.received_packets - received) + lost
        return lost / total if total >= MIN_LOSS_PACKETS else 0.0

    def update(
        self, now_ms: float, sent_bytes: int, backlog_bytes: int, *, showing: bool = True
    ) -> RateDecision:
        """The decision for now.

        `sent_bytes` is the running total of the wire, `backlog_bytes` what waits at this end. `showing` is
        False until the receiver has a picture; then a slow link is for that picture first.
        """
        self._note_sent(now_ms, sent_bytes)
        if backlog_bytes == 0:
            self._backlog_since_ms = None
        elif self._backlog_since_ms is None:
            self._backlog_since_ms = now_ms
        elif now_ms - self._backlog_since_ms > BACKLOG_MS:
            self._decrease(now_ms, None)
        self._rise(now_ms)
        self._choose(now_ms)
        self._started_ms = now_ms if self._started_ms is None else self._started_ms
        return self._decision(showing, starting=now_ms - self._started_ms < START_MS)

    def _note_sent(self, now_ms: float, sent_bytes: int) -> None:
        self._sent.append((now_ms, sent_bytes))
        while now_ms - self._sent[0][0] > SENT_WINDOW_MS:
            self._sent.popleft()

    def _sent_bps(self) -> float | None:
        """What was put on the wire over the last two seconds; None until they are nearly full."""
        (start_ms, start), (end_ms, end) = self._sent[0], self._sent[-1]
        if end_ms - start_ms < SENT_WINDOW_MS / 2:
            return None
        return (end - start) * 8000 / (end_ms - start_ms)

    def _decrease(self, now_ms: float, arrived_bps: float | None, queue_ms: float = 0.0) -> None:
        if now_ms < self._settled_ms:
            return
        self._decreased_ms = now_ms
        self._settled_ms = now_ms + DECREASE_EVERY_MS + queue_ms
        spent_bps = self._sent_bps() if self._sent else None
        known = [bps for bps in (arrived_bps, spent_bps, self._target_bps) if bps is not None]
        self._target_bps = max(MIN_BPS, DECREASE * min(known))

    def _rise(self, now_ms: float) -> None:
        since_ms = 0.0 if self._updated_ms is None else now_ms - self._updated_ms
        self._updated_ms = now_ms
        if now_ms - self._decreased_ms < RISE_AFTER_MS:
            return
        risen_bps = self._target_bps * RISE_PER_S ** (since_ms / 1000)
        sent_bps = self._sent_bps()
        proven_bps = START_BPS if sent_bps is None else PROVEN_FACTOR * sent_bps
        proven_bps = max(proven_bps, self._needed_bps(self._rungs[max(self._level - 1, 0)]))
        self._target_bps = min(max(self._target_bps, min(risen_bps, proven_bps)), self._ceiling_bps)

    def _fitting(self) -> int:
        """The highest rung that fits the estimate; the lowest if none does."""
        fit = (level for level, rung in enumerate(self._rungs) if self._needed_bps(rung) <= self._target_bps)
        return next(fit, len(self._rungs) - 1)

    def _needed_bps(self, rung: Rung) -> float:
        """The estimate from which on a rung fits."""
        share = HEADROOM * (DEFORMED_SHARE if rung.deforms else 1.0)
        return wire_bps(rung, self._config.audio_frame_ms, self._repeat) / share

    def _choose(self, now_ms: float) -> None:
        fitting = self._fitting()
        if fitting > self._level:
            self._level = fitting
            self._raised_ms = now_ms
        elif fitting < self._level and now_ms - self._raised_ms >= RUNG_HOLD_MS:
            self._level -= 1
            self._raised_ms = now_ms

    def _decision(self, showing: bool, starting: bool) -> RateDecision:
        rung = self._rungs[self._level]
        if not showing and wire_bps(rung, self._config.audio_frame_ms) > self._target_bps / 2:
            tick_ms = FIRST_PICTURE_TICK_MS if self._target_bps >= NARROW_BPS else LONGEST_TICK_MS
            rung = replace(rung, tick_ms=max(tick_ms, rung.tick_ms), motion=False)
        media_bps = wire_bps(rung, self._config.audio_frame_ms, self._repeat)
        # That much more than usual passes is a guess; at the start it is tried, later it may delay speech.
        total_bps = self._target_bps
        if showing and not starting:
            total_bps = min(total_bps, PROVEN_FACTOR * media_bps)
        spare_bps = max(MIN_SLICE_BPS, total_bps - media_bps)
        # Behind a media packet, a slice has what is left of the tick, and a little of the next one.
        room_ms = rung.tick_ms * (1 - media_bps / total_bps) + SLICE_DELAY_MS
        whole_bytes = int(max(0.0, room_ms) * total_bps / 8000) - CONTROL_OVERHEAD_BYTES
        slice_bytes = min(max(whole_bytes, MIN_SLICE_BYTES), MAX_SLICE_BYTES)
        interval_ms = (slice_bytes + CONTROL_OVERHEAD_BYTES) * 8000 / spare_bps
        return RateDecision(
            level=self._level,
            rung=rung,
            repeat_audio=self._repeat,
            slice_bytes=slice_bytes,
            slice_interval_ms=max(SLICE_INTERVAL_MS, interval_ms),
            keyframe_bits_per_minute=KEYFRAME_SHARE * 60 * (total_bps - media_bps),
            target_bps=self._target_bps,
        )
