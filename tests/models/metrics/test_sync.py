"""SyncNet's input, its search for the shift, and the user's file."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from avcall.errors import InputError
from models.metrics.mfcc import COEFFICIENTS, mfcc
from models.metrics.sync import MAX_SHIFT, SIDE_PX, SyncNet, face_crops, load, measure, sync_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the other's own imports
    import python_speech_features


def test_mfcc_agrees_with_python_speech_features() -> None:
    generator = np.random.default_rng(0)
    for samples in (16_000, 16_123, 500, 300):
        pcm = (generator.normal(0, 3000, samples) * np.hanning(samples)).astype(np.int16)
        theirs = python_speech_features.mfcc(pcm, 16_000)
        assert mfcc(pcm).shape == theirs.shape == (len(theirs), COEFFICIENTS)
        assert np.allclose(mfcc(pcm), theirs)


@pytest.mark.parametrize("shift", [0, 3, -5])
def test_the_best_shift_is_found(shift: int) -> None:
    lips = np.random.default_rng(1).normal(size=(60, 32)).astype(np.float32)
    found = sync_of(lips, np.roll(lips, -shift, axis=0))
    assert found.offset_frames == shift
    assert found.distance < 2.0 < found.confidence  # only the wrapped frames disagree
    assert sync_of(lips, lips).distance == pytest.approx(0.0)


def test_strangers_have_no_confidence() -> None:
    generator = np.random.default_rng(2)
    lips, speech = generator.normal(size=(2, 80, 64)).astype(np.float32)
    assert sync_of(lips, speech).confidence < 1.0


def test_the_crop_holds_the_face_and_stands_still() -> None:
    frames = np.zeros((2, 256, 256, 3), np.uint8)
    frames[:, 90:170, 88:168] = (255, 0, 0)
    landmarks = np.zeros((478, 2), np.float32)
    landmarks[:, 0], landmarks[:, 1] = np.linspace(88, 168, 478), np.linspace(90, 170, 478)
    crops = face_crops(frames, landmarks)
    assert [crop.shape for crop in crops] == [(SIDE_PX, SIDE_PX, 3)] * 2
    red = crops[0][..., 2] > 128  # BGR
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert rows[0] > 0 and rows[-1] < SIDE_PX - 1 and columns[0] > 0 and columns[-1] < SIDE_PX - 1
    assert len(columns) > SIDE_PX / 2


def test_the_users_weights_are_loaded_and_measured_with(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "syncnet_v2.model"
    torch.save(SyncNet().state_dict(), path)
    frames = np.random.default_rng(3).integers(0, 255, (8, 256, 256, 3), np.uint8)
    landmarks = np.random.default_rng(4).uniform(90, 170, (478, 2)).astype(np.float32)
    pcm = np.random.default_rng(5).integers(-3000, 3000, 8 * 640).astype(np.int16)
    found = measure(load(path), frames, landmarks, pcm)
    assert found.distance > 0 and abs(found.offset_frames) <= MAX_SHIFT
    with pytest.raises(ValueError, match="200 ms"):
        measure(load(path), frames[:4], landmarks, pcm)


def test_a_file_that_is_no_syncnet_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.model"
    torch.save({"a": torch.zeros(1)}, other)
    for path in (other, tmp_path / "gone.model"):
        with pytest.raises(InputError, match=r"does not hold SyncNet; give the authors' syncnet_v2\.model"):
            load(path)
