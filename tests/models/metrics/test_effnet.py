"""The feature network: it must still know a cat."""

import numpy as np
import pytest
import torch
from skimage import data

from models.metrics import effnet

CATS = {281, 282, 285}  # tabby, tiger cat, Egyptian cat (ImageNet)


@pytest.fixture(scope="module")
def network() -> effnet.EfficientNetLite0:
    return effnet.load()


def test_the_network_knows_a_cat(network: effnet.EfficientNetLite0) -> None:
    cat = data.chelsea()[:, 75:375]
    with torch.no_grad():
        probability = network(effnet.as_input([cat])).softmax(1)[0]
    assert set(probability.topk(3).indices.tolist()) == CATS
    assert float(probability[list(CATS)].sum()) > 0.8


def test_features_are_the_pooled_ones_and_know_a_picture_from_its_blur(
    network: effnet.EfficientNetLite0,
) -> None:
    face = data.astronaut()[:256, 100:356]
    pictures = [face, face, np.zeros_like(face)]
    found = effnet.features(network, pictures)
    assert found.shape == (3, effnet.FEATURES)
    assert np.allclose(found[0], found[1]) and not np.allclose(found[0], found[2])


@pytest.mark.parametrize(("size", "kernel", "stride"), [(224, 3, 2), (7, 5, 2), (14, 5, 1), (113, 3, 2)])
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    padded = effnet.same_padding(torch.ones(1, 1, size, size), kernel, stride)
    assert (padded.shape[-1] - kernel) // stride + 1 == -(-size // stride)
    before = int(padded[0, 0, kernel // 2].argmax())
    after = padded.shape[-1] - size - before
    assert 0 <= after - before <= 1  # an odd pixel goes to the end
