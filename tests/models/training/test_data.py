"""Pairs: landmarks that stay on their place in the picture, and dropout."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from avcall.errors import InputError
from avcall.types import FRAME_SIZE_PX
from models.priors import LIPS_OUTER, NUM_LANDMARKS
from models.training.data import (
    ANCHORS,
    CHIN,
    DISC_WEIGHT,
    FOREHEAD,
    HULL_WEIGHT,
    MIRRORED_ANCHORS,
    SEED_REACH,
    Clip,
    DataConfig,
    PairSampler,
    load_clips,
    part_places,
    region_weights,
    seed_places,
)
from tests.models.tiny import landmarks, write_prepared

STILL = DataConfig(
    max_scale=0,
    max_shift=0,
    max_rotation_deg=0,
    max_brightness=0,
    no_audio=0,
    no_mesh=0,
    no_mask=0,
    hidden_mouth=0,
)


def test_a_folder_without_clips_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="avcall prepare"):
        load_clips(tmp_path)


def test_a_clip_gives_back_its_frames(tmp_path: Path) -> None:
    clip = Clip(write_prepared(tmp_path / "a.npz", frames=3))
    assert len(clip) == 3
    assert clip.picture(0).shape == (FRAME_SIZE_PX, FRAME_SIZE_PX, 3)
    np.testing.assert_allclose(clip.landmarks(1), landmarks(2.0), atol=1 / 128)
    assert clip.mel(1).shape == (80, 16)
    assert clip.mel(1).any()


def test_the_same_seed_draws_the_same_pairs(tmp_path: Path) -> None:
    write_prepared(tmp_path / "a.npz")
    clips = load_clips(tmp_path)
    a, b, c = (PairSampler(clips, DataConfig(), 64, seed).batch(2) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a.pictures, c.pictures)
    assert a.pictures.shape == (2, 2, 3, 64, 64)


def test_a_batch_depends_on_its_number_and_size_alone(tmp_path: Path) -> None:
    write_prepared(tmp_path / "a.npz")
    clips = load_clips(tmp_path)
    sampler = PairSampler(clips, DataConfig(), 64, 1)
    first, second = sampler.batch(2, 0), sampler.batch(2, 1)
    again = PairSampler(clips, DataConfig(), 64, 1).batch(2, 1)
    assert all(torch.equal(x, y) for x, y in zip(second, again, strict=True))
    assert not torch.equal(first.landmarks, second.landmarks)
    assert not torch.equal(second.landmarks, PairSampler(clips, DataConfig(), 128, 1).batch(2, 1).landmarks)


def test_pictures_and_priors_are_bytes_until_a_step_takes_them(tmp_path: Path) -> None:
    write_prepared(tmp_path / "a.npz")
    batch = PairSampler(load_clips(tmp_path), STILL, 64, 0).batch(2)
    floats = batch.floats()
    for name in ("pictures", "priors"):
        small, large = getattr(batch, name), getattr(floats, name)
        assert small.dtype == torch.uint8 and large.dtype == torch.float32
        torch.testing.assert_close(large * 255, small.float())
    assert all(torch.equal(x, y) for x, y in zip(batch[2:], floats[2:], strict=True))


def marked_clip(folder: Path, points: np.ndarray) -> None:
    """A black clip with a bright dot at landmark 0."""
    canvas = np.zeros((256, 256), np.float32)
    x, y = points[0]
    columns, rows = np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5)
    canvas = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.0**2)) * 255
    jpeg = cv2.imencode(".jpg", canvas.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    np.savez(
        folder / "dot.npz",
        jpeg=np.frombuffer(jpeg * 2, np.uint8),
        offset=np.array([0, len(jpeg), 2 * len(jpeg)]),
        landmarks=np.stack([points * 128] * 2).astype(np.uint16),
        mask=np.zeros((2, 64, 64), np.uint8),
        pcm=np.zeros(0, np.int16),
    )


@pytest.mark.parametrize("size", [64, 256])
def test_augmentation_moves_landmarks_and_picture_alike(tmp_path: Path, size: int) -> None:
    points = landmarks()
    points[0] = (150.5, 110.25)
    marked_clip(tmp_path, points)
    batch = PairSampler(
        load_clips(tmp_path), dataclasses.replace(DataConfig(), max_brightness=0), size, 3
    ).batch(6)
    light = batch.floats().pictures.mean(2)  # (6, 2, size, size)
    light = torch.where(light > 0.1, light, torch.zeros(()))
    centres = (torch.arange(size) * 2 + 1) / size - 1
    total = light.sum((2, 3))
    x = (light.sum(2) * centres).sum(2) / total
    y = (light.sum(3) * centres).sum(2) / total
    found = torch.stack([x, y], -1)
    torch.testing.assert_close(found, batch.landmarks[:, :, 0], atol=0.3 * 2 / 256 + 0.1 / size, rtol=0)
    assert batch.gate.sum() == 0  # a clip without sound


def test_dropout_blanks_the_priors_and_shuts_the_gate(tmp_path: Path) -> None:
    write_prepared(tmp_path / "a.npz")
    clips = load_clips(tmp_path)
    whole = PairSampler(clips, STILL, 64, 0).batch(2)
    assert whole.priors[:, :, 0].any() and whole.priors[:, :, 1].any()
    assert whole.gate.all() and whole.mel.any()
    dropped = dataclasses.replace(STILL, no_audio=1, no_mesh=1, no_mask=1)
    bare = PairSampler(clips, dropped, 64, 0).batch(24)
    assert not bare.gate.any() and not bare.mel.any()
    assert bare.has_face.all()  # landmarks still guide the flow
    there = bare.priors.flatten(3).any(3)  # (pair, side, prior)
    for prior in range(2):
        kinds = {tuple(pair) for pair in there[:, :, prior].tolist()}
        assert kinds == {(False, True), (True, False), (False, False)}


def test_a_mirrored_pair_swaps_left_and_right_anchors(tmp_path: Path) -> None:
    write_prepared(tmp_path / "a.npz")
    batch = PairSampler(load_clips(tmp_path), STILL, 64, 0).batch(8)
    drawn = set()
    for i in range(8):
        for name, order in (("plain", ANCHORS), ("mirrored", MIRRORED_ANCHORS)):
            if torch.equal(batch.anchors[i], batch.landmarks[i][:, list(order)]):
                drawn.add(name)
    assert drawn == {"plain", "mirrored"}
    assert batch.landmarks.shape == (8, 2, NUM_LANDMARKS, 2)


def test_free_keypoints_begin_around_the_face_and_in_the_picture() -> None:
    points = np.zeros((NUM_LANDMARKS, 2), np.float32)
    points[FOREHEAD], points[CHIN] = (0.0, -0.3), (0.0, 0.3)
    left, right, hair_left, hair_right = seed_places(points)
    assert left[0] < 0 < right[0] and left[1] == right[1] > points[CHIN][1]
    assert hair_left[0] < 0 < hair_right[0] and hair_left[1] == hair_right[1] < 0
    points[CHIN] = (0.0, 0.9)
    assert np.abs(seed_places(points)).max() <= np.float32(SEED_REACH)


def test_parts_of_the_picture_leave_out_neck_edges_and_falling_hair() -> None:
    points = np.zeros((NUM_LANDMARKS, 2), np.float32)
    points[:] = (128, 100)
    points[FOREHEAD], points[CHIN] = (128, 40), (128, 160)  # 30 of 64 pixels high, the chin at (32, 40)
    mask = np.zeros((64, 64), np.uint8)
    mask[8:40, 20:44], mask[40:, 8:56] = 255, 255
    mask[8:40, 19] = 128  # an edge
    hidden = mask.copy()
    hidden[:10, :10] = 255
    background, head, body = part_places(points, mask, hidden)
    assert background[4, 60] and not background[4, 4] and not background[:, 19][8:40].any()
    assert head[8:38, 20:44].all() and not head[42:].any()
    assert body[50:, 26:38].all() and body[50:54, 8:12].all()
    assert not body[:44].any()  # the neck
    assert not body[45:54, 44:48].any() and body[60:, 44:48].all()  # where hair may fall
    assert (background + head + body).max() == 1


def test_speech_hides_the_mouth_from_the_detector(tmp_path: Path) -> None:
    write_prepared(tmp_path / "a.npz")
    clips = load_clips(tmp_path)
    hiding = dataclasses.replace(STILL, hidden_mouth=1)
    batch = PairSampler(clips, hiding, 64, 0).batch(4)
    hidden = batch.seen == 0
    assert hidden.flatten(1).any(1).all() and (batch.seen[~hidden] == 1).all()
    lips = ((batch.landmarks[:, 1, LIPS_OUTER].mean(1) + 1) * 32).long()
    assert all(hidden[i, 0, y, x] for i, (x, y) in enumerate(lips.tolist()))
    silent = dataclasses.replace(hiding, no_audio=1)
    assert PairSampler(clips, silent, 64, 0).batch(4).seen.all()


def test_a_pair_carries_the_flow_between_its_frames(tmp_path: Path) -> None:
    write_prepared(tmp_path / "a.npz")
    batch = PairSampler(load_clips(tmp_path), STILL, 64, 0).batch(2)
    assert batch.optical.shape == (2, 64, 64, 2) and batch.optical_sure.shape == (2, 64, 64)
    assert 0 <= batch.optical_sure.min() <= batch.optical_sure.max() <= 1


def test_mouth_and_eyes_weigh_most_and_the_background_least() -> None:
    points = landmarks()
    points[[33, 133]] = (90, 100), (110, 100)
    weights = region_weights(points)
    assert weights[0, 0] == 1
    assert weights[100 // 4, 100 // 4] == DISC_WEIGHT
    assert set(np.unique(weights)) == {1, HULL_WEIGHT, DISC_WEIGHT}


def test_without_regions_every_place_counts_alike(tmp_path: Path) -> None:
    write_prepared(tmp_path / "a.npz")
    clips = load_clips(tmp_path)
    weighted = PairSampler(clips, STILL, 64, 0).batch(2).weights
    plain = PairSampler(clips, dataclasses.replace(STILL, regions=False), 64, 0).batch(2).weights
    assert weighted.max() == DISC_WEIGHT
    assert (plain == 1).all()
