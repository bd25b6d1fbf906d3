"""Which frames of a clip are shown."""

from collections.abc import Callable

import numpy as np

from avcall.types import F32Array
from models.metrics.picture import FACE_SIDES
from models.training.strips import Line, Strip
from tests.models.tiny import landmarks


def face(change: Callable[[F32Array], None]) -> F32Array:
    points = landmarks()
    points[list(FACE_SIDES)] = (60, 128), (190, 128)
    points[[13, 14]] = (128, 180), (128, 182)
    points[[159, 145, 386, 374]] = (90, 100), (90, 108), (160, 100), (160, 108)
    change(points)
    return points


def opens_mouth(points: F32Array) -> None:
    points[14, 1] += 20


def shuts_eyes(points: F32Array) -> None:
    points[[145, 374], 1] -= 7


def moves_head(points: F32Array) -> None:
    points[:] += 30


def test_a_strip_keeps_the_widest_mouth_the_closed_eyes_and_the_farthest_head() -> None:
    def line(index: int, change: Callable[[F32Array], None]) -> Line:
        picture = np.full((4, 4, 3), index, np.uint8)
        return Line(index, face(change), (picture, picture + np.uint8(100)))

    strip = Strip(face(lambda _: None))
    assert strip.picture() is None
    changes = [lambda _: None, opens_mouth, lambda _: None, moves_head, shuts_eyes]
    for index, change in enumerate(changes, 1):
        strip.offer(line(index, change))
    strip.offer(Line(9, None, ()))
    picture = strip.picture()
    assert picture is not None
    assert picture.shape == (3 * 4, 2 * 4, 3)
    assert picture[::4, ::4, 0].tolist() == [[2, 102], [4, 104], [5, 105]]


def test_without_a_face_at_the_start_nothing_is_shown() -> None:
    strip = Strip(None)
    strip.offer(Line(1, face(lambda _: None), (np.zeros((4, 4, 3), np.uint8),)))
    assert strip.picture() is None
