"""Preview: the sender's own estimate of the picture that the receiver sees, at 64x64."""

import itertools
from collections.abc import Sequence

from avcall.types import Keypoints, U8Image
from models.runtime import ModelRuntime
from sender.encode import EncodedKeyframe
from sender.references import Estimate, distance


class Previewer:
    """The preview graph as a stage."""

    def __init__(self, runtime: ModelRuntime) -> None:
        self._runtime = runtime
        self._turns = itertools.count()

    def estimate(
        self, rgb: U8Image, keypoints: Keypoints, references: Sequence[EncodedKeyframe]
    ) -> tuple[Estimate, ...]:
        """How far the references, warped into this pose, are from the camera's crop (256, 256, 3).

        The first of them, which is in use, is looked at every time; the others take turns. Takes about 3 ms a
        reference.
        """
        looked_at = list(references[:1])
        if len(references) > 1:
            looked_at.append(references[1 + next(self._turns) % (len(references) - 1)])
        return tuple(self._one(reference, keypoints, rgb) for reference in looked_at)

    def _one(self, reference: EncodedKeyframe, keypoints: Keypoints, rgb: U8Image) -> Estimate:
        _, error = self._runtime.preview(reference.held, keypoints, rgb)
        return Estimate(reference.index, error, distance(reference.keypoints, keypoints))
