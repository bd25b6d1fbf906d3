"""Keyframes: a 256x256 still with its keypoints, as one object that travels in slices.

The object, big-endian:

    offset  size  field
    0       2     magic 'KF'
    2       1     version of this layout (2)
    3       1     index 0..255: motion units name it
    4       1     still codec: 1 AVIF (the AV1 picture without the container, see avif.py), 2 JPEG
    5       120   keypoints of the DECODED still: 20 values, 40 jacobian entries, IEEE 754 half floats
    125     2     image size n, 1..32768
    127     n     image
    127+n   8     the first 8 bytes of the SHA-256 of everything before

Predicted motion starts at these keypoints: both ends must hold the same numbers, so the sender rounds.

A slice is a message of its own, so that no slice blocks the media for long:

    0       1     protocol version and type (0x12)
    1       1     keyframe index
    2       1     slice number, from 0
    3       1     slice count, 1..250
    4       ...   1..1096 bytes of the object
"""

import hashlib
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from PIL import Image

from avcall.bitstream import avif
from avcall.bitstream.motion import check, keypoints_from
from avcall.bitstream.packet import MessageType, first_byte, message_type
from avcall.errors import KeyframeError
from avcall.types import FRAME_SIZE_PX, NUM_KEYPOINTS, Keypoints, U8Image

MAX_KEYFRAME_BYTES = 32 * 1024  # of the image
MAX_SLICE_BYTES = 1100  # a whole message: one datagram, 78 ms of audio delay at worst when paced at 20 ms
MAX_ASSEMBLIES = 4  # as many keyframes as may be live at once

_MAGIC = b"KF"
_LAYOUT_VERSION = 2
_HEADER = struct.Struct(">2sBBB")
_HALF = np.dtype(">f2")
_KEYPOINT_BYTES = NUM_KEYPOINTS * 6 * _HALF.itemsize
_IMAGE_SIZE = struct.Struct(">H")
_DIGEST_BYTES = 8
_FRAME_BYTES = _HEADER.size + _KEYPOINT_BYTES + _IMAGE_SIZE.size + _DIGEST_BYTES
_MAX_OBJECT_BYTES = _FRAME_BYTES + MAX_KEYFRAME_BYTES
_SLICE_HEADER_BYTES = 4
_SLICE_PAYLOAD_BYTES = MAX_SLICE_BYTES - _SLICE_HEADER_BYTES
MAX_SLICES = 250  # small ones do not hold up the media of a slow link

_FAST_SPEED, _SLOW_SPEED = 9, 6  # of libavif, 0..10: 3 ms and 30 ms a picture on one laptop core
_SLOW_SHARE = 0.92  # of the bytes of a fast coding at the same quality (0.86-1.02 seen)
_CLIMB = 4  # steps of quality that are tried above it while the slow coding still fits
# What looks best at 1.5 and 4 kB, as a picture and as the animation made from it: docs/bitrate.md.
_AVIF_OPTIONS = {"codec": "aom", "advanced": {"tune": "ssim"}, "max_threads": 1}


class StillCodec(IntEnum):
    """The coding of a keyframe's picture."""

    AVIF = 1
    JPEG = 2


@dataclass(frozen=True, slots=True)
class CodedKeyframe:
    """A keyframe on the wire: `index` 0..255, the coded still, and the keypoints of the decoded still.

    The keypoints are rounded to half floats (`sanitise` does it).
    """

    index: int
    codec: StillCodec
    image: bytes
    keypoints: Keypoints


def serialize(keyframe: CodedKeyframe) -> bytes:
    """The keyframe object. Raises KeyframeError or MotionError for a keyframe that `parse` would refuse."""
    if not 0 <= keyframe.index <= 255:
        raise KeyframeError(f"keyframe: index {keyframe.index} is not 8 bits")
    _check_image_size(len(keyframe.image))
    check(keyframe.keypoints)
    body = b"".join(
        (
            _HEADER.pack(_MAGIC, _LAYOUT_VERSION, keyframe.index, keyframe.codec),
            keyframe.keypoints.values.astype(_HALF).tobytes(),
            keyframe.keypoints.jacobians.astype(_HALF).tobytes(),
            _IMAGE_SIZE.pack(len(keyframe.image)),
            keyframe.image,
        )
    )
    return body + _digest(body)


def parse(data: bytes) -> CodedKeyframe:
    """The keyframe in the object `data`; the still stays coded.

    Raises KeyframeError naming the field that is wrong, MotionError when it is a keypoint.
    """
    if not _FRAME_BYTES < len(data) <= _MAX_OBJECT_BYTES:
        raise KeyframeError(f"keyframe: {len(data)} bytes, at most {_MAX_OBJECT_BYTES} are allowed")
    magic, version, index, codec = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != _LAYOUT_VERSION:
        raise KeyframeError("keyframe: the magic bytes or the layout version is wrong")
    image_offset = _HEADER.size + _KEYPOINT_BYTES + _IMAGE_SIZE.size
    (image_bytes,) = _IMAGE_SIZE.unpack_from(data, image_offset - _IMAGE_SIZE.size)
    _check_image_size(image_bytes)
    if len(data) != _FRAME_BYTES + image_bytes:
        raise KeyframeError(f"keyframe: the image size says {image_bytes}, the object has {len(data)} bytes")
    if _digest(data[:-_DIGEST_BYTES]) != data[-_DIGEST_BYTES:]:
        raise KeyframeError("keyframe: the checksum is wrong")
    try:
        still_codec = StillCodec(codec)
    except ValueError:
        raise KeyframeError(f"keyframe: still codec {codec} is unknown") from None
    numbers = np.frombuffer(data, _HALF, NUM_KEYPOINTS * 6, _HEADER.size).astype(np.float32)
    image = data[image_offset:-_DIGEST_BYTES]
    return CodedKeyframe(index, still_codec, image, keypoints_from(numbers))


def encode_still(rgb: U8Image, max_size_bytes: int, codec: StillCodec = StillCodec.AVIF) -> bytes:
    """Code `rgb`, (256, 256, 3) uint8, at the best quality that fits `max_size_bytes`.

    A bisection over quality 0..100 with a fast setting finds about the right quality; then the slow setting,
    whose picture is better, codes at that quality and around it. Takes about 100 ms, so call it off the event
    loop.
    Raises KeyframeError when not even the lowest quality fits, ValueError when the picture has another shape.
    """
    if rgb.shape != (FRAME_SIZE_PX, FRAME_SIZE_PX, 3) or rgb.dtype != np.uint8:
        raise ValueError(
            f"a keyframe is {FRAME_SIZE_PX}x{FRAME_SIZE_PX} RGB uint8, not {rgb.shape} {rgb.dtype}"
        )
    limit_bytes = min(max_size_bytes, MAX_KEYFRAME_BYTES)
    picture = Image.fromarray(rgb)
    if codec is StillCodec.AVIF:
        quality = _best_quality(picture, codec, round(limit_bytes / _SLOW_SHARE))
        slow = None if quality is None else _best_slow(picture, quality, limit_bytes)
        if slow is not None:
            return slow
    quality = _best_quality(picture, codec, limit_bytes)
    if quality is None:
        raise KeyframeError(f"keyframe: no {codec.name} quality fits {limit_bytes} bytes; allow more")
    return _encode_at(picture, codec, quality)


def decode_still(codec: StillCodec, image: bytes) -> U8Image:
    """Decode a still of a keyframe to (256, 256, 3) uint8.

    Size and format are checked before any pixel is decoded, and only the decoder of `codec` may run.
    Raises KeyframeError.
    """
    _check_image_size(len(image))
    file = avif.wrap(image) if codec is StillCodec.AVIF else image
    try:
        with Image.open(io.BytesIO(file), formats=(codec.name,)) as still:
            if still.size != (FRAME_SIZE_PX, FRAME_SIZE_PX) or getattr(still, "n_frames", 1) != 1:
                raise KeyframeError(f"keyframe: a picture of {still.size[0]}x{still.size[1]} is not allowed")
            return np.array(still.convert("RGB"), dtype=np.uint8)
    except KeyframeError:
        raise
    except Exception as error:  # decoders meet hostile bytes with exceptions of any type
        raise KeyframeError(f"keyframe: not a readable {codec.name} ({type(error).__name__})") from None


def slice_keyframe(data: bytes, index: int) -> list[bytes]:
    """Cut the object `data` of keyframe `index` into complete messages. Raises KeyframeError."""
    if not 0 < len(data) <= _MAX_OBJECT_BYTES or not 0 <= index <= 255:
        raise KeyframeError(f"keyframe: {len(data)} bytes for index {index} cannot be sliced")
    return _cut(data, index, _SLICE_PAYLOAD_BYTES)


def reslice(slices: Sequence[bytes], size_bytes: int) -> list[bytes]:
    """The messages of `slice_keyframe` cut anew, of at most `size_bytes` unless they were too many."""
    index = slices[0][1]
    data = b"".join(message[_SLICE_HEADER_BYTES:] for message in slices)
    least_bytes = -(-len(data) // MAX_SLICES)
    payload_bytes = min(max(size_bytes - _SLICE_HEADER_BYTES, least_bytes), _SLICE_PAYLOAD_BYTES)
    return _cut(data, index, payload_bytes)


def _cut(data: bytes, index: int, payload_bytes: int) -> list[bytes]:
    starts = range(0, len(data), payload_bytes)
    head = first_byte(MessageType.KEYFRAME_SLICE)
    return [
        head + bytes([index, number, len(starts)]) + data[start : start + payload_bytes]
        for number, start in enumerate(starts)
    ]


@dataclass(slots=True)
class _Assembly:
    count: int
    slices: dict[int, bytes]


class KeyframeAssembler:
    """Puts slices together, in any order; at most 4 keyframes at once, the oldest gives way."""

    def __init__(self) -> None:
        self._assemblies: dict[int, _Assembly] = {}

    def push(self, message: bytes) -> CodedKeyframe | None:
        """Take one slice message; the keyframe when it is whole. A repeated slice changes nothing.

        Raises KeyframeError for a bad slice, or when slices contradict each other; then what was collected
        of that index is dropped, so that the keyframe can be sent anew. Raises what `parse` raises.
        """
        index, number, count, payload = _parse_slice(message)
        assembly = self._assemblies.get(index)
        if assembly is None:
            if len(self._assemblies) == MAX_ASSEMBLIES:
                del self._assemblies[next(iter(self._assemblies))]
            assembly = self._assemblies[index] = _Assembly(count, {})
        if assembly.count != count or assembly.slices.setdefault(number, payload) != payload:
            del self._assemblies[index]
            raise KeyframeError(f"keyframe slice: slices of keyframe {index} contradict each other")
        if sum(map(len, assembly.slices.values())) > _MAX_OBJECT_BYTES:
            del self._assemblies[index]
            raise KeyframeError(
                f"keyframe slice: the slices of keyframe {index} are too many for any keyframe"
            )
        if len(assembly.slices) < count:
            return None
        del self._assemblies[index]
        keyframe = parse(b"".join(assembly.slices[i] for i in range(count)))
        if keyframe.index != index:
            raise KeyframeError(
                f"keyframe slice: the slices say index {index}, the keyframe {keyframe.index}"
            )
        return keyframe


def _parse_slice(message: bytes) -> tuple[int, int, int, bytes]:
    """Index, slice number, slice count and payload of a slice message."""
    if message_type(message) is not MessageType.KEYFRAME_SLICE:
        raise KeyframeError("keyframe slice: the message is of another type")
    if not _SLICE_HEADER_BYTES < len(message) <= MAX_SLICE_BYTES:
        raise KeyframeError(f"keyframe slice: {len(message)} bytes, at most {MAX_SLICE_BYTES} are allowed")
    index, number, count = message[1:_SLICE_HEADER_BYTES]
    if not 1 <= count <= MAX_SLICES:
        raise KeyframeError(f"keyframe slice: {count} slices, 1..{MAX_SLICES} are allowed")
    if number >= count:
        raise KeyframeError(f"keyframe slice: number {number} of {count}")
    return index, number, count, message[_SLICE_HEADER_BYTES:]


def _best_quality(picture: Image.Image, codec: StillCodec, limit_bytes: int) -> int | None:
    """The highest quality whose fast coding fits `limit_bytes`; None when none does."""
    low, high = 0, 100
    while low <= high:
        quality = (low + high) // 2
        if len(_encode_at(picture, codec, quality)) <= limit_bytes:
            low = quality + 1
        else:
            high = quality - 1
    return high if high >= 0 else None


def _best_slow(picture: Image.Image, quality: int, limit_bytes: int) -> bytes | None:
    """The AVIF of the slow setting that fits best, sought from `quality` on; None when none fits."""
    best = None
    for above in range(quality, min(quality + _CLIMB, 100) + 1):
        coded = _encode_at(picture, StillCodec.AVIF, above, _SLOW_SPEED)
        if len(coded) > limit_bytes:
            break
        best = coded
    below = quality
    while best is None and below > 0:
        below -= 1
        coded = _encode_at(picture, StillCodec.AVIF, below, _SLOW_SPEED)
        best = coded if len(coded) <= limit_bytes else None
    return best


def _encode_at(picture: Image.Image, codec: StillCodec, quality: int, speed: int = _FAST_SPEED) -> bytes:
    """`picture` coded by `codec` at `quality` 0..100; `speed` is AVIF's."""
    buffer = io.BytesIO()
    options = _AVIF_OPTIONS | {"speed": speed} if codec is StillCodec.AVIF else {}
    picture.save(buffer, codec.name, quality=quality, **options)
    return avif.strip(buffer.getvalue()) if codec is StillCodec.AVIF else buffer.getvalue()


def _check_image_size(size_bytes: int) -> None:
    if not 0 < size_bytes <= MAX_KEYFRAME_BYTES:
        raise KeyframeError(
            f"keyframe: an image of {size_bytes} bytes, at most {MAX_KEYFRAME_BYTES} are allowed"
        )


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_DIGEST_BYTES]
