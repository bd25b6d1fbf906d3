"""Finding faces: where is looked, and mediapipe on a real face far off the middle of a large frame."""

from collections.abc import Iterator

import av
import cv2
import numpy as np
import pytest

from avcall.sample import source_clip
from avcall.types import U8Image
from models.training.faces import FaceFinder, windows


@pytest.fixture(scope="module")
def face() -> U8Image:
    with av.open(str(source_clip())) as container:
        rgb = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return np.asarray(cv2.resize(rgb, (352, 288), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture
def finder() -> Iterator[FaceFinder]:
    with FaceFinder() as made:
        yield made


def placed(face: U8Image, *corners: tuple[int, int]) -> U8Image:
    frame = np.full((720, 1280, 3), 90, np.uint8)
    for x, y in corners:
        frame[y : y + 288, x : x + 352] = face
    return frame


@pytest.mark.parametrize("size", [(1280, 720), (1080, 1920), (640, 360), (720, 720), (224, 224)])
def test_the_windows_cover_the_frame_and_stay_inside(size: tuple[int, int]) -> None:
    rounds = windows(*size)
    assert rounds[0] == [(0, 0, *size)]
    for looks in rounds:
        seen = np.zeros(size[::-1], bool)
        for left, top, width, height in looks:
            assert 0 <= left <= size[0] - width and 0 <= top <= size[1] - height
            seen[top : top + height, left : left + width] = True
        assert seen.all()


def test_a_face_is_found_and_followed(face: U8Image, finder: FaceFinder) -> None:
    for step in range(7):
        boxes = finder.faces(placed(face, (800 + 4 * step, 400)))
        assert len(boxes) == 1
        x, y = boxes[0].middle
        assert 880 < x - 4 * step < 1100 and 450 < y < 650


def test_nothing_is_found_in_nothing(finder: FaceFinder) -> None:
    assert finder.faces(np.full((360, 640, 3), 90, np.uint8)) == []


def test_a_second_face_far_off_is_noticed_and_a_new_shot_forgets_it(
    face: U8Image, finder: FaceFinder
) -> None:
    both = placed(face, (100, 60), (800, 400))
    assert [len(finder.faces(both)) for _ in range(3)] == [2, 2, 2]
    finder.forget()
    assert len(finder.faces(placed(face, (100, 60)))) == 1
