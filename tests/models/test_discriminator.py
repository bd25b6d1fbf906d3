"""The patch discriminator."""

import torch

from models.discriminator import Discriminator, DiscriminatorConfig
from tests.models.tiny import pictures

CONFIG = DiscriminatorConfig(width=4, levels=3, max_width=8)


def test_it_judges_patches() -> None:
    torch.manual_seed(0)
    logits, features = Discriminator(CONFIG)(pictures(2, 64))
    assert logits.shape == (2, 1, 7, 7)
    assert [f.shape[1:] for f in features] == [(4, 32, 32), (8, 16, 16), (8, 8, 8)]


def test_its_layers_stretch_nothing() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(CONFIG)
    with torch.no_grad():
        for _ in range(50):  # one power iteration a pass
            discriminator(pictures(1, 64))
    discriminator.eval()
    for layer in [*discriminator.down, discriminator.head]:
        assert isinstance(layer, torch.nn.Conv2d)
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
        assert abs(largest - 1) < 0.02


def test_a_patch_sees_only_its_surroundings() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(CONFIG).eval()
    picture = pictures(1, 128)
    other = picture.clone()
    other[..., :16, :16] = 1
    with torch.no_grad():
        changed = discriminator(picture)[0] != discriminator(other)[0]
    assert changed[..., 0, 0].all()
    assert not changed[..., 8:, 8:].any()
