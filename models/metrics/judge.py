"""How far one picture is from the real frame that it stands for: every measure that looks at a single frame.

What the real frame alone decides is computed once (`see`) and shared by all pictures that are compared with
it. mediapipe and dlib are not thread-safe, so each thread has its own.
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
    """A real frame (256, 256, 3) with what is computed of it once; `face` is None where none was found."""

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
        """A real frame; `half` keeps its features in half precision, for those that wait long."""
        features = None if self._perceptual is None else self._perceptual.features(rgb, half=half)
        return Seen(rgb, self.find_face(rgb), features)

    def compare(self, got: U8Image, seen: Seen, face: Face | None) -> dict[str, float]:
        """Measures by their names in `Scores`; `face` is what `find_face` gives for `got`."""
        similar, boxes = ssim_map(got, seen.rgb), seen.boxes()
        values = {"l1": l1(got, seen.rgb), "psnr": psnr(got, seen.rgb)}
        values |= {"ssim": float(similar.mean()), "ms_ssim": ms_ssim(got, seen.rgb)}
        if self._perceptual is not None and seen.perceptual is not None:
            values |= self._perceptual.distances(self._perceptual.features(got), seen.perceptual, boxes)
        for name, box in boxes.items():
            part, wanted = box.cut(got), box.cut(seen.rgb)
            values[f"{name}_l1"] = l1(part, wanted)
            values[f"{name}_psnr"] = psnr(part, wanted)
            values[f"{name}_ssim"] = float(box.cut(similar).mean())
        return values | compare_faces(face, seen.face)

    def _tools(self) -> tuple[PriorExtractor, FaceEmbedder | None]:
        if not hasattr(self._local, "tools"):
            embedder = FaceEmbedder() if self._identity else None
            self._local.tools = (PriorExtractor(tracking=False), embedder)
        tools: tuple[PriorExtractor, FaceEmbedder | None] = self._local.tools
        return tools


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
