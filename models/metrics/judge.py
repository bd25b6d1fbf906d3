"""How far one picture is from the real frame that it stands for: every measure that looks at a single frame.

What one picture alone decides is computed once (`see`), however often it is compared. mediapipe and dlib are
not thread-safe, so each thread has its own.
"""

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avcall.types import FRAME_SIZE_PX, F32Array, U8Image
from models.metrics.identity import FaceEmbedder, embedding_distance
from models.metrics.multiscale import ms_ssim
from models.metrics.perceptual import PairFeatures, PerceptualPair
from models.metrics.picture import (
    EYELIDS,
    LIPS,
    Box,
    box_around,
    l1,
    landmark_distance,
    mouth_box,
    psnr,
    ssim_map,
)
from models.priors import PriorExtractor


@dataclass(frozen=True, slots=True)
class Face:
    """A face that was found: `landmarks` (478, 2) in pixels, `embedding` (128,), None without AED."""

    landmarks: F32Array
    embedding: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture (256, 256, 3) with what is computed of it once; `face` is None where none was found."""

    rgb: U8Image
    face: Face | None
    perceptual: PairFeatures | None

    def boxes(self) -> dict[str, Box]:
        """The regions that are measured apart; none without a face."""
        if self.face is None:
            return {}
        points = self.face.landmarks
        return {"face": box_around(points, 0, FRAME_SIZE_PX), "mouth": mouth_box(points, FRAME_SIZE_PX)}


class FrameJudge:
    """Owns the networks of the measures; all methods may be called from several threads."""

    def __init__(self, *, perceptual: bool = True, identity: bool = True) -> None:
        """Without `perceptual` there is no ST-LPIPS, which takes most of the time; without `identity` no AED.

        Raises InputError for a package that is missing.
        """
        self._perceptual = PerceptualPair() if perceptual else None
        self._identity = identity
        self._local = threading.local()
        if identity:
            FaceEmbedder()  # so that what is missing is said at the start

    def find_face(self, rgb: U8Image) -> Face | None:
        """The face of a picture (H, W, 3), or None without one."""
        extractor, embedder = self._tools()
        rgb = np.ascontiguousarray(rgb)
        faces = extractor.faces(rgb)
        if not faces:
            return None
        return Face(faces[0], None if embedder is None else embedder.embed(rgb, faces[0]))

    def see(self, rgb: U8Image, *, half: bool = False) -> Seen:
        """Look at a picture; `half` keeps its features in half precision, for those that wait long."""
        features = None if self._perceptual is None else self._perceptual.features(rgb, half=half)
        return Seen(rgb, self.find_face(rgb), features)

    def compare(self, got: Seen, wanted: Seen) -> dict[str, float]:
        """Measures of one picture by their names in `Scores`, within the regions of the wanted one's face."""
        values = compare_pixels(got, wanted) | compare_faces(got.face, wanted.face)
        if self._perceptual is None or got.perceptual is None or wanted.perceptual is None:
            return values
        return values | self._perceptual.distances(got.perceptual, wanted.perceptual, wanted.boxes())

    def _tools(self) -> tuple[PriorExtractor, FaceEmbedder | None]:
        if not hasattr(self._local, "tools"):
            embedder = FaceEmbedder() if self._identity else None
            self._local.tools = (PriorExtractor(tracking=False), embedder)
        tools: tuple[PriorExtractor, FaceEmbedder | None] = self._local.tools
        return tools


def compare_pixels(got: Seen, wanted: Seen) -> dict[str, float]:
    """L1, PSNR, SSIM and MS-SSIM, of the whole picture and of the regions of the wanted one's face."""
    similar, boxes = ssim_map(got.rgb, wanted.rgb), wanted.boxes()
    values = {"l1": l1(got.rgb, wanted.rgb), "psnr": psnr(got.rgb, wanted.rgb)}
    values |= {"ssim": float(similar.mean()), "ms_ssim": ms_ssim(got.rgb, wanted.rgb)}
    for name, box in boxes.items():
        part, real = box.cut(got.rgb), box.cut(wanted.rgb)
        values[f"{name}_l1"] = l1(part, real)
        values[f"{name}_psnr"] = psnr(part, real)
        values[f"{name}_ssim"] = float(box.cut(similar).mean())
    return values


def compare_faces(found: Face | None, wanted: Face | None) -> dict[str, float]:
    """LMD and AED; only `face_lost` for a picture without a face, nothing for a real frame without one."""
    if wanted is None:
        return {}
    if found is None:
        return {"face_lost": 1.0}
    values = {
        "face_lost": 0.0,
        "lmd": landmark_distance(found.landmarks, wanted.landmarks),
        "lmd_lips": landmark_distance(found.landmarks, wanted.landmarks, LIPS),
        "lmd_eyelids": landmark_distance(found.landmarks, wanted.landmarks, EYELIDS),
    }
    if found.embedding is not None and wanted.embedding is not None:
        values["aed"] = embedding_distance(found.embedding, wanted.embedding)
    return values
