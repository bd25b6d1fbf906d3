import pytest

from avcall.types import HeldKeyframe
from sender.encode import EncodedKeyframe
from sender.preview import Previewer
from sender.references import Estimate
from tests.fakes import FakeRuntime, grey_picture, still_keypoints


def keyframe(index: int, grey: int) -> EncodedKeyframe:
    return EncodedKeyframe(index, (), 100, HeldKeyframe(grey_picture(grey), still_keypoints(0.1), None))


def previewer() -> Previewer:
    return Previewer(FakeRuntime())  # type: ignore[arg-type]


def test_the_error_is_that_of_the_picture_and_the_distance_that_of_the_pose() -> None:
    found = previewer().estimate(grey_picture(100), still_keypoints(0.2), [keyframe(5, 151)])
    assert found == (Estimate(5, pytest.approx(51 / 255), pytest.approx(0.1 * 10**0.5, abs=1e-6)),)


def test_the_present_reference_is_looked_at_always_and_the_others_in_turn() -> None:
    stage, held = previewer(), [keyframe(index, 100) for index in (7, 2, 5)]
    looks = [
        [estimate.index for estimate in stage.estimate(grey_picture(100), still_keypoints(), held)]
        for _ in range(4)
    ]
    assert looks == [[7, 2], [7, 5], [7, 2], [7, 5]]


def test_without_references_there_is_nothing_to_look_at() -> None:
    assert previewer().estimate(grey_picture(100), still_keypoints(), []) == ()
