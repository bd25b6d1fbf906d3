import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avcall.bitstream import control, keyframe, packet
from avcall.bitstream.control import KeyframeRequest
from avcall.bitstream.keyframe import CodedKeyframe, StillCodec
from avcall.bitstream.packet import MediaPacket
from avcall.errors import VersionError
from receiver.depacketize import Depacketizer
from tests.units import audio_unit, make_keypoints, motion_unit, rtp


def media(number: int) -> bytes:
    """Packet `number` of a call, its sequence wrapped to 16 bits."""
    pts_ms = 80 * number
    return packet.serialize(
        MediaPacket(
            number % 65536, pts_ms, (motion_unit(pts_ms),), (audio_unit(pts_ms), audio_unit(pts_ms + 40))
        )
    )


def counts(depacketizer: Depacketizer) -> tuple[int, int, int]:
    stats = depacketizer.stats()
    return stats.received_packets, stats.lost_packets, stats.reordered_packets


def test_a_packet_gives_its_units() -> None:
    result = Depacketizer().push(media(1), 5.0)
    assert result.units == (motion_unit(80), audio_unit(80), audio_unit(120))
    assert result.keyframe is None
    assert result.control is None


def test_a_keyframe_comes_with_its_last_slice() -> None:
    sent = CodedKeyframe(9, StillCodec.AVIF, bytes(2200), make_keypoints())
    depacketizer = Depacketizer()
    results = [depacketizer.push(data, 0) for data in keyframe.slice_keyframe(keyframe.serialize(sent), 9)]
    assert [result.keyframe is not None for result in results] == [False, False, True]
    assert results[-1].keyframe is not None
    assert results[-1].keyframe.image == sent.image


def test_a_control_message_is_handed_on() -> None:
    assert Depacketizer().push(control.serialize(KeyframeRequest()), 0).control == KeyframeRequest()


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.1])
@pytest.mark.parametrize("start", [0, 65400])
def test_losses_are_counted_exactly(loss: float, start: int) -> None:
    rng = random.Random(1)
    depacketizer = Depacketizer()
    numbers = range(start, start + 1000)
    arrived = [number for number in numbers if number in (start, start + 999) or rng.random() >= loss]
    for number in arrived:
        assert depacketizer.push(media(number), 0).units
    assert counts(depacketizer) == (len(arrived), 1000 - len(arrived), 0)
    assert (loss == 0) == (len(arrived) == 1000)


@pytest.mark.parametrize("start", [0, 65500])
def test_reordered_and_repeated_packets_with_loss(start: int) -> None:
    rng = random.Random(2)
    arrived = [number for number in range(start, start + 400) if number % 10 != 5]
    delayed = sorted((number + rng.uniform(0, 5), number) for number in arrived for _ in range(2))
    depacketizer = Depacketizer()
    delivered = [number for _, number in delayed if depacketizer.push(media(number), 0).units]
    assert sorted(delivered) == arrived
    received, lost, reordered = counts(depacketizer)
    assert (received, lost) == (360, 40)
    assert reordered > 10
    assert depacketizer.stats().dropped == {"DuplicatePacket": 360}


def test_a_loss_is_taken_back_when_the_packet_comes_late() -> None:
    depacketizer = Depacketizer()
    depacketizer.push(media(0), 0)
    depacketizer.push(media(2), 0)
    assert counts(depacketizer) == (2, 1, 0)
    depacketizer.push(media(1), 0)
    assert counts(depacketizer) == (3, 0, 1)


def test_the_first_two_packets_may_change_places() -> None:
    depacketizer = Depacketizer()
    assert depacketizer.push(media(1), 0).units
    assert depacketizer.push(media(0), 0).units
    assert counts(depacketizer) == (2, 0, 1)


def test_a_very_old_packet_is_dropped() -> None:
    depacketizer = Depacketizer()
    for number in [*range(5, 2000), 5]:
        depacketizer.push(media(number), 0)
    assert depacketizer.stats().dropped == {"OldPacket": 1}
    assert counts(depacketizer) == (1995, 0, 0)


def test_a_sender_that_starts_anew_is_not_a_loss_of_thousands() -> None:
    depacketizer = Depacketizer()
    for number in [40000, 40002, 7, 8, 10]:
        assert depacketizer.push(media(number), 0).units
    assert counts(depacketizer) == (5, 2, 0)


def broken_motion() -> bytes:
    data = bytearray(media(3))
    struct.pack_into(">e", data, 15, float("nan"))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "PacketError"),
        (media(3)[:-1], "PacketError"),
        (b"\x1f", "PacketError"),
        (broken_motion(), "MotionError"),
        (media(3)[:135] + bytes([0, 2, 0x54, 0, 50, 50]), "AudioFormatError"),
        (b"\x12\x00\x00", "KeyframeError"),
        (b"\x13\x00", "ControlError"),
    ],
)
def test_what_breaks_the_protocol_is_dropped_and_counted_while_the_call_goes_on(
    data: bytes, reason: str
) -> None:
    depacketizer = Depacketizer()
    depacketizer.push(media(0), 0)
    result = depacketizer.push(data, 1)
    assert (result.units, result.keyframe, result.control) == ((), None, None)
    assert depacketizer.stats().dropped == {reason: 1}
    assert depacketizer.push(media(1), 2).units


def test_another_version_ends_the_call() -> None:
    with pytest.raises(VersionError):
        Depacketizer().push(b"\x21", 0)


def test_silence_can_be_seen() -> None:
    depacketizer = Depacketizer()
    assert depacketizer.stats().last_arrival_ms is None
    depacketizer.push(b"\x13", 125.0)
    assert depacketizer.stats().last_arrival_ms == 125.0


@given(
    st.lists(
        st.tuples(st.sampled_from([rtp(), b"\x80\x71", b"\x12", b"\x13", b"\x1a"]), st.binary(max_size=150)),
        max_size=30,
    )
)
def test_random_messages_never_raise(messages: list[tuple[bytes, bytes]]) -> None:
    depacketizer = Depacketizer()
    for head, noise in messages:
        depacketizer.push(head + noise, 0)
    assert depacketizer.push(media(0), 1) is not None


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=60))
def test_counts_stay_sane_for_any_sequence_numbers(numbers: list[int]) -> None:
    depacketizer = Depacketizer()
    for number in numbers:
        depacketizer.push(media(number), 0)
    received, lost, _ = counts(depacketizer)
    assert received + sum(depacketizer.stats().dropped.values()) == len(numbers)
    assert 0 <= lost <= 3000 * len(numbers)
