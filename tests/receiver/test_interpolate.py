"""Motion between two frames."""

from dataclasses import replace

import numpy as np
import pytest

from avcall.bitstream.motion import check
from avcall.types import Keypoints
from receiver.interpolate import LatticeEasing, interpolate_motion
from tests.fakes import still_keypoints
from tests.units import make_keypoints


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_it_lies_on_the_line_between(share: float) -> None:
    between = interpolate_motion(still_keypoints(-0.2), still_keypoints(0.6), share)
    assert between.values[:, 0] == pytest.approx(-0.2 + 0.8 * share, abs=1e-6)
    assert between.values.dtype == between.jacobians.dtype == np.float32


def test_the_ends_are_the_frames() -> None:
    one, other = make_keypoints(1), make_keypoints(2)
    assert np.array_equal(interpolate_motion(one, other, 0.0).values, one.values)
    assert np.allclose(interpolate_motion(one, other, 1.0).jacobians, other.jacobians, atol=1e-6)


def test_it_is_never_singular() -> None:
    one = still_keypoints()
    mirrored = Keypoints(one.values, one.jacobians * np.array([[1, 1], [-1, -1]], np.float32))
    between = interpolate_motion(one, mirrored, 0.5)
    check(between)
    assert np.abs(np.linalg.det(between.jacobians)).min() == 1


def test_a_lattice_lies_between_and_fades_where_one_end_has_none() -> None:
    lattice = np.full((10, 10, 2), 0.04, np.float32)
    plain, bent = still_keypoints(), replace(still_keypoints(), lattice=lattice)
    assert interpolate_motion(plain, plain, 0.5).lattice is None
    for one, other, wanted in ((plain, bent, 0.01), (bent, plain, 0.03), (bent, bent, 0.04)):
        between = interpolate_motion(one, other, 0.25).lattice
        assert between == pytest.approx(wanted)
        assert between.dtype == np.float32


def told(*lattices: float) -> list[Keypoints]:
    """Frames of one packet."""
    return [replace(still_keypoints(), lattice=np.full((10, 10, 2), x, np.float32)) for x in lattices]


def lattices(frames: list[Keypoints]) -> list[float]:
    return [float(frame.lattice[3, 3, 0]) for frame in frames]


def test_a_lattice_changes_evenly_over_a_packet() -> None:
    easing = LatticeEasing()
    assert lattices(easing.ease(told(0.1, 0.1), (0, 40), 5)) == pytest.approx([0.1, 0.1])
    assert lattices(easing.ease(told(0.2, 0.2), (80, 120), 5)) == pytest.approx([0.15, 0.2])
    assert lattices(easing.ease(told(0.3, 0.3), (160, 200), 5)) == pytest.approx([0.25, 0.3])


@pytest.mark.parametrize(
    ("first_ms", "keyframe"), [(400, 5), (80, 6), (40, 5)], ids=["later", "keyframe", "overtaken"]
)
def test_a_lattice_does_not_go_on_from_one_that_is_not_right_before(first_ms: int, keyframe: int) -> None:
    easing = LatticeEasing()
    easing.ease(told(0.1, 0.1), (0, 40), 5)
    after = easing.ease(told(0.2, 0.2), (first_ms, first_ms + 40), keyframe)
    assert lattices(after) == pytest.approx([0.2, 0.2])


def test_a_packet_without_a_lattice_ends_it() -> None:
    easing = LatticeEasing()
    easing.ease(told(0.1), (0,), 5)
    plain = [still_keypoints()]
    assert easing.ease(plain, (40,), 5) is plain
    assert lattices(easing.ease(told(0.2), (80,), 5)) == pytest.approx([0.2])
