import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avcall.bitstream.motion import PAPER_BITS_PER_FRAME, MotionMode, check, decode, encode, sanitise
from avcall.errors import MotionError
from avcall.types import Keypoints
from tests.units import make_keypoints

ANY_FLOAT = st.floats(width=32)


def with_jacobian(index: int, jacobian: list[list[float]]) -> Keypoints:
    keypoints = make_keypoints()
    keypoints.jacobians[index] = jacobian
    return keypoints


def test_a_frame_costs_what_the_paper_says() -> None:
    assert len(encode(MotionMode.FP16, make_keypoints())) * 8 == PAPER_BITS_PER_FRAME


def test_round_trip_is_exact_to_half_floats() -> None:
    keypoints = make_keypoints(3)
    decoded = decode(MotionMode.FP16, encode(MotionMode.FP16, keypoints))
    np.testing.assert_array_equal(decoded.values, keypoints.values.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(
        decoded.jacobians, keypoints.jacobians.astype(np.float16).astype(np.float32)
    )
    assert decoded.values.dtype == np.float32


def test_good_keypoints_pass_unchanged() -> None:
    keypoints = make_keypoints(4)
    safe = sanitise(keypoints)
    np.testing.assert_array_equal(safe.values, keypoints.values)
    np.testing.assert_array_equal(safe.jacobians, keypoints.jacobians)


def payload_with(position: int, number: float) -> bytes:
    payload = bytearray(encode(MotionMode.FP16, make_keypoints()))
    payload[2 * position : 2 * position + 2] = np.array(number, dtype=">f2").tobytes()
    return bytes(payload)


@pytest.mark.parametrize(
    ("position", "number", "message"),
    [
        (0, np.nan, "value 0 is not finite"),
        (7, np.inf, "value 3 is not finite"),
        (19, -1.51, "value 9 is beyond 1.5"),
        (20, np.nan, "jacobian 0 is not finite"),
        (59, 16.1, "jacobian 9 is beyond 16"),
    ],
)
def test_decode_names_what_is_out_of_range(position: int, number: float, message: str) -> None:
    with pytest.raises(MotionError, match=message):
        decode(MotionMode.FP16, payload_with(position, number))


def test_decode_refuses_a_singular_jacobian() -> None:
    payload = bytearray(encode(MotionMode.FP16, make_keypoints()))
    payload[40 + 4 * 8 : 40 + 5 * 8] = np.array([1, 2, 2, 4], dtype=">f2").tobytes()
    with pytest.raises(MotionError, match="jacobian 4 is singular"):
        decode(MotionMode.FP16, bytes(payload))


@pytest.mark.parametrize("size_bytes", [0, 1, 119, 121, 240])
def test_decode_refuses_another_size(size_bytes: int) -> None:
    with pytest.raises(MotionError, match="takes 120"):
        decode(MotionMode.FP16, bytes(size_bytes))


def test_a_singular_jacobian_keeps_its_direction() -> None:
    safe = sanitise(with_jacobian(2, [[1.0, 0.0], [0.0, 0.0]]), np.float16)
    check(safe)
    assert safe.jacobians[2, 0, 0] == 1.0
    assert 0.04 < safe.jacobians[2, 1, 1] < 0.06


@pytest.mark.parametrize("bad", [[[np.nan, 0.0], [0.0, 1.0]], [[np.inf, 0.0], [0.0, 1.0]]])
def test_a_jacobian_that_is_not_finite_becomes_the_identity(bad: list[list[float]]) -> None:
    np.testing.assert_array_equal(sanitise(with_jacobian(5, bad)).jacobians[5], np.eye(2))


@pytest.mark.parametrize("signs", [(1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (-1, 1, 1, -1)])
@pytest.mark.parametrize("size", [0.0, 1e-6, 0.03, 1.0, 15.98, 16.0])
def test_equal_rows_become_invertible_at_every_size(signs: tuple[int, ...], size: float) -> None:
    keypoints = with_jacobian(6, (np.array(signs).reshape(2, 2) * size).tolist())
    decode(MotionMode.FP16, encode(MotionMode.FP16, keypoints))


@given(
    hnp.arrays(np.float32, (10, 2), elements=ANY_FLOAT),
    hnp.arrays(np.float32, (10, 2, 2), elements=ANY_FLOAT),
)
def test_whatever_the_detector_says_decodes(values: np.ndarray, jacobians: np.ndarray) -> None:
    decode(MotionMode.FP16, encode(MotionMode.FP16, Keypoints(values, jacobians)))


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(-1.5, 1.5))
def test_large_singular_jacobians_decode_after_rounding(a: float, b: float, factor: float) -> None:
    keypoints = with_jacobian(0, [[a, b], [a * factor, b * factor]])
    decode(MotionMode.FP16, encode(MotionMode.FP16, keypoints))
    check(sanitise(keypoints))


@given(st.binary(min_size=120, max_size=120))
def test_any_payload_is_refused_or_safe(payload: bytes) -> None:
    try:
        keypoints = decode(MotionMode.FP16, payload)
    except MotionError:
        return
    assert np.isfinite(np.linalg.inv(keypoints.jacobians)).all()


def test_encode_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match="shape"):
        encode(MotionMode.FP16, Keypoints(np.zeros((9, 2), np.float32), np.zeros((10, 2, 2), np.float32)))
