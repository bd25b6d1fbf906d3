"""What a conventional stream would cost as a call: its pictures in avcall's packets, over the same transport.

One message each tick holds the pictures and the speech of that tick, as avcall's does; the first picture,
which must arrive, is sliced and sent reliably, as avcall's keyframe is. The control messages are the same.
One thing favours the conventional codec: pictures that are coded ahead of their time wait for nothing.
"""

from collections.abc import Sequence

from avcall.bench.rates import clip_bill
from avcall.bench.virtual_call import DRAIN_MS, VirtualCall
from avcall.bitstream.keyframe import MAX_SLICE_BYTES
from avcall.bitstream.packet import MAX_MESSAGE_BYTES, header_size_bytes
from avcall.stats import Bill
from avcall.transport.base import Channel
from avcall.types import FRAME_MS, AccessUnit

SLICE_HEADER_BYTES = 4
SLICE_EVERY_MS = 20  # as the pacer releases them
PICTURE_HEADER_BYTES = 3  # a pts offset of a byte, a size of two
SPEECH_HEADER_BYTES = 2  # the same with the shorter sizes of Opus


def carry(sizes_bytes: Sequence[int], speech: Sequence[AccessUnit], tick_ms: int) -> Bill:
    """The bill of pictures of `sizes_bytes`, one for each 40 ms, the first of them intra."""
    call = VirtualCall(tick_ms, None, None)
    for slice_bytes in pieces(sizes_bytes[0], MAX_SLICE_BYTES - SLICE_HEADER_BYTES):
        call.send_opaque(Channel.CONTROL, slice_bytes + SLICE_HEADER_BYTES)
        call.run_until(call.now_ms + SLICE_EVERY_MS)
    start_ms = call.now_ms
    for tick, content_bytes in sorted(tick_contents(sizes_bytes, speech, tick_ms).items()):
        call.run_until(start_ms + (tick + 1) * tick_ms)
        for piece_bytes in pieces(content_bytes, MAX_MESSAGE_BYTES - header_size_bytes()):
            call.send_opaque(Channel.MEDIA, piece_bytes + header_size_bytes())
    call.run_until(start_ms + len(sizes_bytes) * FRAME_MS + DRAIN_MS)
    counters = call.counters()
    return clip_bill(
        len(sizes_bytes),
        motion_bytes=sum(sizes_bytes[1:]),
        keyframe_bytes=sizes_bytes[0],
        audio_bytes=sum(len(unit.payload) for unit in speech),
        control_bytes=call.sender.stats().control_bytes,
        wire_bytes=counters.sent_bytes,
        back_bytes=counters.received_bytes,
    )


def tick_contents(sizes_bytes: Sequence[int], speech: Sequence[AccessUnit], tick_ms: int) -> dict[int, int]:
    """Bytes of the message of each tick that has content, without the message's header."""
    contents: dict[int, int] = {}
    for number, size_bytes in enumerate(sizes_bytes):
        if number and size_bytes:  # the first one travels as the keyframe
            tick = number * FRAME_MS // tick_ms
            contents[tick] = contents.get(tick, 0) + size_bytes + PICTURE_HEADER_BYTES
    for unit in speech:
        tick = unit.pts_ms // tick_ms
        contents[tick] = contents.get(tick, 0) + len(unit.payload) + SPEECH_HEADER_BYTES
    return contents


def pieces(size_bytes: int, limit_bytes: int) -> list[int]:
    """`size_bytes` cut into parts of at most `limit_bytes`."""
    whole, rest = divmod(size_bytes, limit_bytes)
    return [limit_bytes] * whole + [rest] * (rest > 0)
