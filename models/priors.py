"""Structural priors of a face crop: face-mesh raster and person segmentation (AVFR section 3.1).

The mesh is not drawn as its 2556 edges, which at 64x64 merge into one blob. Drawn are its semantic regions,
filled and antialiased: the area of an eye or of the open mouth then survives as brightness where its outline
is below a pixel.
"""

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import cv2
import mediapipe as mp
import numpy as np
from mediapipe.python.solutions import face_mesh_connections as topology

from avcall.types import F32Array, Priors, U8Image

PRIOR_SIZE_PX = 64
CROP_SIZE_PX = 256
NUM_LANDMARKS = 478
SUPERSAMPLING = 8  # the raster is drawn at 8 times its size: OpenCV fills polygons in whole rows
SUBPIXEL_BITS = 4  # fixed-point fraction bits of OpenCV's polygon coordinates


def _ring(edges: Iterable[tuple[int, int]]) -> list[int]:
    """Order the edges of one closed outline into a walk around it."""
    follow = dict(edges)
    start = next(iter(follow))
    ring = [start]
    while (step := follow[ring[-1]]) != start:
        ring.append(step)
    return ring


def _undirected_ring(edges: Iterable[tuple[int, int]]) -> list[int]:
    """Like `_ring`, for outlines whose edges point either way."""
    neighbours: dict[int, list[int]] = {}
    for a, b in edges:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    start = min(neighbours)
    ring, previous = [start], -1
    while True:
        step = next(n for n in neighbours[ring[-1]] if n != previous)
        if step == start:
            return ring
        previous = ring[-1]
        ring.append(step)


# The lips' outlines in walking order; mediapipe lists them as one set of 40 edges, outer and inner mixed.
LIPS_OUTER = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
LIPS_INNER = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191]
FACE_OVAL = _ring(topology.FACEMESH_FACE_OVAL)
LEFT_EYE = _undirected_ring(topology.FACEMESH_LEFT_EYE)
RIGHT_EYE = _undirected_ring(topology.FACEMESH_RIGHT_EYE)
LEFT_IRIS = _ring(topology.FACEMESH_LEFT_IRIS)
RIGHT_IRIS = _ring(topology.FACEMESH_RIGHT_IRIS)
LEFT_BROW = [276, 283, 282, 295, 285, 336, 296, 334, 293, 300]
RIGHT_BROW = [46, 53, 52, 65, 55, 107, 66, 105, 63, 70]
NOSE = [168, 114, 129, 98, 2, 327, 358, 343]
REGIONS = (
    (FACE_OVAL, 70),
    (NOSE, 110),
    (LEFT_BROW, 160),
    (RIGHT_BROW, 160),
    (LIPS_OUTER, 150),
    (LIPS_INNER, 255),
    (LEFT_EYE, 255),
    (RIGHT_EYE, 255),
    (LEFT_IRIS, 190),
    (RIGHT_IRIS, 190),
)


def draw_mesh(landmarks: F32Array, size_px: int = PRIOR_SIZE_PX, extent_px: float = CROP_SIZE_PX) -> U8Image:
    """Raster of the face mesh: (size_px, size_px) uint8, from `landmarks` (478, 2) in `extent_px` pixels."""
    canvas = np.zeros((size_px * SUPERSAMPLING,) * 2, np.uint8)
    scale = size_px * SUPERSAMPLING / extent_px
    # OpenCV puts pixel centres on whole numbers, landmarks have them at .5.
    points = np.clip((landmarks * scale - 0.5) * (1 << SUBPIXEL_BITS), -30_000, 30_000).astype(np.int32)
    for ring, brightness in REGIONS:
        cv2.fillPoly(canvas, [points[ring]], brightness, cv2.LINE_AA, SUBPIXEL_BITS)
    return cv2.resize(canvas, (size_px, size_px), interpolation=cv2.INTER_AREA)


class PriorExtractor:
    """Runs mediapipe's face mesh and selfie segmentation on consecutive crops of one face.

    Not thread-safe: mediapipe tracks the face from crop to crop.
    """

    def __init__(self, *, tracking: bool = True, max_faces: int = 1) -> None:
        self._mesh: Any = mp.solutions.face_mesh.FaceMesh(
            static_image_mode=not tracking, max_num_faces=max_faces, refine_landmarks=True
        )
        self._segmentation: Any = mp.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)

    def faces(self, rgb: U8Image) -> list[F32Array]:
        """Landmarks (478, 2) float32 in pixels of `rgb` (height, width, 3), one array a face found."""
        height, width = rgb.shape[:2]
        found = self._mesh.process(rgb).multi_face_landmarks or []
        scale = np.array([width, height], np.float32)
        return [np.array([(p.x, p.y) for p in face.landmark], np.float32) * scale for face in found]

    def segment(self, rgb: U8Image) -> U8Image:
        """Person mask of a crop: (64, 64) uint8, 255 inside."""
        mask = self._segmentation.process(rgb).segmentation_mask
        small = cv2.resize(mask, (PRIOR_SIZE_PX, PRIOR_SIZE_PX), interpolation=cv2.INTER_AREA)
        return np.clip(small * 255.0 + 0.5, 0, 255).astype(np.uint8)

    def extract(self, rgb: U8Image) -> Priors:
        """Both priors of one crop (256, 256, 3) uint8."""
        faces = self.faces(rgb)
        landmarks = faces[0] if faces else None
        mesh = np.zeros((PRIOR_SIZE_PX,) * 2, np.uint8) if landmarks is None else draw_mesh(landmarks)
        return Priors(mesh, self.segment(rgb), landmarks)

    def close(self) -> None:
        """Free mediapipe's graphs."""
        self._mesh.close()
        self._segmentation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
