import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avcall.bitstream import avif
from avcall.errors import KeyframeError
from tests.units import make_still


def written(quality: int = 40, size: tuple[int, int] = (256, 256), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(make_still()).resize(size).save(buffer, "AVIF", quality=quality, max_threads=1, **options)
    return buffer.getvalue()


FILE = written()
OBUS = avif.strip(FILE)


@pytest.mark.parametrize("quality", [0, 50, 95])
def test_the_container_comes_back_byte_for_byte(quality: int) -> None:
    file = written(quality)
    obus = avif.strip(file)
    assert len(file) - len(obus) == avif.CONTAINER_BYTES == 275
    assert avif.wrap(obus) == file


def test_what_is_wrapped_is_a_picture() -> None:
    with Image.open(io.BytesIO(avif.wrap(OBUS)), formats=("AVIF",)) as still:
        assert np.abs(np.asarray(still.convert("RGB")).astype(int) - make_still()).mean() < 6


@pytest.mark.parametrize("size", [(255, 256), (256, 64), (4096, 4096)])
def test_a_picture_of_another_size_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(KeyframeError, match=f"{size[0]}x{size[1]} is not allowed"):
        avif.strip(written(size=size))


@pytest.mark.parametrize(
    ("obus", "why"),
    [
        (b"", "does not start"),
        (FILE, "does not start"),
        (OBUS[:2] + b"\x0b" + OBUS[3:], "does not start"),
        (OBUS[:4] + bytes([OBUS[4] & 0xE7]) + OBUS[5:], "not a still"),  # a video
        (OBUS[:4] + bytes([OBUS[4] | 0x20]) + OBUS[5:], "not a still"),  # of profile 1
        (OBUS[:3] + b"\x01" + OBUS[4:], "cut short"),
        (OBUS[:3] + b"\x00" + OBUS[4:], "not a still"),
        (OBUS[:-1], "not one frame"),
        (OBUS + b"\x00", "not one frame"),
        (OBUS[:15] + b"\x00", "not one frame"),
        (OBUS + OBUS[2:], "not one frame"),  # a second sequence header could say another size
        (OBUS[:15] + b"\xff\xff\xff\xff\xff" + OBUS[20:], "not one frame"),
    ],
)
def test_what_is_no_still_is_refused_by_name(obus: bytes, why: str) -> None:
    with pytest.raises(KeyframeError, match=why):
        avif.wrap(obus)


# Up to byte 14 are headers; what follows a frame's size is for the decoder to judge.
@given(st.binary(max_size=100), st.integers(0, 14))
def test_random_bytes_are_refused(noise: bytes, kept: int) -> None:
    with pytest.raises(KeyframeError):
        avif.wrap(OBUS[:kept] + noise)


@pytest.mark.parametrize("file", [b"", b"mdat", FILE[:200], FILE[:300], b"\x00\x00\x00\x04mdat" + bytes(40)])
def test_what_is_no_avif_file_cannot_be_stripped(file: bytes) -> None:
    with pytest.raises(KeyframeError, match="unknown layout"):
        avif.strip(file)
