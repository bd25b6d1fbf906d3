from dataclasses import replace

import numpy as np
import pytest

from avcall.bitstream import motion
from avcall.bitstream.keyframe import CodedKeyframe, KeyframeAssembler, StillCodec, decode_still
from avcall.bitstream.motion import MotionMode
from avcall.bitstream.motion_coded import MotionCoder
from avcall.bitstream.packet import KEYFRAME_INDICES
from avcall.errors import KeyframeError
from avcall.types import AccessUnit, FaceCrop, Keypoints, MediaKind
from sender.detect import Detector
from sender.encode import EncodedKeyframe, KeyframeEncoder, MotionGroupEncoder, encode_motion
from tests.fakes import FakeRuntime, make_crop
from tests.tables import make_tables
from tests.units import make_keypoints, make_still


def encoder(max_size_bytes: int = 4000) -> KeyframeEncoder:
    return KeyframeEncoder(Detector(FakeRuntime()), max_size_bytes)  # type: ignore[arg-type]


def assembled(made: EncodedKeyframe) -> CodedKeyframe:
    assembler = KeyframeAssembler()
    found = [assembler.push(message) for message in made.slices]
    assert found[:-1] == [None] * (len(found) - 1) and found[-1] is not None
    return found[-1]


def test_a_motion_unit_is_960_bits_and_lasts_a_frame() -> None:
    keypoints = make_keypoints(3)
    unit = encode_motion(keypoints, 1240)
    assert (unit.kind, unit.pts_ms, unit.duration_ms) == (MediaKind.MOTION, 1240, 40)
    assert len(unit.payload) * 8 == 960
    assert np.allclose(motion.decode(MotionMode.FP16, unit.payload).values, keypoints.values, atol=1e-3)


def test_a_lattice_goes_along_in_half_floats() -> None:
    lattice = np.random.default_rng(1).normal(0, 0.05, (10, 10, 2)).astype(np.float32)
    unit = encode_motion(replace(make_keypoints(3), lattice=lattice), 0)
    back = motion.decode(MotionMode.FP16, unit.payload)
    assert len(unit.payload) == 520
    assert back.lattice == pytest.approx(lattice, abs=1e-4)
    wild = motion.decode(
        MotionMode.FP16, encode_motion(replace(make_keypoints(3), lattice=lattice * 99), 0).payload
    )
    assert np.abs(wild.lattice).max() == 0.5


def told_group(size: float, seed: int = 1) -> tuple[MotionGroupEncoder, list[AccessUnit]]:
    """A group encoder at its finest step that knows a keyframe, and two units of it with lattices."""
    group = MotionGroupEncoder(MotionCoder(make_tables()), 0)
    made = encoder().encode(make_crop())
    group.add_source(made)
    rng = np.random.default_rng(seed)
    lattices = rng.normal(0, size, (2, 10, 10, 2)).astype(np.float32)
    told = [replace(made.keypoints, lattice=lattice) for lattice in lattices]
    return group, [encode_motion(one, 40 * i) for i, one in enumerate(told)]


def test_a_packet_without_room_for_its_motion_gets_a_coarser_step() -> None:
    tables = make_tables()
    group = MotionGroupEncoder(MotionCoder(replace(tables, steps=tables.steps / 16)), 0)
    made = encoder().encode(make_crop())
    group.add_source(made)
    change = np.random.default_rng(1).normal(0, 0.1, (10, 2)).astype(np.float32)
    unit = encode_motion(replace(made.keypoints, values=made.keypoints.values + change), 0)
    coded = group.encode([unit])
    assert coded is not None
    assert coded.step > 0 and len(coded.payload) < 120


def test_a_lattice_is_told_unless_it_is_nothing_or_not_wanted() -> None:
    group, units = told_group(0.005)
    coded = group.encode(units)
    assert coded is not None and coded.deformed
    group.deforms = False
    plain = group.encode(units)
    assert plain is not None and not plain.deformed and len(plain.payload) < len(coded.payload)
    still, units = told_group(1e-5)
    coded = still.encode(units)
    assert coded is not None and not coded.deformed


def test_whatever_the_detector_says_goes_on_the_wire() -> None:
    wild = Keypoints(np.full((10, 2), np.nan, np.float32), np.zeros((10, 2, 2), np.float32))
    motion.decode(MotionMode.FP16, encode_motion(wild, 0).payload)


def test_a_keyframe_arrives_as_it_was_sent() -> None:
    crop = FaceCrop(make_still(), make_crop().priors, 0)
    made = encoder().encode(crop)
    coded = assembled(made)
    assert coded.index == made.index and coded.codec is StillCodec.AVIF
    assert len(coded.image) == made.image_bytes <= 4000
    assert np.array_equal(coded.keypoints.values, made.keypoints.values)


def test_the_keypoints_are_those_of_the_decoded_still() -> None:
    crop = FaceCrop(make_still(), make_crop().priors, 0)
    coded = assembled(encoder(1500).encode(crop))
    decoded = decode_still(coded.codec, coded.image)
    seen = FakeRuntime().detect(decoded, crop.priors)
    assert np.allclose(coded.keypoints.values, seen.values, atol=1e-3)  # half floats


def test_keyframes_are_numbered_and_the_numbers_wrap() -> None:
    numbers = encoder()
    numbers._next_index = KEYFRAME_INDICES - 2
    last = KEYFRAME_INDICES - 1
    assert [numbers.encode(make_crop()).index for _ in range(3)] == [last - 1, last, 0]


def test_a_size_that_nothing_fits_is_an_error_that_says_so() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    with pytest.raises(KeyframeError, match="no AVIF quality fits 60 bytes"):
        encoder(60).encode(FaceCrop(noise, make_crop().priors, 0))
