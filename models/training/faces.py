"""Faces in the frames of any video: a search of the whole frame, then a window around the face found."""

from types import TracebackType
from typing import Self

import cv2
import numpy as np

from avcall.types import FRAME_RATE, U8Image
from models.priors import PriorExtractor
from models.training.tracks import FaceBox

SEARCH_EVERY_FRAMES = 5  # while there is no face
RIVALS_EVERY_FRAMES = FRAME_RATE  # a search for other faces while one is followed
SEARCH_SIDE_PX = 640  # a searched window is reduced to this
WINDOW_HEIGHTS = 2.2  # face heights; side of the window in which a face is followed
WINDOW_SIDE_PX = 320  # the window is reduced to this
MAX_DRIFT = 0.35  # face heights from the window's middle, after which it is laid anew
SAME_FACE = 0.5  # face heights; nearer ones are two sights of one face
MAX_FACES = 2  # the second is there to be noticed


def windows(width: int, height: int) -> list[list[tuple[int, int, int, int]]]:
    """Where to look, in rounds of (left, top, width, height): the whole frame, then ever smaller squares.

    The detector sees 128 pixels a side and misses faces of less than a seventh of them.
    """
    rounds = [[(0, 0, width, height)]]
    for share in (1.0, 0.5):
        side = round(min(width, height) * share)
        if side < SEARCH_SIDE_PX // 2 or (side == width == height):
            continue
        columns = np.unique(np.linspace(0, width - side, max(1, round(2 * width / side) - 1)).astype(int))
        rows = np.unique(np.linspace(0, height - side, max(1, round(2 * height / side) - 1)).astype(int))
        rounds.append([(int(x), int(y), side, side) for y in rows for x in columns])
    return rounds


def _distinct(boxes: list[FaceBox]) -> list[FaceBox]:
    """Without the second sight of one face, tallest first."""
    kept: list[FaceBox] = []
    for box in sorted(boxes, key=lambda box: -box.height):
        if all(other.distance(box) >= SAME_FACE for other in kept):
            kept.append(box)
    return kept


class FaceFinder:
    """Faces of consecutive frames. Not thread-safe: mediapipe follows the face from frame to frame."""

    def __init__(self) -> None:
        self._search = PriorExtractor(tracking=False, max_faces=MAX_FACES)
        self._follow = PriorExtractor()  # of two faces, one would soon be a second sight of the first
        self._window: tuple[int, int, int, int] | None = None
        self._index = 0
        self._searched = -SEARCH_EVERY_FRAMES
        self._rivals: list[FaceBox] = []  # seen by the last search, outside the window

    def forget(self) -> None:
        """A new shot begins: search at the next frame."""
        self._window, self._rivals = None, []
        self._searched = self._index - SEARCH_EVERY_FRAMES

    def faces(self, rgb: U8Image) -> list[FaceBox]:
        """The faces of the next frame, (height, width, 3) of one size: the followed one, then the others."""
        found = [] if self._window is None else self._look(rgb, self._window, self._follow, WINDOW_SIDE_PX)
        wait = RIVALS_EVERY_FRAMES if found else SEARCH_EVERY_FRAMES
        if self._index - self._searched >= wait:
            self._searched = self._index
            searched = self._search_all(rgb, thorough=not found)
            if not any(box.distance(found[0]) < SAME_FACE for box in searched if found):
                found = searched[:1] or found  # the search looks afresh: what it does not see was a mistake
            self._rivals = [box for box in searched if box.distance(found[0]) >= SAME_FACE]
        self._index += 1
        if found:
            self._aim(found[0], rgb.shape[1], rgb.shape[0])
        return [*found, *self._rivals] if found else []

    def close(self) -> None:
        """Free mediapipe's graphs."""
        self._search.close()
        self._follow.close()

    def _search_all(self, rgb: U8Image, thorough: bool) -> list[FaceBox]:
        for windows_of_round in windows(rgb.shape[1], rgb.shape[0]):
            found = [
                box
                for window in windows_of_round
                for box in self._look(rgb, window, self._search, SEARCH_SIDE_PX)
            ]
            if found or not thorough:
                return _distinct(found)
        return []

    def _look(
        self, rgb: U8Image, window: tuple[int, int, int, int], extractor: PriorExtractor, side_px: int
    ) -> list[FaceBox]:
        left, top, width, height = window
        piece = rgb[top : top + height, left : left + width]
        scale = min(1.0, side_px / max(width, height))
        if scale < 1:
            piece = cv2.resize(piece, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        found = extractor.faces(np.ascontiguousarray(piece, np.uint8))
        corner = np.array([left, top], np.float32)
        return [FaceBox.around(points / np.float32(scale) + corner) for points in found]

    def _aim(self, face: FaceBox, width: int, height: int) -> None:
        """Lay the window around a face, unless it lies well enough: mediapipe follows best in a still one."""
        x, y = face.middle
        side = min(round(face.height * WINDOW_HEIGHTS), width, height)
        if self._window is not None:
            left, top, old, _ = self._window
            drift = max(abs(x - left - old / 2), abs(y - top - old / 2)) / max(face.height, 1.0)
            if drift < MAX_DRIFT and 0.8 < side / old < 1.25:
                return
        left, top = (int(np.clip(v - side / 2, 0, n - side)) for v, n in ((x, width), (y, height)))
        self._window = (left, top, side, side)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
