"""Track: finds the face and cuts a 256x256 crop that follows it slowly, so that head motion stays motion."""

from dataclasses import dataclass, replace
from enum import Enum

import cv2
import numpy as np

from avcall.types import FRAME_SIZE_PX, F32Array, FaceCrop, U8Image, VideoFrame
from models.priors import PriorExtractor

FACE_HEIGHTS = 1.8  # side of the crop; what the network was trained on
RAISE = 0.03  # of the side: the face's middle lies this much below the crop's, as in the training data
WHOLE_FRAME_SHARE = 0.88  # a crop that covers more of the frame than this takes all of it
DEAD_ZONE = 0.15  # of the side: the crop rests while the face's middle is nearer than this to its own
SCALE_DEAD_ZONE = 1.3  # the crop keeps its size while the face is no more than this times larger or smaller
FOLLOW_MS = 1500.0  # time constant of the crop once it moves
SETTLED = 0.03  # of the side: the crop rests again
LOST_AFTER_MS = 1000  # without a face for longer, motion is held
MIN_SIDE_PX = 32  # of a crop; a smaller face shows nothing that could be animated
SEARCH_SIDE_PX = 640  # the search runs on a frame reduced to this
SEARCH_EVERY_MS = 200  # a search of the whole frame costs about as much as three frames of the call


class FaceState(Enum):
    """What the tracker knows about the face."""

    SEARCHING = "searching"  # none was ever seen
    TRACKED = "tracked"
    LOST = "lost"  # seen before, but not for the last second


@dataclass(frozen=True, slots=True)
class CropBox:
    """A square in the frame, in pixels: its middle and its side."""

    x: float
    y: float
    side: float

    def clamped(self, width: int, height: int) -> "CropBox":
        """The nearest box inside a frame of that size."""
        limit = float(min(width, height))
        side = limit if self.side > limit * WHOLE_FRAME_SHARE else max(self.side, min(MIN_SIDE_PX, limit))
        half = side / 2
        return CropBox(
            float(np.clip(self.x, half, width - half)), float(np.clip(self.y, half, height - half)), side
        )

    def to_frame(self, points: F32Array) -> F32Array:
        """Points (n, 2) of the 256x256 crop in pixels of the frame."""
        corner = np.array([self.x - self.side / 2, self.y - self.side / 2], np.float32)
        return points * np.float32(self.side / FRAME_SIZE_PX) + corner

    def cut(self, rgb: U8Image) -> U8Image:
        """The crop, (256, 256, 3) uint8."""
        left, top = round(self.x - self.side / 2), round(self.y - self.side / 2)
        side = round(self.side)
        height, width = rgb.shape[:2]
        left, top = max(0, min(left, width - side)), max(0, min(top, height - side))
        piece = rgb[top : top + side, left : left + side]
        if side == FRAME_SIZE_PX:
            return np.ascontiguousarray(piece)
        method = cv2.INTER_AREA if side > FRAME_SIZE_PX else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(piece, (FRAME_SIZE_PX, FRAME_SIZE_PX), interpolation=method), np.uint8)


def wanted_box(landmarks: F32Array) -> CropBox:
    """The box that frames a face as in the training data; `landmarks` (478, 2) in frame pixels."""
    low, high = landmarks.min(0), landmarks.max(0)
    side = float(high[1] - low[1]) * FACE_HEIGHTS
    x, y = (low + high) / 2
    return CropBox(float(x), float(y) - RAISE * side, side)


def follow(box: CropBox, wanted: CropBox, elapsed_ms: float, moving: bool) -> tuple[CropBox, bool]:
    """One step of the crop towards the wanted box, and whether it goes on moving.

    Both boxes lie inside the frame; a wanted one that did not could never be reached, and the crop would
    never rest.
    """
    offset = max(abs(wanted.x - box.x), abs(wanted.y - box.y)) / box.side
    ratio = max(wanted.side / box.side, box.side / wanted.side)
    if not moving and offset < DEAD_ZONE and ratio < SCALE_DEAD_ZONE:
        return box, False
    share = 1 - float(np.exp(-elapsed_ms / FOLLOW_MS))
    stepped = CropBox(
        box.x + (wanted.x - box.x) * share,
        box.y + (wanted.y - box.y) * share,
        box.side + (wanted.side - box.side) * share,
    )
    return stepped, offset > SETTLED or ratio > 1 + SETTLED


def find_faces(rgb: U8Image, extractor: PriorExtractor) -> list[F32Array]:
    """Landmarks (478, 2) of every face in a frame of any size, in its own pixels, largest face first."""
    scale = min(1.0, SEARCH_SIDE_PX / max(rgb.shape[:2]))
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
    ratio = np.array([rgb.shape[1] / small.shape[1], rgb.shape[0] / small.shape[0]], np.float32)
    faces = [face * ratio for face in extractor.faces(np.ascontiguousarray(small, np.uint8))]
    return sorted(faces, key=lambda face: -float(np.ptp(face[:, 1])))


class FaceTracker:
    """Cuts the face out of consecutive frames; not thread-safe."""

    def __init__(self) -> None:
        self._priors = PriorExtractor()
        self._search = PriorExtractor(tracking=False)
        self._box: CropBox | None = None
        self._moving = False
        self._last_pts_ms = 0
        self._seen_pts_ms: int | None = None
        self._searched_pts_ms: int | None = None
        self._mesh: U8Image | None = None  # of the last frame in which the face was found
        self.state = FaceState.SEARCHING

    def crop(self, frame: VideoFrame) -> FaceCrop | None:
        """The crop of a frame; None until a face was seen, and while it is lost."""
        height, width = frame.rgb.shape[:2]
        elapsed_ms = frame.pts_ms - self._last_pts_ms
        self._last_pts_ms = frame.pts_ms
        if self.state is not FaceState.TRACKED and not self._acquire(frame):
            return None
        assert self._box is not None
        box = self._box.clamped(width, height)
        rgb = box.cut(frame.rgb)
        priors = self._priors.extract(rgb)
        if priors.landmarks is not None:
            self._seen_pts_ms = frame.pts_ms
            wanted = wanted_box(box.to_frame(priors.landmarks)).clamped(width, height)
            self._box, self._moving = follow(box, wanted, elapsed_ms, self._moving)
            self._mesh = priors.mesh
        elif self._seen_pts_ms is None or frame.pts_ms - self._seen_pts_ms > LOST_AFTER_MS:
            self.state = FaceState.LOST
            return None
        elif self._mesh is not None:
            # Without the mesh that the keyframe has, the keypoints would jump for these few frames.
            priors = replace(priors, mesh=self._mesh)
        return FaceCrop(rgb, priors, frame.pts_ms)

    def close(self) -> None:
        """Free mediapipe's graphs."""
        self._priors.close()
        self._search.close()

    def _acquire(self, frame: VideoFrame) -> bool:
        """Look for the largest face of the whole frame, but not at every frame."""
        if self._searched_pts_ms is not None and frame.pts_ms - self._searched_pts_ms < SEARCH_EVERY_MS:
            return False
        self._searched_pts_ms = frame.pts_ms
        faces = find_faces(frame.rgb, self._search)
        if not faces:
            return False
        self._box, self._moving, self._mesh = wanted_box(faces[0]), False, None
        self._seen_pts_ms = frame.pts_ms
        self.state = FaceState.TRACKED
        return True


def crop_photo(rgb: U8Image, extractor: PriorExtractor) -> tuple[FaceCrop | None, int]:
    """The face of a photo as a crop, and how many faces it shows; None unless there is exactly one."""
    faces = find_faces(rgb, extractor)
    if len(faces) != 1:
        return None, len(faces)
    cut = wanted_box(faces[0]).clamped(rgb.shape[1], rgb.shape[0]).cut(rgb)
    return FaceCrop(cut, extractor.extract(cut), 0), 1
