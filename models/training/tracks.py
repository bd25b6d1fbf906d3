"""Face tracks of a video: which stretches of it show one face that one fixed square can hold.

Pure: it is told the faces of each frame and whether a new shot begins, and says where each clip lies. The
square stays where it is for a whole track, so that the motion of the head stays in the pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np

from avcall.types import FRAME_RATE, FRAME_SIZE_PX, F32Array, U8Image

FACE_HEIGHTS = 1.85  # side of the square
RAISE = 0.03  # of the side: the square's middle lies this much above the face's, for there is hair above it
MIN_ROOM = 1.25  # face heights; a square that the frame makes smaller than this cuts chin or forehead off
MIN_SIDE_PX = 128  # smaller squares would be enlarged more than twice
MIN_FACE_SHARE_OF_CROP = 0.3  # of the height of a video that is cropped already; ours have 0.33 and more
MIN_FRAMES = 25  # shorter clips give no pairs worth training on
MAX_FRAMES = 30 * FRAME_RATE  # longer tracks are divided: a clip is written from memory
MAX_GAP_FRAMES = FRAME_RATE  # without a face for longer, the track is over
MAX_JUMP = 0.5  # face heights from one frame to the next; fast heads move 0.25
MAX_GROWTH = 1.6  # of the face's height against the track's median: someone else, or a zoom
RIVAL_HEIGHT = 0.5  # of the main face's height: a second face as tall as this competes with it
MAX_RIVAL_SHARE = 0.1  # of the frames of a track
THUMBNAIL_PX = 32
HISTOGRAM_LEVELS = 8  # for each colour
CUT_HISTOGRAM = 0.25  # share of the pixels that change their colour; lights that flicker reach this too,
CUT_DIFFERENCE = 0.065  # but not this mean difference of the thumbnails, where white is 1


class Reason(StrEnum):
    """Why a video, or a stretch of it, gives no clip."""

    UNREADABLE = "not readable as video"
    NO_FACE = "no face"
    SHORT = f"shorter than {MIN_FRAMES} frames"
    FACE_LOST = "a face in less than 80% of its frames"
    SECOND_FACE = "a second face beside the first"
    TOO_SMALL = "the face is too small"
    TOO_NEAR = "the face is too near the edges of the picture"


@dataclass(frozen=True, slots=True)
class FaceBox:
    """The bounds of a face's landmarks, in pixels of the frame."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def around(cls, landmarks: F32Array) -> "FaceBox":
        """Of landmarks (478, 2) in pixels of the frame."""
        (left, top), (right, bottom) = landmarks.min(0), landmarks.max(0)
        return cls(float(left), float(top), float(right), float(bottom))

    @property
    def height(self) -> float:
        """In pixels."""
        return self.bottom - self.top

    @property
    def middle(self) -> tuple[float, float]:
        """x and y in pixels."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def distance(self, other: "FaceBox") -> float:
        """Between the middles, in heights of this face."""
        (x, y), (u, v) = self.middle, other.middle
        return float(np.hypot(x - u, y - v)) / max(self.height, 1.0)

    def union(self, other: "FaceBox") -> "FaceBox":
        """The bounds of both."""
        return FaceBox(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )


@dataclass(frozen=True, slots=True)
class Square:
    """Where a clip is cut out of its video, in pixels."""

    left: int
    top: int
    side: int

    def cut(self, rgb: U8Image) -> U8Image:
        """The crop of a frame, (256, 256, 3) uint8."""
        piece = rgb[self.top : self.top + self.side, self.left : self.left + self.side]
        if self.side == FRAME_SIZE_PX:
            return np.ascontiguousarray(piece)
        method = cv2.INTER_AREA if self.side > FRAME_SIZE_PX else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(piece, (FRAME_SIZE_PX,) * 2, interpolation=method), np.uint8)


@dataclass(frozen=True, slots=True)
class Track:
    """Frames `first` to `last` - 1 at 25 a second. `refused` says why it gives no clip, or None."""

    first: int
    last: int
    square: Square
    refused: Reason | None = None


def place(boxes: Sequence[FaceBox], width: int, height: int) -> Square:
    """The square inside a frame that frames these faces of one track: around most, and all of each."""
    side = min(round(float(np.median([box.height for box in boxes])) * FACE_HEIGHTS), width, height)
    x, y = np.median([box.middle for box in boxes], 0)
    y -= RAISE * side
    low_x, high_x = max(box.right for box in boxes), min(box.left for box in boxes)
    low_y, high_y = max(box.bottom for box in boxes), min(box.top for box in boxes)
    # From `low - side` on the square holds the farthest right (bottom), up to `high` the farthest left (top).
    left = np.clip(x - side / 2, min(low_x - side, high_x), max(low_x - side, high_x))
    top = np.clip(y - side / 2, min(low_y - side, high_y), max(low_y - side, high_y))
    return Square(
        int(np.clip(round(float(left)), 0, width - side)),
        int(np.clip(round(float(top)), 0, height - side)),
        side,
    )


class ShotDetector:
    """Finds the first frame of each shot by colours that change at once."""

    def __init__(self) -> None:
        self._thumbnail: F32Array | None = None
        self._histogram: F32Array | None = None

    def begins(self, rgb: U8Image) -> bool:
        """Whether this frame is of another shot than the one before; False for the first."""
        small = cv2.resize(rgb, (THUMBNAIL_PX,) * 2, interpolation=cv2.INTER_AREA)
        thumbnail = small.astype(np.float32) / 255
        level = (small // (256 // HISTOGRAM_LEVELS)).astype(np.int64) @ HISTOGRAM_LEVELS ** np.arange(3)
        counts = np.bincount(level.ravel(), minlength=HISTOGRAM_LEVELS**3)
        histogram = counts.astype(np.float32) / THUMBNAIL_PX**2
        previous, self._thumbnail = self._thumbnail, thumbnail
        previous_histogram, self._histogram = self._histogram, histogram
        if previous is None or previous_histogram is None:
            return False
        recoloured = float(np.abs(histogram - previous_histogram).sum()) / 2
        return recoloured > CUT_HISTOGRAM and float(np.abs(thumbnail - previous).mean()) > CUT_DIFFERENCE


class TrackBuilder:
    """Divides a video of `width` x `height` pixels into tracks, frame by frame.

    A video of 256x256 is taken for a face crop: whole shots of it become tracks, wherever the face is.
    """

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self.cropped = (width, height) == (FRAME_SIZE_PX, FRAME_SIZE_PX)
        self._index = 0  # of the next frame
        self._first = 0
        self._boxes: list[FaceBox | None] = []  # of the open track, which begins at `_first`
        self._seen: list[FaceBox] = []
        self._hull: FaceBox | None = None  # of all that were seen
        self._rivals = 0
        self.faces = 0  # frames with a face, in the whole video

    def push(self, faces: Sequence[FaceBox], new_shot: bool) -> list[Track]:
        """The faces of the next frame; returns the tracks that it ends."""
        ended = self._end() if new_shot or len(self._boxes) == MAX_FRAMES else []
        main = self._main(faces)
        if main is not None and self._leaves(main):
            ended += self._end()
        if not self._boxes and (main is not None or self.cropped):
            self._first = self._index
        if main is not None:
            self._rivals += any(
                face.height > RIVAL_HEIGHT * main.height and face.distance(main) > MAX_JUMP
                for face in faces
                if face is not main
            )
            self._hull = main if self._hull is None else self._hull.union(main)
            self._seen.append(main)
            self.faces += 1
        if self._boxes or main is not None or self.cropped:
            self._boxes.append(main)
        self._index += 1
        if not self.cropped and len(self._boxes) > MAX_GAP_FRAMES and not any(self._boxes[-MAX_GAP_FRAMES:]):
            ended += self._end()
        return ended

    def finish(self) -> list[Track]:
        """The video is over; returns the last track, if there is one."""
        return self._end()

    def _main(self, faces: Sequence[FaceBox]) -> FaceBox | None:
        """The face that is followed: the nearest to the last one, or the tallest."""
        if not faces:
            return None
        if self._seen:
            return min(faces, key=self._seen[-1].distance)
        return max(faces, key=lambda face: face.height)

    def _leaves(self, face: FaceBox) -> bool:
        """Whether a face cannot belong to the open track: it jumped, or no one square holds all of them."""
        if self.cropped or self._hull is None:
            return False
        last = self._seen[-1]
        missing = len(self._boxes) - max(i for i, box in enumerate(self._boxes) if box is not None) - 1
        if last.distance(face) > MAX_JUMP * min(1 + missing, 3):
            return True
        usual = float(np.median([box.height for box in self._seen]))
        if max(face.height / usual, usual / face.height) > MAX_GROWTH:
            return True
        hull = self._hull.union(face)
        return max(hull.right - hull.left, hull.height) > FACE_HEIGHTS * usual

    def _end(self) -> list[Track]:
        boxes, seen, rivals = self._boxes, self._seen, self._rivals
        self._boxes, self._seen, self._hull, self._rivals = [], [], None, 0
        if not self.cropped:
            while boxes and boxes[-1] is None:
                boxes.pop()
        if not boxes:
            return []
        last = self._first + len(boxes)
        if self.cropped:
            square = Square(0, 0, FRAME_SIZE_PX)
            return [Track(self._first, last, square, Reason.SHORT if len(boxes) < MIN_FRAMES else None)]
        square = place(seen, self._width, self._height)
        return [Track(self._first, last, square, self._judge(boxes, seen, rivals, square.side))]

    def _judge(
        self, boxes: Sequence[FaceBox | None], seen: Sequence[FaceBox], rivals: int, side: int
    ) -> Reason | None:
        usual = float(np.median([box.height for box in seen]))
        if len(boxes) < MIN_FRAMES:
            return Reason.SHORT
        if rivals > MAX_RIVAL_SHARE * len(seen):
            return Reason.SECOND_FACE
        if min(side, round(usual * FACE_HEIGHTS)) < MIN_SIDE_PX:
            return Reason.TOO_SMALL
        return Reason.TOO_NEAR if side < MIN_ROOM * usual else None
