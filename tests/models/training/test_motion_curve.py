"""The motion curve's own arithmetic; the coder and the judge have tests of their own."""

from dataclasses import replace

import numpy as np
import pytest

from models.training.motion_curve import FP16_KBPS, decoded_packets, packets
from tests.avcall.bitstream.test_golden import pinned_coder, pinned_frames, pinned_keypoints


def test_only_whole_packets_count() -> None:
    frames = pinned_frames() * 3
    assert [len(group) for group in packets(frames, 2)] == [2, 2, 2, 2]
    assert packets(frames[:1], 2) == []


def test_half_floats_cost_what_the_paper_says() -> None:
    groups = packets(pinned_frames(), 3)
    received, kbps = decoded_packets(pinned_coder(), groups, pinned_keypoints(), None)
    assert kbps == FP16_KBPS == 24.0
    np.testing.assert_allclose(received[0][0].values, groups[0][0].values, atol=1e-3)


def test_coarser_steps_cost_less_and_miss_more() -> None:
    groups = packets(pinned_frames(), 3)
    errors, rates = [], []
    for step in (0, 7):
        received, kbps = decoded_packets(pinned_coder(), groups, pinned_keypoints(), step)
        rates.append(kbps)
        errors.append(float(np.abs(received[0][-1].values - groups[0][-1].values).max()))
    payload_bytes = len(pinned_coder().encode(groups[0], pinned_keypoints(), 0))
    assert rates[0] == pytest.approx(payload_bytes * 8 / 120, rel=0.05)
    assert rates[1] < rates[0] < FP16_KBPS
    assert errors[0] < errors[1]


def test_lattices_travel_with_coded_motion_and_not_in_half_floats() -> None:
    lattice = np.zeros((10, 10, 2), np.float32)
    lattice[4, 4] = 0.03
    groups = packets([replace(frame, lattice=lattice) for frame in pinned_frames()], 3)
    coded, plain = (
        decoded_packets(pinned_coder(), groups, pinned_keypoints(), step)[0] for step in (0, None)
    )
    assert coded[0][0].lattice == pytest.approx(lattice, abs=0.006)
    assert plain[0][0].lattice is None
