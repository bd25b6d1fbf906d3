"""How the picture is put together."""

import torch

from models.dense_motion import Motion
from models.generator import ENLARGED, Enlarger, Generator, IdentityEncoder, ModulatedNorm, Picture
from models.layers import pixel_grid, warp
from tests.models.tiny import TINY_LIVE, pictures

KEYFRAME = pictures(1, 256)
SHARP = pictures(1, 256 * ENLARGED)


def make_motion(shift: float = 0.1) -> Motion:
    flow = pixel_grid(64, 64, torch.zeros(1))[None] + shift
    masks = torch.full((1, 11, 64, 64), 1 / 11)
    return Motion(
        flow, torch.full((1, 1, 64, 64), 0.5), torch.zeros(1, 4, 64, 64), masks, torch.zeros(1, 64, 64, 2)
    )


def make_identity(seed: int) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    features: list[torch.Tensor] = IdentityEncoder(TINY_LIVE.generator).eval()(KEYFRAME)
    return features


def draw(generator: Generator, motion: Motion, identity_seed: int = 1) -> Picture:
    channels = TINY_LIVE.generator.condition_channels
    condition = torch.rand(1, channels, 64, 64, generator=torch.Generator().manual_seed(2))
    picture: Picture = generator(make_identity(identity_seed), SHARP, motion, condition)
    return picture


def make_generator() -> Generator:
    torch.manual_seed(0)
    return Generator(TINY_LIVE).eval()


@torch.no_grad()
def test_the_picture_blends_the_warped_keyframe_and_the_generated_one() -> None:
    picture = draw(make_generator(), make_motion())
    assert torch.equal(picture.warped, warp(SHARP, make_motion().flow, ENLARGED))
    blend = picture.mask * picture.warped + (1 - picture.mask) * picture.generated
    torch.testing.assert_close(picture.image, blend)
    assert picture.image.shape == KEYFRAME.shape


@torch.no_grad()
def test_a_shut_mask_shows_the_generated_picture_and_an_open_one_the_keyframe() -> None:
    generator = make_generator()
    generator.head.weight[3:] = 0
    for bias, name in ((-100.0, "generated"), (100.0, "warped")):
        generator.head.bias[3] = bias
        picture = draw(generator, make_motion())
        torch.testing.assert_close(picture.image, getattr(picture, name))


@torch.no_grad()
def test_what_the_occlusion_map_hides_is_drawn_without_the_identity() -> None:
    generator, shown = make_generator(), make_motion()
    hidden = shown._replace(occlusion=torch.zeros_like(shown.occlusion))
    for motion, same in ((shown, False), (hidden, True)):
        one, other = draw(generator, motion, 1), draw(generator, motion, 3)
        assert torch.equal(one.generated, other.generated) == same


@torch.no_grad()
def test_the_condition_scales_and_shifts_the_norm() -> None:
    norm = ModulatedNorm(2, 1).eval()
    norm.scale_shift.weight.copy_(torch.tensor([0.5, 0.0, 0.0, 3.0]).view(4, 1, 1, 1))
    norm.scale_shift.bias.zero_()
    x = torch.rand(1, 2, 64, 64)
    out = norm(x, torch.full((1, 1, 64, 64), 2.0))
    plain = x / (1 + norm.norm.eps) ** 0.5
    torch.testing.assert_close(out[:, 0], plain[:, 0] * (1 + 0.5 * 2))
    torch.testing.assert_close(out[:, 1], plain[:, 1] + 3.0 * 2)


@torch.no_grad()
def test_an_enlarged_keyframe_is_bicubic_at_first() -> None:
    plain = torch.nn.functional.interpolate(KEYFRAME, scale_factor=2, mode="bicubic", align_corners=False)
    torch.testing.assert_close(Enlarger(4)(KEYFRAME), plain, rtol=0, atol=1e-6)


@torch.no_grad()
def test_what_is_warped_from_an_enlarged_keyframe_stays_sharp() -> None:
    stripes = torch.linspace(0, 80 * torch.pi, 256).sin().expand(1, 3, 256, 256) / 2 + 0.5  # 6.4 pixels each
    half_a_pixel = make_motion(1 / 256).flow
    contrast = [
        float(warp(picture, half_a_pixel, times).std() / stripes.std())
        for picture, times in ((stripes, 1), (Enlarger(4)(stripes), ENLARGED))
    ]
    assert contrast[0] < 0.95
    assert 0.98 < contrast[1] < 1.02
