"""avcall as a codec: whole calls in virtual time, over networks that paint greys."""

from typing import cast

import numpy as np
import pytest

from avcall.bench.call_codec import CallCodec, CallSetting
from avcall.bench.rates import rates_of
from avcall.bench.virtual_call import Message, read_messages, write_messages
from avcall.bitstream.packet import MessageType
from avcall.errors import InputError
from avcall.transport.base import MEDIA_OVERHEAD_BYTES, RTP_HEADER_BYTES, Channel
from models.runtime import ModelRuntime
from tests.bench_fakes import make_clip
from tests.fakes import FakeRuntime, make_crop


def codec(keyframe_bytes: int = 3_000, preliminary_bytes: int = 0) -> CallCodec:
    networks = FakeRuntime()
    setting = CallSetting("fp16", 2, keyframe_bytes, preliminary_bytes, 0, 80, 10_000, 40)
    return CallCodec(setting, lambda: cast(ModelRuntime, networks))


def test_every_frame_comes_back_in_its_place() -> None:
    clip = make_clip(40)
    coded = codec().encode(clip)
    decoded = codec().decode(coded.data)  # another codec: all that it gets is the bytes
    assert decoded.frames.shape == clip.frames.shape
    assert decoded.held == 0
    wanted = clip.frames[:, 0, 0, 0].astype(int)
    assert np.abs(decoded.frames[:, 0, 0, 0] - wanted).max() <= 1  # half floats


def test_the_bill_of_a_call_in_half_floats() -> None:
    coded = codec().encode(make_clip(50))
    bill = coded.bill
    assert bill.motion_bytes == 50 * 120
    assert rates_of(bill).motion.kbps == pytest.approx(24.0)
    assert 100 < bill.keyframe_bytes <= 3_000 + 300
    assert 0.5 * 2_500 < bill.audio_bytes < 1.5 * 2_500  # 10 kbit/s for two seconds
    content = bill.motion_bytes + bill.keyframe_bytes + bill.audio_bytes + bill.control_bytes
    assert bill.wire_bytes > content + 25 * (MEDIA_OVERHEAD_BYTES + RTP_HEADER_BYTES)  # a packet each tick
    assert bill.back_bytes > 0


def test_the_same_clip_gives_the_same_bytes() -> None:
    clip = make_clip(30)
    assert codec().encode(clip).data == codec().encode(clip).data


def test_a_larger_keyframe_costs_its_bytes_and_nothing_else() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    clip = make_clip(25)
    crop = clip.crops[0]
    object.__setattr__(crop, "rgb", noise)
    small, large = (codec(size).encode(clip).bill for size in (3_000, 12_000))
    assert 2_000 < small.keyframe_bytes < 3_400
    assert 10_000 < large.keyframe_bytes < 12_500
    assert small.motion_bytes == large.motion_bytes


def test_a_preliminary_keyframe_costs_its_bits_and_the_clip_starts_with_the_full_one() -> None:
    clip = make_clip(25)
    plain, progressive = codec(3_000).encode(clip), codec(3_000, 1_000).encode(clip)
    assert plain.bill.keyframe_bytes < progressive.bill.keyframe_bytes
    assert codec().decode(progressive.data).held == 0
    messages = read_messages(progressive.data)[1]
    motion_ms = next(m.arrival_ms for m in messages if m.channel is Channel.MEDIA)
    slices = [m for m in messages if m.data[0] & 0x0F == MessageType.KEYFRAME_SLICE]
    assert len(slices) == 2 and all(m.arrival_ms < motion_ms for m in slices)


def test_a_clip_without_sound_is_sent_and_drawn() -> None:
    clip = make_clip(25, sound=False)
    coded = codec().encode(clip)
    assert coded.bill.audio_bytes == 0
    assert codec().decode(coded.data).held == 0


def test_a_first_frame_without_a_face_is_refused_by_the_clips_name() -> None:
    clip = make_clip(25)
    faceless = type(clip)(clip.name, (make_crop(0, found=False), *clip.crops[1:]), clip.pcm, "x")
    with pytest.raises(InputError, match="clip: the first frame does not make a keyframe"):
        codec().encode(faceless)


def test_names_say_what_is_compared() -> None:
    one = codec(6_000)
    assert (one.name, one.setting) == ("avcall-fp16", "keyframe6000")
    photo = CallCodec(CallSetting("fp16", 2, 6_000, 0, 0, 80, 6_000, 40), lambda: None, photo=make_crop())  # type: ignore[arg-type,return-value]
    assert photo.name == "avcall-fp16-photo"


def test_messages_survive_the_file_and_cut_ones_are_refused() -> None:
    messages = [Message(12.5, Channel.MEDIA, b"abc"), Message(20.0, Channel.CONTROL, b"\x13" * 200)]
    data = write_messages(7, messages)
    assert read_messages(data) == (7, messages)
    for end in (2, 8, len(data) - 1):
        with pytest.raises(InputError, match="recorded messages cannot be read"):
            read_messages(data[:end])
