"""What a conventional stream costs in packets, by hand."""

from avcall.bench.virtual_call import VirtualCall
from avcall.bench.wire import carry, pieces, tick_contents
from avcall.stats import Bill
from avcall.transport.base import Channel
from avcall.transport.loopback import CONTROL_OVERHEAD_BYTES, MEDIA_OVERHEAD_BYTES, SACK_BYTES
from avcall.types import AccessUnit, MediaKind

HEADER_BYTES = 13  # of a media message


def speech(*pts_ms: int) -> list[AccessUnit]:
    return [AccessUnit(MediaKind.AUDIO, pts, 40, bytes(30)) for pts in pts_ms]


def idle() -> Bill:
    """A call of 25 frames that sends nothing but a keyframe of one byte."""
    return carry([1, *[0] * 24], [], 80)


def test_pictures_and_speech_of_a_tick_share_a_message() -> None:
    contents = tick_contents([500, 20, 30, 40], speech(33, 73, 113), 80)
    assert contents == {0: 20 + 3 + 30 + 2 + 30 + 2, 1: 30 + 3 + 40 + 3 + 30 + 2}


def test_pieces_cover_everything() -> None:
    assert pieces(2500, 1000) == [1000, 1000, 500]
    assert pieces(1000, 1000) == [1000]
    assert pieces(0, 1000) == []


def test_the_bill_by_hand() -> None:
    sizes_bytes = [2500, *[100] * 24]
    bill = carry(sizes_bytes, speech(33), 80)
    assert (bill.keyframe_bytes, bill.motion_bytes, bill.audio_bytes) == (2500, 2400, 30)
    slices, messages = 3, 13  # 24 pictures in ticks of two, the first tick lacks the first picture
    content = 2500 + 3 * 4 + 24 * 103 + 32 + messages * HEADER_BYTES
    expected = content + slices * CONTROL_OVERHEAD_BYTES + messages * MEDIA_OVERHEAD_BYTES
    # The rest is control messages, which an idle call sends too; the transport counts acknowledgements.
    extra = bill.wire_bytes - (idle().wire_bytes - 5 - CONTROL_OVERHEAD_BYTES)
    assert abs(extra - expected) <= 2 * SACK_BYTES
    assert bill.back_bytes > idle().back_bytes


def test_a_picture_larger_than_a_message_is_cut() -> None:
    whole = carry([1, 5000, *[0] * 23], [], 80)
    messages = -(-(5000 + 3) // (1200 - HEADER_BYTES))
    grown = whole.wire_bytes - idle().wire_bytes
    expected = 5003 + messages * (HEADER_BYTES + MEDIA_OVERHEAD_BYTES)
    assert abs(grown - expected) <= 2 * SACK_BYTES


def test_opaque_messages_are_counted_and_not_heard() -> None:
    quiet, loud = VirtualCall(80, None, None), VirtualCall(80, None, None)
    loud.send_opaque(Channel.MEDIA, 700)
    for call in (quiet, loud):
        call.run_until(500)
    assert loud.counters().media_sent_bytes == 700
    assert [m.data for m in loud.messages] == [m.data for m in quiet.messages]
