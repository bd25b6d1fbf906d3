"""The queue estimator on packets that come earlier and later."""

import pytest

from avcall.types import MediaKind
from receiver.queue import QueueEstimator


def feed(queue: QueueEstimator, start_ms: int, end_ms: int, transit_ms: float, kind: MediaKind) -> None:
    for pts_ms in range(start_ms, end_ms, 40):
        age_ms = 40 if pts_ms % 80 else 0  # two units a packet
        queue.add(kind, pts_ms, pts_ms + transit_ms + age_ms)


def test_nothing_came_nothing_waits() -> None:
    assert QueueEstimator().queue_ms(1000) == 0


def test_a_steady_network_has_no_queue_whatever_the_clocks_say() -> None:
    queue = QueueEstimator()
    feed(queue, 0, 5000, -123_456.0, MediaKind.AUDIO)
    assert queue.queue_ms(5000 - 123_456) == 0


def test_what_comes_later_than_before_has_waited() -> None:
    queue = QueueEstimator()
    feed(queue, 0, 5000, 100, MediaKind.AUDIO)
    feed(queue, 0, 5000, 180, MediaKind.MOTION)
    assert queue.queue_ms(5180) == 0
    feed(queue, 5000, 7000, 250, MediaKind.AUDIO)
    feed(queue, 5000, 7000, 330, MediaKind.MOTION)
    assert queue.queue_ms(7250) == pytest.approx(150, abs=1)


def test_one_late_packet_is_no_queue() -> None:
    queue = QueueEstimator()
    feed(queue, 0, 5000, 100, MediaKind.AUDIO)
    queue.add(MediaKind.AUDIO, 5000, 5400)
    feed(queue, 5040, 5400, 100, MediaKind.AUDIO)
    assert queue.queue_ms(5480) == 0


def test_a_lasting_change_of_the_path_is_distance_after_half_a_minute() -> None:
    queue = QueueEstimator()
    feed(queue, 0, 5000, 100, MediaKind.AUDIO)
    feed(queue, 5000, 40_000, 200, MediaKind.AUDIO)
    assert queue.queue_ms(40_200) == 0
