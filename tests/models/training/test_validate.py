"""The score that chooses the best weights: fixed pictures, plain PSNR, and no trace left behind."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from avcall.errors import InputError
from models.training.data import Clip
from models.training.validate import MAX_CLIPS, Validation, examples_of
from tests.models.tiny import TINY_LIVE, random_network, write_prepared


def test_the_first_frame_with_a_face_becomes_two_others(tmp_path: Path) -> None:
    clip = Clip(write_prepared(tmp_path / "a.npz", frames=7))
    clip._landmarks[[0, 6]] = 0  # no face in these
    middle, last = examples_of(clip)
    for example, index in ((middle, 3), (last, 5)):
        assert torch.equal(example.pictures[0].permute(1, 2, 0), torch.from_numpy(clip.picture(1)))
        assert torch.equal(example.pictures[1].permute(1, 2, 0), torch.from_numpy(clip.picture(index)))
        assert torch.equal(example.mel, torch.from_numpy(clip.mel(index)))
        assert example.priors[1, 0].any() and example.gate.item() == 1


def test_a_folder_without_faces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="avcall prepare"):
        Validation(tmp_path)
    write_prepared(tmp_path / "a.npz", frames=1)
    with pytest.raises(InputError, match="give another --validate"):
        Validation(tmp_path)


def test_of_many_clips_some_are_taken_from_all_over(tmp_path: Path) -> None:
    for index in range(MAX_CLIPS + 5):
        write_prepared(tmp_path / f"{index:02}.npz", frames=2)
    assert len(Validation(tmp_path).examples) == MAX_CLIPS


@pytest.mark.parametrize("warped", [False, True])
def test_it_is_the_psnr_of_these_weights_and_disturbs_nothing(tmp_path: Path, warped: bool) -> None:
    write_prepared(tmp_path / "a.npz", seed=1)
    validation = Validation(tmp_path, warped=warped)
    judged, other = random_network(TINY_LIVE, seed=1), random_network(TINY_LIVE, seed=2).train()
    before, random = copy.deepcopy(other.state_dict()), torch.get_rng_state()
    psnr = validation.psnr(other, judged.state_dict())
    assert torch.equal(random, torch.get_rng_state())
    assert other.training
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    expected = []
    for example in validation.examples:
        source, driving = example.pictures.float() / 255
        priors = example.priors.float() / 255
        small = torch.nn.functional.avg_pool2d(torch.stack([source, driving]), 4)
        with torch.no_grad():
            first, second = (judged.detect(small[i : i + 1], priors[i : i + 1]) for i in (0, 1))
            second = judged.look_again(small[:1], first, second, example.sight, small[1:])
            encoded = judged.encode_keyframe(source[None], first)
            drawn = judged(encoded, first, second, example.mel[None], example.gate[None])
        image = (drawn.warped if warped else drawn.image).clamp(0, 1)
        expected.append(-10 * np.log10(((image[0] - driving) ** 2).mean().item()))
    assert psnr == pytest.approx(np.mean(expected), abs=1e-3)
