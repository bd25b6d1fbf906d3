"""AED against dlib's own threshold for one person."""

import cv2
import numpy as np
import pytest
from skimage import data

from avcall.sample import source_clip
from avcall.types import U8Image
from models.metrics.identity import SAME_PERSON, FaceEmbedder, embedding_distance
from models.priors import PriorExtractor
from sender.capture import read_video


@pytest.fixture(scope="module")
def embed() -> "Embed":
    return Embed()


class Embed:
    """Landmarks and embedding of a picture with one face."""

    def __init__(self) -> None:
        self._extractor = PriorExtractor(tracking=False)
        self._embedder = FaceEmbedder()

    def __call__(self, rgb: U8Image) -> np.ndarray:
        rgb = np.ascontiguousarray(rgb)
        return self._embedder.embed(rgb, self._extractor.faces(rgb)[0])


def test_one_person_in_two_pictures_is_one_person(embed: Embed) -> None:
    face = data.astronaut()[:300, 80:380]
    mirrored = cv2.GaussianBlur((face[:, ::-1] * 0.8).astype(np.uint8), (0, 0), 1)
    assert embed(face).shape == (128,)
    assert embedding_distance(embed(face), embed(face)) == 0.0
    assert embedding_distance(embed(face), embed(mirrored)) < SAME_PERSON


def test_two_people_are_two_people(embed: Embed) -> None:
    frames = read_video(source_clip())
    stranger = cv2.resize(next(frames).rgb, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    assert embedding_distance(embed(data.astronaut()[:300, 80:380]), embed(stranger)) > SAME_PERSON
