"""Cross-identity: a photo that moves as another person does.

Beside what models.metrics.reenactment measures: whether the pictures look like real ones (FD-EffNet against
the driver's own pictures), and Sync.
"""

from avcall.bench.score import Judge, Reference, Scored
from avcall.errors import PhotoError
from avcall.types import U8Image
from models.metrics.measures import Scores
from models.metrics.reenactment import compare_driven


class CrossJudge:
    """Scores one photo's reenactments; thread-safe as `Judge` is."""

    def __init__(self, judge: Judge, photo: U8Image) -> None:
        """`photo` (256, 256, 3) is the crop. Raises PhotoError when its face is not found again."""
        face = judge.find_face(photo)
        if face is None:
            raise PhotoError("--source: no face is found in the crop of the photo; give a frontal one")
        self.photo = photo
        self._judge, self._face = judge, face

    def score(self, reference: Reference, frames: U8Image) -> Scored:
        """`reference` is the driver's clip, `frames` (frames, 256, 256, 3) the photo's reenactment."""
        values, features = self._judge.score_as_set(reference, frames)
        found = [self._judge.find_face(frames[sample.index]) for sample in reference.samples]
        driving = [sample.seen.face for sample in reference.samples]
        return Scored(Scores(**values | compare_driven(found, driving, self._face)), features)
