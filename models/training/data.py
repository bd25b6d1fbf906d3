"""Pairs of frames of one person, augmented: what a training step sees."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avcall.errors import InputError
from avcall.types import FRAME_RATE, FRAME_SIZE_PX, SAMPLE_RATE_HZ, F32Array, Pcm, U8Image
from models.expressions import telling_frames
from models.mel import mel_window
from models.optical_flow import optical_flow
from models.priors import LIPS_OUTER, PRIOR_SIZE_PX, draw_mesh
from models.sight import PIN_LANDMARKS, PINNED_KEYPOINTS
from models.training.prepare import LANDMARK_SCALE

# Landmarks that keypoints are drawn to: nose, inner lips, upper eyelids; and which keypoints those are.
NOSE_TIP, CHIN, FOREHEAD = 1, 152, 10
ANCHORS = (NOSE_TIP, *PIN_LANDMARKS)
MIRRORED_ANCHORS = (NOSE_TIP, 13, 14, 386, 159)
ANCHORED_KEYPOINTS = (0, *PINNED_KEYPOINTS)
# The others are held near these places, said in heights of the face from its middle (right, down): both
# shoulders, and the hair at both sides. Let go, all of them come to the face.
SEEDS = ((-0.9, 1.3), (0.9, 1.3), (-0.55, -0.2), (0.55, -0.2))
SEEDED_KEYPOINTS = [1, 2, 7, 8]
# Masks of the dense motion (keypoint + 1; 0 is what stays) that may move a place of each part of the picture.
PARTS = {"background": (0, 10), "head": (1, 4, 5, 6, 7, 8, 9), "body": (2, 3)}
# Heights of the face from the chin down: the neck is between head and body, and hair may fall beside it.
NECK = (-0.05, 0.15)
FALLING_HAIR, FALLS_TO = (0.3, 0.6), 0.5
SURE_PERSON, SURE_BACKGROUND = 192, 64  # of the segmentation's 255
EYE_CENTRES = ((33, 133), (362, 263))  # corners of each eye
DISC_WEIGHT = 8.0
HULL_WEIGHT = 2.0
HIDDEN_RADIUS = 0.8  # of the mouth's width: lips, and the chin's upper half
SEED_REACH = 0.85  # of the way to the picture's edge


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Augmentation and modality dropout.

    `whole_pixels` is how often a pair is only shifted, by whole pixels: its pictures keep their sharpness,
    which whatever is rotated or scaled loses. `telling` is how often the driving frame is one with closed
    eyes or a wide mouth, where its clip has any; `hidden_mouth` how often the detector may not see the mouth
    of one who speaks, so that speech has to tell.
    Without `regions` every place of a picture counts alike.
    """

    max_scale: float = 0.10
    max_shift: float = 0.06
    max_rotation_deg: float = 8.0
    max_brightness: float = 0.12
    whole_pixels: float = 0.5
    no_audio: float = 0.15
    no_mesh: float = 0.15
    no_mask: float = 0.10
    telling: float = 0.35
    hidden_mouth: float = 0.20
    regions: bool = True


class Batch(NamedTuple):
    """Tensors of one step; the first axis is the pair, then source and driving where both are there.

    Pictures and priors are uint8 on their way to the device, a quarter of their size; a step takes `floats`.
    A tuple, because workers hand it over part by part.
    """

    pictures: Tensor  # (N, 2, 3, S, S) uint8 in channels-last order; in a step float in [0, 1]
    priors: Tensor  # (N, 2, 2, 64, 64) uint8; in a step float in [0, 1]
    landmarks: Tensor  # (N, 2, 478, 2) in [-1, 1]
    anchors: Tensor  # (N, 2, len(ANCHORS), 2) in [-1, 1]
    seeds: Tensor  # (N, len(SEEDS), 2) in [-1, 1], for both frames: none of these turns with the head
    has_face: Tensor  # (N,) 1 where both frames have landmarks
    weights: Tensor  # (N, 1, 64, 64) how much a place of the driving picture counts
    mel: Tensor  # (N, 80, 16)
    gate: Tensor  # (N, 1)
    optical: Tensor  # (N, 64, 64, 2) backward flow in [-1, 1]
    optical_sure: Tensor  # (N, 64, 64) in [0, 1]
    parts: Tensor  # (N, len(PARTS), 64, 64) 1 where a place of the driving picture is that part for sure
    seen: Tensor  # (N, 1, 64, 64) 0 where the driving frame is hidden from the detector, otherwise 1

    def floats(self) -> "Batch":
        """With pictures and priors as a step takes them: float32 in [0, 1]."""
        return self._replace(pictures=self.pictures.float() / 255, priors=self.priors.float() / 255)


class Clip:
    """A prepared clip in memory: pictures stay JPEG until they are asked for."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self._jpeg, self._offset = file["jpeg"], file["offset"]
            self._landmarks, self._mask = file["landmarks"], file["mask"]
            self.pcm: Pcm = file["pcm"]
        self.name = path.stem
        self.telling = telling_frames(self._landmarks.astype(np.float32))

    def __len__(self) -> int:
        return len(self._offset) - 1

    def picture(self, index: int) -> U8Image:
        """(256, 256, 3) uint8 RGB."""
        data = self._jpeg[self._offset[index] : self._offset[index + 1]]
        return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def landmarks(self, index: int) -> F32Array:
        """(478, 2) float32 in pixels; all zero without a face."""
        return self._landmarks[index].astype(np.float32) / LANDMARK_SCALE

    def mask(self, index: int) -> U8Image:
        """(64, 64) uint8."""
        return self._mask[index]

    def mel(self, index: int) -> F32Array:
        """(80, 16) window centred on the frame."""
        return mel_window(self.pcm, (2 * index + 1) * SAMPLE_RATE_HZ // (2 * FRAME_RATE))


def load_clips(folder: Path, at_most: int | None = None) -> list[Clip]:
    """The prepared clips of a folder, all or `at_most` spread over it; InputError when there is none."""
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise InputError(
            f"no prepared clip in {folder}; make some with: avcall prepare VIDEOS --out {folder}"
        )
    if at_most is not None and len(paths) > at_most:
        paths = [paths[i] for i in np.linspace(0, len(paths) - 1, at_most).astype(int)]
    return [Clip(path) for path in paths]


def load_spoken(folder: Path) -> list[Clip]:
    """The prepared clips of a folder that have sound; InputError when there are fewer than two."""
    spoken = [clip for clip in load_clips(folder) if len(clip.pcm) > 0]
    if len(spoken) < 2:
        raise InputError(f"{folder} has fewer than two clips with sound; give another folder")
    return spoken


def region_weights(landmarks: F32Array) -> F32Array:
    """(64, 64) float32: 1 outside the face, `HULL_WEIGHT` inside, `DISC_WEIGHT` more at mouth and eyes."""
    canvas = np.ones((PRIOR_SIZE_PX,) * 2, np.float32)
    points = landmarks * (PRIOR_SIZE_PX / FRAME_SIZE_PX)
    hull = cv2.convexHull(points.astype(np.int32))
    cv2.fillConvexPoly(canvas, hull, HULL_WEIGHT)
    lips = points[LIPS_OUTER]
    discs = [(lips.mean(0), np.ptp(lips[:, 0]) * 0.6)]
    for a, b in EYE_CENTRES:
        discs.append(((points[a] + points[b]) / 2, float(np.linalg.norm(points[a] - points[b])) * 0.7))
    for centre, radius in discs:
        cv2.circle(
            canvas,
            (round(float(centre[0])), round(float(centre[1]))),
            max(1, round(float(radius))),
            DISC_WEIGHT,
            -1,
        )
    return canvas


def seed_places(landmarks: F32Array) -> F32Array:
    """(len(SEEDS), 2) where the free keypoints begin, for landmarks (478, 2); both in [-1, 1]."""
    down = landmarks[CHIN] - landmarks[FOREHEAD]
    right = np.array([down[1], -down[0]], np.float32)
    middle = (landmarks[CHIN] + landmarks[FOREHEAD]) / 2
    places = np.stack([middle + x * right + y * down for x, y in SEEDS])
    return np.clip(places, -SEED_REACH, SEED_REACH)


def part_places(landmarks: F32Array, mask: U8Image, source_mask: U8Image) -> F32Array:
    """(len(PARTS), 64, 64): background, head and body, 1 where a place is that for sure.

    `landmarks` (478, 2) are in pixels, `mask` (64, 64) is the person's, and `source_mask` that of the
    keyframe: background that was hidden there cannot come from where it is.
    """
    points = landmarks * (PRIOR_SIZE_PX / FRAME_SIZE_PX)
    down = points[CHIN] - points[FOREHEAD]
    y, x = np.mgrid[:PRIOR_SIZE_PX, :PRIOR_SIZE_PX] + 0.5
    x, y = x - points[CHIN, 0], y - points[CHIN, 1]
    height = max(float(down @ down), 1.0)
    below, beside = (x * down[0] + y * down[1]) / height, np.abs(x * down[1] - y * down[0]) / height
    person = mask > SURE_PERSON
    hair = (beside > FALLING_HAIR[0]) & (beside < FALLING_HAIR[1]) & (below < FALLS_TO)
    background = (mask < SURE_BACKGROUND) & (source_mask < SURE_BACKGROUND)
    places = [background, person & (below < NECK[0]), person & (below > NECK[1]) & ~hair]
    return np.stack(places).astype(np.float32)


def without_mouth(landmarks: F32Array) -> F32Array:
    """(64, 64) float32: 1, and 0 in a disc over the mouth."""
    canvas = np.ones((PRIOR_SIZE_PX,) * 2, np.float32)
    lips = landmarks[LIPS_OUTER] * (PRIOR_SIZE_PX / FRAME_SIZE_PX)
    x, y = (round(float(value)) for value in lips.mean(0))
    cv2.circle(canvas, (x, y), max(1, round(float(np.ptp(lips[:, 0])) * HIDDEN_RADIUS)), 0.0, -1)
    return canvas


class PairSampler:
    """Draws augmented pairs. A batch has a number, and random numbers of its own: it depends on no other."""

    _rng: np.random.Generator  # of the batch at hand

    def __init__(self, clips: list[Clip], config: DataConfig, size_px: int, seed: int) -> None:
        self._clips, self._config, self.size_px, self._seed = clips, config, size_px, seed
        lengths = np.array([len(clip) for clip in clips], np.float64)
        self._share = np.sqrt(lengths) / np.sqrt(lengths).sum()

    def _transform(self) -> tuple[F32Array, bool]:
        c, rng = self._config, self._rng
        scale = 1 + rng.uniform(-c.max_scale, c.max_scale)
        angle_deg = rng.uniform(-c.max_rotation_deg, c.max_rotation_deg)
        shift_px = rng.uniform(-c.max_shift, c.max_shift, 2) * FRAME_SIZE_PX
        if rng.random() < c.whole_pixels:
            scale, angle_deg, shift_px = 1.0, 0.0, np.rint(shift_px)
        matrix = cv2.getRotationMatrix2D((FRAME_SIZE_PX / 2, FRAME_SIZE_PX / 2), angle_deg, scale)
        matrix[:, 2] += shift_px
        flipped = bool(rng.random() < 0.5)
        if flipped:
            matrix = np.array([[-1, 0, FRAME_SIZE_PX], [0, 1, 0]], np.float64) @ np.vstack(
                [matrix, [0, 0, 1]]
            )
        return matrix.astype(np.float32), flipped

    def _frame(
        self, clip: Clip, index: int, matrix: F32Array, jitter: U8Image
    ) -> tuple[U8Image, F32Array, U8Image]:
        # The matrix maps coordinates with pixel centres at .5, OpenCV's have them on whole numbers.
        def centred(size: int) -> F32Array:
            scaled = matrix.copy()
            scaled[:, 2] = scaled[:, 2] * size / FRAME_SIZE_PX + matrix[:, :2].sum(1) * 0.5 - 0.5
            return scaled

        picture = cv2.warpAffine(
            clip.picture(index),
            centred(FRAME_SIZE_PX),
            (FRAME_SIZE_PX,) * 2,
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT,
        )
        picture = cv2.LUT(picture, jitter)
        mask = cv2.warpAffine(
            clip.mask(index), centred(PRIOR_SIZE_PX), (PRIOR_SIZE_PX,) * 2, borderMode=cv2.BORDER_REPLICATE
        )
        landmarks = clip.landmarks(index)
        if landmarks.any():
            landmarks = landmarks @ matrix[:, :2].T + matrix[:, 2]
        if self.size_px != FRAME_SIZE_PX:
            picture = cv2.resize(picture, (self.size_px,) * 2, interpolation=cv2.INTER_AREA)
        return picture, landmarks, mask

    def _dropped(self, share: float) -> tuple[bool, bool]:
        """Whether a prior is missing from the source and from the driving frame: one, the other, or both."""
        if self._rng.random() >= share:
            return False, False
        missing = self._rng.integers(1, 4)
        return bool(missing & 1), bool(missing & 2)

    def _jitter(self) -> U8Image:
        gain, bias = 1 + self._rng.uniform(-1, 1, (2,)) * self._config.max_brightness
        ramp = np.arange(256, dtype=np.float32)
        return np.clip((ramp - 128) * gain + 128 * bias, 0, 255).astype(np.uint8)

    def _pair(self) -> dict[str, NDArray[Any]]:
        c, rng = self._config, self._rng
        clip = self._clips[rng.choice(len(self._clips), p=self._share)]
        indices = rng.choice(len(clip), 2, replace=False)
        if clip.telling and rng.random() < c.telling:
            indices[1] = rng.choice(clip.telling)
        matrix, flipped = self._transform()
        jitter = self._jitter()
        pictures, points, masks, priors = [], [], [], []
        drop_mesh, drop_mask = self._dropped(c.no_mesh), self._dropped(c.no_mask)
        for side, index in enumerate(indices):
            picture, landmarks, mask = self._frame(clip, int(index), matrix, jitter)
            mesh = draw_mesh(landmarks) if landmarks.any() and not drop_mesh[side] else np.zeros_like(mask)
            pictures.append(picture)
            points.append(landmarks)
            masks.append(mask)
            priors.append(np.stack([mesh, np.zeros_like(mask) if drop_mask[side] else mask]))
        has_face = points[0].any() and points[1].any()
        speech = len(clip.pcm) > 0 and rng.random() >= c.no_audio
        normal = np.stack(points) * (2 / FRAME_SIZE_PX) - 1
        anchors = normal[:, list(MIRRORED_ANCHORS if flipped else ANCHORS)]
        optical, sure = optical_flow(pictures[1], pictures[0])
        parts = (
            part_places(points[1], masks[1], masks[0])
            if has_face
            else np.zeros((len(PARTS), 64, 64), np.float32)
        )
        hidden = speech and has_face and rng.random() < c.hidden_mouth
        return {
            "pictures": np.stack(pictures),
            "priors": np.stack(priors),
            "landmarks": normal,
            "anchors": anchors,
            "seeds": seed_places(normal.mean(0)),
            "has_face": np.asarray(has_face, np.float32),
            "weights": region_weights(points[1])[None]
            if has_face and c.regions
            else np.ones((1, PRIOR_SIZE_PX, PRIOR_SIZE_PX), np.float32),
            "mel": clip.mel(int(indices[1])) if speech else np.zeros((80, 16), np.float32),
            "gate": np.asarray([speech], np.float32),
            "optical": optical,
            "optical_sure": sure,
            "parts": parts,
            "seen": without_mouth(points[1])[None] if hidden else np.ones((1, 64, 64), np.float32),
        }

    def batch(self, count: int, number: int = 0) -> Batch:
        """`count` pairs: the same ones for the same number."""
        self._rng = np.random.default_rng([self._seed, self.size_px, number])
        pairs = [self._pair() for _ in range(count)]
        stacked = {key: torch.from_numpy(np.stack([pair[key] for pair in pairs])) for key in pairs[0]}
        pictures = stacked.pop("pictures").permute(0, 1, 4, 2, 3)
        return Batch(pictures, stacked.pop("priors"), **{k: v.float() for k, v in stacked.items()})
