"""AVIF without its container: what a keyframe sends of it, and the container that a receiver puts around it.

The boxes of an AVIF file of one 256x256 picture take 275 bytes and say nothing that both ends do not know, a
fifth of a picture of 1.5 kB. Sent is the image item alone: the open bitstream units (OBUs) of one AV1 frame,
8 bits, 4:2:0, of profile 0. They are checked before any decoder sees them (AV1 specification, sections 5.3
and 5.5), because the container here promises a size that the OBUs could break.
"""

import struct

from avcall.errors import KeyframeError
from avcall.types import FRAME_SIZE_PX

MIN_OBU_BYTES = 16  # a temporal delimiter and a sequence header take 14

_BOX = struct.Struct(">I4s")
_SIZE = struct.Struct(">I")
_TEMPORAL_DELIMITER = b"\x12\x00"
_SEQUENCE_HEADER = 0x0A  # OBU type 1, with a size field
_FRAME = 0x32  # OBU type 6, with a size field
_STILL_BITS = (1 << 4) | (1 << 3)  # still_picture and reduced_still_picture_header, below 3 bits of profile


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return _BOX.pack(_BOX.size + len(body), kind) + body


def _meta(offset: int, size_bytes: int) -> bytes:
    """The `meta` box (ISO/IEC 14496-12 and 23008-12) of one image item at `offset` in the file."""
    full = bytes(4)  # version and flags 0
    side = _SIZE.pack(FRAME_SIZE_PX)
    properties = (
        _box(b"ispe", full, side, side),
        _box(b"pixi", full, b"\x03\x08\x08\x08"),
        _box(b"av1C", b"\x81\x00\x0c\x00"),  # profile 0, 8 bits, 4:2:0
        _box(b"colr", b"nclx", b"\x00\x01\x00\x0d\x00\x06\x80"),  # BT.709 primaries, sRGB, BT.601, full range
    )
    return _box(
        b"meta",
        full,
        _box(b"hdlr", full, bytes(4), b"pict", bytes(13)),
        _box(b"pitm", full, b"\x00\x01"),
        _box(
            b"iloc",
            full,
            b"\x44\x00\x00\x01\x00\x01\x00\x00\x00\x01",
            _SIZE.pack(offset),
            _SIZE.pack(size_bytes),
        ),
        _box(
            b"iinf",
            full,
            b"\x00\x01",
            _box(b"infe", b"\x02\x00\x00\x00", b"\x00\x01\x00\x00", b"av01", b"Color\x00"),
        ),
        _box(
            b"iprp",
            _box(b"ipco", *properties),
            _box(b"ipma", full, b"\x00\x00\x00\x01\x00\x01\x04\x01\x02\x83\x04"),
        ),
    )


_TYPE = _box(b"ftyp", b"avif", bytes(4), b"avifmif1miafMA1B")
_OBU_OFFSET = len(_TYPE) + len(_meta(0, 0)) + _BOX.size
CONTAINER_BYTES = _OBU_OFFSET


def wrap(obus: bytes) -> bytes:
    """The AVIF file of the OBUs of a keyframe.

    Raises KeyframeError unless they are one still of 256x256.
    """
    check_obus(obus)
    return _TYPE + _meta(_OBU_OFFSET, len(obus)) + _box(b"mdat", obus)


def strip(avif: bytes) -> bytes:
    """The OBUs in an AVIF file that Pillow wrote: the content of its `mdat` box. Raises KeyframeError."""
    offset = 0
    while offset + _BOX.size <= len(avif):
        size_bytes, kind = _BOX.unpack_from(avif, offset)
        if not _BOX.size <= size_bytes <= len(avif) - offset:
            break
        if kind == b"mdat":
            obus = avif[offset + _BOX.size : offset + size_bytes]
            check_obus(obus)
            return obus
        offset += size_bytes
    raise KeyframeError("keyframe: this AVIF encoder writes files of an unknown layout; use JPEG")


def check_obus(obus: bytes) -> None:
    """Raise KeyframeError unless the OBUs are one still of 256x256 in profile 0, and nothing else."""
    if len(obus) < MIN_OBU_BYTES or obus[:2] != _TEMPORAL_DELIMITER or obus[2] != _SEQUENCE_HEADER:
        raise KeyframeError("keyframe: the AV1 picture does not start with a sequence header")
    end = 4 + obus[3]  # sequence headers are short: one byte holds the size
    _check_sequence_header(obus[4:end])
    empty = obus[end + 1 : end + 2] == b"\x00"
    if obus[end : end + 1] != bytes([_FRAME]) or empty or _leb128_end(obus, end + 1) != len(obus):
        raise KeyframeError("keyframe: the AV1 picture is not one frame")


def _check_sequence_header(header: bytes) -> None:
    if not header or header[0] & 0xF8 != _STILL_BITS:
        raise KeyframeError("keyframe: the AV1 picture is not a still of profile 0")
    bits, left = int.from_bytes(header, "big"), 8 * len(header) - 10  # 5 bits for the above, 5 of the level

    def take(count: int) -> int:
        nonlocal left
        left -= count
        if left < 0:
            raise KeyframeError("keyframe: the AV1 sequence header is cut short")
        return bits >> left & ((1 << count) - 1)

    width_bits, height_bits = take(4) + 1, take(4) + 1
    width, height = take(width_bits) + 1, take(height_bits) + 1
    if (width, height) != (FRAME_SIZE_PX, FRAME_SIZE_PX):
        raise KeyframeError(f"keyframe: a picture of {width}x{height} is not allowed")


def _leb128_end(data: bytes, offset: int) -> int:
    """Where the unit ends whose size stands at `offset` (section 4.10.5); 0 when it is cut short."""
    size_bytes = 0
    for position, byte in enumerate(data[offset : offset + 4]):
        size_bytes |= (byte & 0x7F) << (7 * position)
        if not byte & 0x80:
            return offset + position + 1 + size_bytes
    return 0
