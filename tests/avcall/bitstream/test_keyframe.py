import dataclasses
import hashlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avcall.bitstream.keyframe import (
    MAX_ASSEMBLIES,
    MAX_KEYFRAME_BYTES,
    MAX_SLICE_BYTES,
    MAX_SLICES,
    CodedKeyframe,
    KeyframeAssembler,
    StillCodec,
    decode_still,
    encode_still,
    parse,
    reslice,
    serialize,
    slice_keyframe,
)
from avcall.bitstream.motion import sanitise
from avcall.errors import BitstreamError, KeyframeError, MotionError, VersionError
from tests.units import make_keypoints, make_still

KEYFRAME = CodedKeyframe(3, StillCodec.AVIF, bytes(range(256)) * 10, sanitise(make_keypoints(1), np.float16))
DATA = serialize(KEYFRAME)
SLICES = slice_keyframe(DATA, 3)


def equal(one: CodedKeyframe, other: CodedKeyframe) -> bool:
    return (
        (one.index, one.codec, one.image) == (other.index, other.codec, other.image)
        and np.array_equal(one.keypoints.values, other.keypoints.values)
        and np.array_equal(one.keypoints.jacobians, other.keypoints.jacobians)
    )


def resealed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()[:8]


def saved(size: tuple[int, int], codec: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, codec, **options)
    return buffer.getvalue()


def test_round_trip_is_exact() -> None:
    assert equal(parse(DATA), KEYFRAME)


def test_every_truncation_is_refused() -> None:
    for size in range(0, len(DATA), 7):
        with pytest.raises(KeyframeError):
            parse(DATA[:size])


@given(st.integers(0, len(DATA) * 8 - 1))
def test_every_flipped_bit_is_refused(bit: int) -> None:
    flipped = bytearray(DATA)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(KeyframeError):
        parse(bytes(flipped))


@given(st.binary(max_size=600))
def test_random_bytes_are_refused(noise: bytes) -> None:
    with pytest.raises(KeyframeError):
        parse(noise)


@pytest.mark.parametrize(
    ("offset", "new", "error", "message"),
    [
        (0, b"XX", KeyframeError, "magic"),
        (2, b"\x01", KeyframeError, "layout version"),
        (4, b"\x09", KeyframeError, "still codec 9"),
        (5, b"\x7e\x00", MotionError, "value 0 is not finite"),
        (45, bytes(8), MotionError, "jacobian 0 is singular"),
        (125, b"\x00\x00", KeyframeError, "image of 0 bytes"),
        (125, b"\xff\xff", KeyframeError, "image of 65535 bytes"),
        (125, b"\x00\x01", KeyframeError, "the image size says 1"),
    ],
)
def test_a_well_sealed_lie_is_refused_by_name(
    offset: int, new: bytes, error: type[Exception], message: str
) -> None:
    body = bytearray(DATA[:-8])
    body[offset : offset + len(new)] = new
    with pytest.raises(error, match=message):
        parse(resealed(bytes(body)))


@pytest.mark.parametrize("size_bytes", [0, MAX_KEYFRAME_BYTES + 1])
def test_serialize_bounds_the_image(size_bytes: int) -> None:
    with pytest.raises(KeyframeError, match="image of"):
        serialize(dataclasses.replace(KEYFRAME, image=bytes(size_bytes)))


def test_serialize_bounds_the_index() -> None:
    with pytest.raises(KeyframeError, match="8 bits"):
        serialize(dataclasses.replace(KEYFRAME, index=256))


@pytest.mark.parametrize("limit_bytes", [1500, 6000])
def test_a_still_fits_and_looks_like_itself(limit_bytes: int) -> None:
    still = make_still()
    coded = encode_still(still, limit_bytes)
    decoded = decode_still(StillCodec.AVIF, coded)
    assert len(coded) <= limit_bytes
    assert decoded.shape == (256, 256, 3)
    assert np.abs(decoded.astype(int) - still).mean() < 6


def test_jpeg_stands_in_where_avif_is_missing() -> None:
    coded = encode_still(make_still(), 8000, StillCodec.JPEG)
    assert np.abs(decode_still(StillCodec.JPEG, coded).astype(int) - make_still()).mean() < 6


def test_a_still_that_cannot_fit_is_an_error() -> None:
    with pytest.raises(KeyframeError, match="no AVIF quality fits 100 bytes"):
        encode_still(make_still(), 100)


def test_a_still_of_another_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match="256x256"):
        encode_still(np.zeros((128, 256, 3), np.uint8), 6000)


@pytest.mark.parametrize(
    ("codec", "image"),
    [
        (StillCodec.AVIF, saved((255, 256), "AVIF")),
        (StillCodec.JPEG, saved((257, 256), "JPEG")),
        (StillCodec.JPEG, saved((12000, 12000), "JPEG")[: 16 * 1024]),  # the header of a picture bomb
        (StillCodec.JPEG, encode_still(make_still(), 6000)),  # the name of one codec, the bytes of another
        (StillCodec.AVIF, saved((256, 256), "JPEG")),
        (StillCodec.AVIF, saved((256, 256), "PNG")),
        (
            StillCodec.AVIF,
            saved((256, 256), "AVIF", save_all=True, append_images=[Image.new("RGB", (256, 256))]),
        ),
        (StillCodec.JPEG, saved((256, 256), "JPEG")[:200]),
        (StillCodec.AVIF, b"not a picture"),
        (StillCodec.AVIF, b""),
        (StillCodec.AVIF, bytes(MAX_KEYFRAME_BYTES + 1)),
    ],
)
def test_stills_that_are_not_allowed(codec: StillCodec, image: bytes) -> None:
    with pytest.raises(KeyframeError):
        decode_still(codec, image)


def test_a_still_with_flipped_bits_is_refused_or_a_picture() -> None:
    coded = encode_still(make_still(), 2000)
    for bit in range(0, len(coded) * 8, 131):
        flipped = bytearray(coded)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert decode_still(StillCodec.AVIF, bytes(flipped)).shape == (256, 256, 3)
        except KeyframeError:
            continue


def test_slices_are_small_messages() -> None:
    assert [len(message) for message in SLICES] == [1100, 1100, len(DATA) - 2 * 1096 + 4]
    assert SLICES[1][:4] == bytes([0x12, 3, 1, 3])


def test_the_largest_keyframe_fits_the_slice_count() -> None:
    data = serialize(dataclasses.replace(KEYFRAME, image=bytes(MAX_KEYFRAME_BYTES)))
    slices = slice_keyframe(data, 3)
    assert len(slices) <= MAX_SLICES
    assert max(len(message) for message in slices) == MAX_SLICE_BYTES
    assembler = KeyframeAssembler()
    assert [assembler.push(message) is not None for message in slices].count(True) == 1


@pytest.mark.parametrize("size_bytes", [5, 160, 300, 1100, 2000])
def test_slices_can_be_cut_smaller(size_bytes: int) -> None:
    small = reslice(SLICES, size_bytes)
    assert len(small) <= MAX_SLICES
    assert max(len(message) for message in small) <= max(size_bytes, len(DATA) // MAX_SLICES + 5)
    assembler = KeyframeAssembler()
    found = [keyframe for message in small if (keyframe := assembler.push(message)) is not None]
    assert len(found) == 1 and serialize(found[0]) == DATA


def test_slices_that_hold_more_than_any_keyframe_are_refused() -> None:
    assembler = KeyframeAssembler()
    with pytest.raises(KeyframeError, match="too many for any"):
        for number in range(MAX_SLICES):
            assembler.push(bytes([0x12, 3, number, MAX_SLICES]) + bytes(MAX_SLICE_BYTES - 4))
    assert not assembler._assemblies


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 1, 0, 0, 2]])
def test_slices_assemble_in_any_order_and_more_than_once(order: list[int]) -> None:
    assembler = KeyframeAssembler()
    results = [assembler.push(SLICES[number]) for number in order]
    assert results[:-1] == [None] * (len(order) - 1)
    assert results[-1] is not None
    assert equal(results[-1], KEYFRAME)


def test_keyframes_may_interleave() -> None:
    other = slice_keyframe(serialize(dataclasses.replace(KEYFRAME, index=4)), 4)
    assembler = KeyframeAssembler()
    pairs = zip(SLICES, other, strict=True)
    done = [keyframe.index for pair in pairs for message in pair if (keyframe := assembler.push(message))]
    assert done == [3, 4]


def test_contradicting_slices_are_refused_and_the_keyframe_can_be_sent_anew() -> None:
    assembler = KeyframeAssembler()
    assembler.push(SLICES[0])
    with pytest.raises(KeyframeError, match="contradict"):
        assembler.push(SLICES[1][:3] + b"\x04" + SLICES[1][4:])
    assembler.push(SLICES[0])
    with pytest.raises(KeyframeError, match="contradict"):
        assembler.push(SLICES[0][:-1] + b"\x00")
    assert [assembler.push(message) is not None for message in SLICES] == [False, False, True]


def test_a_slice_that_names_another_keyframe_is_refused() -> None:
    assembler = KeyframeAssembler()
    with pytest.raises(KeyframeError, match="the slices say index 9, the keyframe 3"):
        for message in slice_keyframe(DATA, 9):
            assembler.push(message)


def test_unfinished_keyframes_give_way() -> None:
    assembler = KeyframeAssembler()
    for index in range(10, 11 + MAX_ASSEMBLIES):
        assembler.push(bytes([0x12, index, 0, 2, 1]))
    assert assembler.push(bytes([0x12, 10, 1, 2, 1])) is None  # its first slice is gone
    with pytest.raises(KeyframeError):
        assembler.push(bytes([0x12, 14, 1, 2, 1]))  # this one is whole, and no keyframe


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (bytes([0x12, 1, 0, 1]), "4 bytes"),
        (bytes([0x12]), "1 bytes"),
        (bytes([0x12, 1, 0, 1]) + bytes(1097), "1101 bytes"),
        (bytes([0x12, 1, 0, 0, 0]), "0 slices"),
        (bytes([0x12, 1, 0, MAX_SLICES + 1, 0]), "251 slices"),
        (bytes([0x12, 1, 2, 2, 0]), "number 2 of 2"),
        (bytes([0x13, 1, 0, 1, 0]), "another type"),
    ],
)
def test_bad_slices_are_refused_by_name(message: bytes, why: str) -> None:
    with pytest.raises(KeyframeError, match=why):
        KeyframeAssembler().push(message)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=20))
def test_random_slices_never_do_more_than_be_refused(noises: list[bytes]) -> None:
    assembler = KeyframeAssembler()
    for noise in noises:
        try:
            assert assembler.push(b"\x12" + noise) is None
        except (BitstreamError, VersionError):
            continue
