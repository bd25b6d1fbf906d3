"""FID's network is the user's file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avcall.errors import InputError
from models.metrics.inception import FEATURES, Inception

PICTURES = [np.full((32, 32, 3), grey, np.uint8) for grey in (10, 200)]


class _Network(nn.Module):
    """Repeats the mean of a picture."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        assert x.dtype == torch.uint8
        return x.float().mean((1, 2, 3))[:, None].repeat(1, self.features if return_features else 1008)


def write(path: Path, features: int) -> Path:
    torch.jit.save(torch.jit.script(_Network(features)), str(path))
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_network_gives_its_features(tmp_path: Path) -> None:
    found = Inception(write(tmp_path / "inception.pt", FEATURES)).features(PICTURES)
    assert found.shape == (2, FEATURES)
    assert found[:, 0].tolist() == [10, 200]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_network_of_another_shape_is_refused(tmp_path: Path) -> None:
    network = Inception(write(tmp_path / "other.pt", 7))
    with pytest.raises(InputError, match=r"gives \(2, 7\) for 2 pictures"):
        network.features(PICTURES)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"nothing")
    for path in (broken, tmp_path / "gone.pt"):
        with pytest.raises(InputError, match="is no TorchScript network"):
            Inception(path)
