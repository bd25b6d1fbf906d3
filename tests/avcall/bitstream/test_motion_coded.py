"""Coded motion: round trips, self-contained packets, hostile bytes."""

from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from avcall.bitstream.lattice_coded import MAX_LEVEL, MAX_TOLD, contexts, quantise_lattice
from avcall.bitstream.motion_coded import MAX_PAYLOAD_BYTES, NUMBERS, STEPS, MotionCoder, MotionTables
from avcall.errors import MotionError, WeightsError
from avcall.types import Keypoints
from tests.tables import make_tables


def make_frames(count: int, seed: int = 2) -> tuple[Keypoints, list[Keypoints]]:
    """A keyframe's keypoints, and frames that wander away from them."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(-0.6, 0.6, (10, 2))
    jacobians = np.tile(np.eye(2), (10, 1, 1)) + rng.normal(0, 0.1, (10, 2, 2))
    source = Keypoints(values.astype(np.float32), jacobians.astype(np.float32))
    frames = []
    for _ in range(count):
        values = values + rng.normal(0, 0.02, values.shape)
        jacobians = jacobians + rng.normal(0, 0.05, jacobians.shape)
        frames.append(Keypoints(values.astype(np.float32), jacobians.astype(np.float32)))
    return source, frames


TABLES = make_tables()
CODER = MotionCoder(TABLES)


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_round_trip_stays_within_the_step(step: int, count: int) -> None:
    source, frames = make_frames(count)
    decoded = CODER.decode(CODER.encode(frames, source, step), count, source, step)
    # A held integer may be off by 0.6 of a step in each of 60 orthonormal directions.
    bound = 0.6 * float(TABLES.steps[step]) * np.sqrt(NUMBERS)
    for frame, back in zip(frames, decoded, strict=True):
        error = np.concatenate(
            [(frame.values - back.values).ravel(), 0.1 * (frame.jacobians - back.jacobians).ravel()]
        )
        assert np.linalg.norm(error) <= bound + 1e-4


def deformed(frames: list[Keypoints], size: float = 0.02) -> list[Keypoints]:
    """The frames with a lattice each."""
    rng = np.random.default_rng(3)
    return [replace(f, lattice=rng.normal(0, size, (10, 10, 2)).astype(np.float32)) for f in frames]


@pytest.mark.parametrize("step", range(STEPS))
def test_a_packet_tells_the_mean_of_its_lattices(step: int) -> None:
    source, frames = make_frames(3)
    frames = deformed(frames, 0.004 * 1.35**step)
    payload = CODER.encode(frames, source, step, CODER.lattice(frames, step))
    decoded = CODER.decode(payload, 3, source, step, deformed=True)
    plain = CODER.decode(CODER.encode(frames, source, step), 3, source, step)
    mean = np.mean([frame.lattice for frame in frames], 0)
    for one, other in zip(decoded, plain, strict=True):
        assert np.array_equal(one.values, other.values)
        assert other.lattice is None
        assert one.lattice == pytest.approx(mean, abs=0.66 * float(TABLES.lattice_steps[step]))


def test_a_lattice_of_next_to_nothing_is_not_told() -> None:
    _, frames = make_frames(2)
    assert CODER.lattice(frames, 2) is None
    assert CODER.lattice(deformed(frames, 1e-4), 2) is None
    assert CODER.lattice([frames[0], deformed(frames)[1]], 2) is not None


def test_of_too_many_numbers_the_largest_are_told() -> None:
    lattice = np.random.default_rng(3).normal(0, 0.02, (10, 10, 2)).astype(np.float32)
    levels = quantise_lattice([lattice], 0.004)
    told = levels != 0
    assert np.count_nonzero(told) == MAX_TOLD
    assert np.abs(lattice[told]).min() > np.abs(lattice[~told]).max()
    np.testing.assert_allclose(levels[told] * 0.004, np.clip(lattice[told], -0.032, 0.032), atol=0.0027)


def test_a_lattice_is_cut_at_its_largest_level() -> None:
    lattice = np.zeros((10, 10, 2), np.float32)
    lattice[3] = -3.0
    levels = quantise_lattice([lattice], 0.01)
    assert (levels[3] == -MAX_LEVEL).all() and np.count_nonzero(levels) == 20


def test_what_lies_beside_a_deformed_place_is_expected_to_be_so() -> None:
    levels = np.zeros((10, 10, 2), np.int32)
    assert {context for context, _ in contexts(levels)} == {0}
    levels[4, 4] = 3
    found = np.zeros((10, 10, 2), int)
    found.flat = [context for context, _ in contexts(levels)]
    assert found[4, 4, 1] == 3 and found[4, 5, 0] == found[5, 4, 0] == 4
    assert found[3, 4, 0] == found[4, 3, 0] == 0


def test_a_lattice_beyond_what_a_receiver_takes_is_cut() -> None:
    source, frames = make_frames(1)
    coder = MotionCoder(replace(TABLES, lattice_steps=TABLES.lattice_steps * 20))
    lattice = np.zeros((10, 10, 2), np.float32)
    lattice[3] = 0.9
    told = coder.lattice([replace(frames[0], lattice=lattice)], 0)
    assert told is not None
    payload = coder.encode(frames, source, 0, told)
    assert (coder.decode(payload, 1, source, 0, deformed=True)[0].lattice[3] == 0.5).all()


@given(st.binary(max_size=200), st.integers(1, 6), st.integers(0, STEPS - 1))
def test_random_bytes_never_deform_beyond_the_limit(payload: bytes, count: int, step: int) -> None:
    source, _ = make_frames(1)
    try:
        frames = CODER.decode(payload, count, source, step, deformed=True)
    except MotionError as error:
        assert "\n" not in str(error)
        return
    assert all(np.abs(f.lattice).max() <= 0.5 for f in frames if f.lattice is not None)


def test_a_still_face_costs_less_than_a_moving_one() -> None:
    source, frames = make_frames(6)
    assert len(CODER.encode([source] * 6, source, 2)) < 0.7 * len(CODER.encode(frames, source, 2))


def test_a_finer_step_costs_more_bytes() -> None:
    source, frames = make_frames(3)
    sizes = [len(CODER.encode(frames, source, step)) for step in range(STEPS)]
    assert sizes[0] > sizes[3] > sizes[7]


def test_a_packet_needs_nothing_but_its_keyframe() -> None:
    source, frames = make_frames(4)
    first, second = CODER.encode(frames[:2], source, 2), CODER.encode(frames[2:], source, 2)
    alone = MotionCoder(TABLES).decode(second, 2, source, 2)
    CODER.decode(first, 2, source, 2)
    after = CODER.decode(second, 2, source, 2)
    for a, b in zip(alone, after, strict=True):
        assert np.array_equal(a.values, b.values)
        assert np.array_equal(a.jacobians, b.jacobians)


def test_a_frame_far_away_is_escaped_and_comes_back() -> None:
    source, _ = make_frames(1)
    far = Keypoints(np.clip(source.values + 0.8, -1.4, 1.4), source.jacobians * 3)
    (back,) = CODER.decode(CODER.encode([far], source, 0), 1, source, 0)
    assert np.abs(back.values - far.values).max() < 0.02


def test_a_singular_frame_is_replaced_by_the_one_before() -> None:
    source, _ = make_frames(1)
    flat = Keypoints(source.values, np.zeros((10, 2, 2), np.float32))
    (back,) = CODER.decode(CODER.encode([flat], source, 0), 1, source, 0)
    assert np.allclose(back.jacobians, source.jacobians, atol=1e-5)


@given(st.binary(max_size=80), st.integers(1, 6), st.integers(0, STEPS - 1))
def test_random_bytes_decode_or_are_refused_by_name(payload: bytes, count: int, step: int) -> None:
    source, _ = make_frames(1)
    try:
        frames = CODER.decode(payload, count, source, step)
    except MotionError as error:
        assert "\n" not in str(error)
        return
    assert all(np.isfinite(f.values).all() and np.abs(f.values).max() <= 1.5 for f in frames)


@given(st.data())
def test_flipped_and_truncated_payloads_decode_or_are_refused(data: st.DataObject) -> None:
    source, frames = make_frames(3)
    payload = bytearray(CODER.encode(frames, source, 1))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    try:
        CODER.decode(cut, 3, source, 1)
    except MotionError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("payload", "step", "words"),
    [(bytes(MAX_PAYLOAD_BYTES + 1), 0, "601 bytes"), (b"\x01", STEPS, "step 8"), (b"\x01", -1, "step -1")],
)
def test_limits_are_named(payload: bytes, step: int, words: str) -> None:
    source, _ = make_frames(1)
    with pytest.raises(MotionError, match=words):
        CODER.decode(payload, 1, source, step)


def test_tables_survive_their_file() -> None:
    again = MotionTables.from_bytes(TABLES.to_bytes({"detect_sha256": "0"}))
    assert again.digest() == TABLES.digest()
    assert again.digest() != make_tables(9).digest()


@pytest.mark.parametrize(
    "broken",
    [
        replace(TABLES, basis=TABLES.basis[:59]),
        replace(TABLES, steps=TABLES.steps * 0),
        replace(TABLES, classes=TABLES.classes + np.uint8(200)),
        replace(TABLES, frequencies=TABLES.frequencies * np.uint16(0)),
        replace(TABLES, lattice_steps=TABLES.lattice_steps * np.float32(np.nan)),
        replace(TABLES, lattice_frequencies=TABLES.lattice_frequencies * np.uint16(0)),
        replace(TABLES, lattice_frequencies=TABLES.lattice_frequencies[:7]),
        replace(TABLES, shifts=TABLES.shifts.astype(np.uint16)),
    ],
)
def test_damaged_tables_are_refused(broken: MotionTables) -> None:
    with pytest.raises(WeightsError, match="motion tables are damaged"):
        MotionTables.from_bytes(broken.to_bytes({}))


def test_bytes_that_are_no_tables_are_refused() -> None:
    with pytest.raises(WeightsError, match="motion tables are damaged"):
        MotionTables.from_bytes(b"not safetensors")


def test_tables_of_an_avcall_without_lattices_are_told_from_damaged_ones() -> None:
    arrays = safetensors.numpy.load(TABLES.to_bytes({}))
    del arrays["lattice_steps"]
    with pytest.raises(WeightsError, match="no lattice_steps: another avcall made them; export"):
        MotionTables.from_bytes(safetensors.numpy.save(arrays))
