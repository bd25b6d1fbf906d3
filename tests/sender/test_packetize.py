from collections.abc import Callable

import pytest

from avcall.bitstream.packet import MAX_MESSAGE_BYTES, MAX_UNITS, MediaPacket, parse
from avcall.types import AccessUnit
from sender.packetize import MAX_PENDING_UNITS, Packetizer
from sender.ratecontrol import Rung
from tests.units import audio_unit, motion_unit


def run(packetizer: Packetizer, arrivals: list[tuple[float, AccessUnit]], until_ms: int) -> list[MediaPacket]:
    """Push each unit when it is ready and poll every 10 ms."""
    packets = []
    waiting = sorted(arrivals, key=lambda arrival: arrival[0])
    for now_ms in range(0, until_ms, 10):
        while waiting and waiting[0][0] <= now_ms:
            assert packetizer.push(waiting.pop(0)[1])
        packets += [parse(data) for data in packetizer.poll(now_ms)]
    return packets


def stream(lag_ms: int, count: int, make: Callable[[int], AccessUnit]) -> list[tuple[float, AccessUnit]]:
    return [(40 * (i + 1) + lag_ms, make(40 * i)) for i in range(count)]


@pytest.mark.parametrize(("tick_ms", "units"), [(40, 1), (80, 2), (120, 3)])
def test_one_message_a_tick_with_both_media(tick_ms: int, units: int) -> None:
    arrivals = stream(0, 60, audio_unit) + stream(110, 60, motion_unit)
    packets = run(Packetizer(tick_ms), arrivals, 2400)
    assert len(packets) == pytest.approx(2400 / tick_ms, abs=2)
    steady = packets[3:]
    assert {len(packet.audio) for packet in steady} == {units}
    assert {len(packet.motion) for packet in steady} == {units}


@pytest.mark.parametrize("make", [audio_unit, motion_unit])
def test_one_medium_alone_does_not_wait_for_the_other(make: Callable[[int], AccessUnit]) -> None:
    packets = run(Packetizer(80), stream(0, 20, make), 1000)
    assert sum(len(packet.motion) + len(packet.audio) for packet in packets) == 20


def test_nothing_is_sent_before_the_tick_is_over() -> None:
    packetizer = Packetizer(80)
    assert packetizer.poll(0) == []
    packetizer.push(audio_unit(0))
    assert packetizer.poll(10) == []
    assert packetizer.poll(89) == []
    assert len(packetizer.poll(90)) == 1
    assert packetizer.poll(170) == []


def test_a_caller_that_slept_gets_one_message_and_then_a_full_tick() -> None:
    packetizer = Packetizer(80)
    packetizer.push(audio_unit(0))
    packetizer.poll(0)
    packetizer.push(audio_unit(40))
    assert len(packetizer.poll(500)) == 1
    packetizer.push(audio_unit(80))
    assert packetizer.poll(510) == []
    assert len(packetizer.poll(580)) == 1


def test_sequence_numbers_wrap() -> None:
    packetizer = Packetizer(40)
    sequences = []
    for number in range(65538):
        packetizer.push(audio_unit(number, 1))
        sequences += [data[2] << 8 | data[3] for data in packetizer.flush()]
    assert sequences[:2] == [0, 1]
    assert sequences[-3:] == [65535, 0, 1]


def test_a_backlog_is_split_into_legal_messages_in_order() -> None:
    packetizer = Packetizer(80)
    for i in range(15):
        packetizer.push(motion_unit(40 * i))
        packetizer.push(audio_unit(40 * i, 200))
    messages = packetizer.flush()
    packets = [parse(data) for data in messages]
    assert all(len(data) <= MAX_MESSAGE_BYTES for data in messages)
    assert [u.pts_ms for p in packets for u in p.motion] == [40 * i for i in range(15)]
    assert [u.pts_ms for p in packets for u in p.audio] == [40 * i for i in range(15)]
    assert max(len(packet.motion) for packet in packets) <= MAX_UNITS
    assert packetizer.flush() == []


def test_units_too_far_apart_go_separately() -> None:
    packetizer = Packetizer(80)
    packetizer.push(motion_unit(0))
    packetizer.push(audio_unit(1276))
    assert [parse(data).pts_ms for data in packetizer.flush()] == [0, 1276]


def test_a_pts_that_does_not_advance_is_refused_and_counted() -> None:
    packetizer = Packetizer(80)
    assert packetizer.push(motion_unit(40))
    assert not packetizer.push(motion_unit(40))
    assert not packetizer.push(motion_unit(0))
    assert packetizer.push(audio_unit(0))
    assert packetizer.stats().refused_units == 2


def test_without_a_poll_the_oldest_go() -> None:
    packetizer = Packetizer(80)
    for i in range(MAX_PENDING_UNITS + 5):
        packetizer.push(audio_unit(40 * i))
    packets = [parse(data) for data in packetizer.flush()]
    stats = packetizer.stats()
    assert packets[0].pts_ms == 5 * 40
    assert (stats.overflowed_units, stats.audio_units) == (5, MAX_PENDING_UNITS)
    assert stats.packets == len(packets)


def test_payloads_are_counted_by_medium() -> None:
    packetizer = Packetizer(80)
    packetizer.push(motion_unit(0))
    packetizer.push(motion_unit(40))
    packetizer.push(audio_unit(0, 33))
    packetizer.flush()
    stats = packetizer.stats()
    assert (stats.motion_units, stats.motion_bytes) == (2, 240)
    assert (stats.audio_units, stats.audio_bytes) == (1, 33)


def test_a_tick_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="tick"):
        Packetizer(0)


def audio_pts(message: bytes) -> list[int]:
    return [unit.pts_ms for unit in parse(message).audio]


def test_the_last_speech_is_repeated_when_asked_for_and_where_there_is_room() -> None:
    packetizer = Packetizer(80)
    packetizer.configure(Rung(80, None, 1, 6_000), repeat_audio=True)
    sent = []
    for start_ms, count in ((0, 2), (80, 2), (160, 5), (360, 2), (440, 6)):
        for number in range(count):
            assert packetizer.push(audio_unit(start_ms + 40 * number))
        sent += packetizer.flush()
    assert [audio_pts(message) for message in sent] == [
        [0, 40],
        [0, 40, 80, 120],
        [120, 160, 200, 240, 280, 320],
        [200, 240, 280, 320, 360, 400],
        [440, 480, 520, 560, 600, 640],
    ]
    assert packetizer.stats().audio_units == 2 + 4 + 6 + 6 + 6
    assert packetizer.push(audio_unit(5_000))
    (late,) = packetizer.flush()
    assert audio_pts(late) == [5_000]  # what is too old for the offset is not repeated


def test_a_rung_sets_the_tick_and_thins_the_motion() -> None:
    packetizer = Packetizer(80)
    packetizer.configure(Rung(120, None, 2, 6_000), repeat_audio=False)
    taken = [pts_ms for pts_ms in range(0, 400, 40) if packetizer.push(motion_unit(pts_ms))]
    assert taken == list(range(0, 400, 80))
    assert packetizer.stats().thinned_units == 5
    packetizer.poll(0)
    assert not packetizer.poll(119) and packetizer.poll(120)
    packetizer.configure(Rung(120, None, 2, 6_000, motion=False), repeat_audio=False)
    assert not packetizer.push(motion_unit(1_000))
