"""The losses of AVFR-GAN (eq. 4) and the landmark guidance that makes them converge on little data."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avcall.errors import InputError
from models.layers import at_places, warp
from models.metrics.stlpips import trunk_weights
from models.network import KeypointTensors
from models.second_look import FLAT
from models.training.data import ANCHORED_KEYPOINTS, PARTS

NO_MISS = 1e-3  # half widths: a miss below it has hardly a gradient
UNMOVED, MOVED = 0.03, 0.06  # in half widths of the picture: one and two of the flow's 64 pixels
CHOICE_SHARPNESS = 100.0  # a difference of 0.02 in L1 makes the better picture 88 % wanted
CHOICE_LEAD = 0.015  # of the warped picture: where both are as near, it is the sharper one
CHOICE_WINDOW = 9  # pixels over which both are compared


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Weights of the sum; the reasons stand in docs/model.md. Raises InputError where nothing would learn."""

    l1: float = 8.0
    warped: float = 2.0
    generated: float = 4.0
    perceptual: float = 6.0
    st_lpips: float = 0.0  # ST-LPIPS itself, of VGG, on the same crops
    ssim: float = 0.0  # 1 - SSIM, on the same crops
    equivariance_value: float = 10.0
    equivariance_jacobian: float = 2.0
    flow: float = 10.0
    optical: float = 10.0
    still: float = 1.0
    parts: float = 0.3
    led: float = 0.03
    anchor: float = 3.0
    tracked: float = 5.0
    mask: float = 0.3
    adversarial: float = 0.1
    feature_matching: float = 1.0
    misplaced: float = 4.0  # how much more a place counts to which the flow brings the person wrongly, or not
    lips_and_eyes: float = 8.0  # how much more their landmarks count in the guided flow
    seeded_until: int | None = (
        None  # step to which the free keypoints are held where they begin; None: always
    )
    motion_only: bool = False  # detector and dense motion learn alone: nothing is generated
    picture_only: bool = False  # the rest learns alone: detector and dense motion stay as they are
    perceptual_every: int = 2  # steps; at as many times its weight it costs that much less
    judged_px: int = 128  # side of the crops that the dear losses are taken of

    def __post_init__(self) -> None:
        if self.motion_only and self.picture_only:
            raise InputError("--motion-only and --picture-only leave nothing to learn; choose one")


def weighted_l1(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """L1 with a weight for every place: `weights` (N, 1, 64, 64) is resized to the picture."""
    scaled = F.interpolate(weights, output.shape[-2:], mode="bilinear", align_corners=False)
    return ((output - target).abs() * scaled).sum() / (scaled.sum() * output.shape[1])


def misplaced(flow: Tensor, masks: Tensor) -> Tensor:
    """(N, 1, 64, 64): 1 where the flow brings the person though there is none now, or brings none; else 0.

    `masks` (N, 2, 64, 64) are the person's in source and driving frame; one that is empty was not seen. There
    the picture has to be generated: without more weight a strand of hair stays beside the head.
    """
    seen = masks.flatten(2).any(2).all(1).view(-1, 1, 1, 1)
    return (warp(masks[:, :1], flow.detach()) - masks[:, 1:]).abs() * seen


def guided_flow(flow: Tensor, landmarks: Tensor, emphasis: Tensor, has_face: Tensor) -> Tensor:
    """A backward flow sampled at the driving landmarks must give the source landmarks.

    `flow` (N, H, W, 2), `landmarks` (N, 2, L, 2) source then driving, `emphasis` (L,).
    """
    source, driving = landmarks[:, 0], landmarks[:, 1]
    error = (at_places(flow, driving) - source).abs().mean(-1)
    per_pair = (error * emphasis).sum(1) / emphasis.sum()
    return (per_pair * has_face).sum() / has_face.sum().clamp(min=1)


def taught_flow(flow: Tensor, optical: Tensor, sure: Tensor, texture: Tensor) -> Tensor:
    """How far a backward flow misses the one of `optical_flow`, both (N, H, W, 2), where that is `sure`.

    A miss is as long as it shows: `texture` (N, 3, H, W) is the driving frame's, of `texture_of`.
    """
    x, y = (flow - optical).unbind(-1)
    xx, xy, yy = texture.unbind(1)
    square = (xx + FLAT) * x * x + 2 * xy * x * y + (yy + FLAT) * y * y
    miss = torch.sqrt(square.clamp(min=0) + NO_MISS**2) - NO_MISS
    return (miss * sure).sum() / sure.sum().clamp(min=1)


def still_where_moved(still: Tensor, optical: Tensor, grid: Tensor, sure: Tensor) -> Tensor:
    """How much of the background's mask `still` (N, H, W) lies where the optical flow moves, if it is `sure`.

    `optical` (N, H, W, 2) are positions, `grid` (H, W, 2) those without motion. What moved by `MOVED` counts
    in full, by `UNMOVED` not at all. No keypoint can move what the background holds.
    """
    moved = (((optical - grid).norm(dim=-1) - UNMOVED) / (MOVED - UNMOVED)).clamp(0, 1)
    return (still * moved * sure).sum() / sure.sum().clamp(min=1)


def part_choice(masks: Tensor, parts: Tensor) -> Tensor:
    """Cross entropy of the masks (N, K + 1, H, W), taken together by part, against `parts` (N, P, H, W).

    Without it, shoulders and background came to share their keypoints.
    """
    together = torch.stack([masks[:, list(members)].sum(1) for members in PARTS.values()], 1)
    return -(parts * together.clamp(min=1e-4).log()).sum() / parts.sum().clamp(min=1)


def led_by_landmarks(masks: Tensor, anchors: Tensor, has_face: Tensor) -> Tensor:
    """Cross entropy: where its landmark is, a keypoint's mask should be 1.

    `masks` (N, K + 1, H, W), `anchors` (N, A, 2) of `ANCHORED_KEYPOINTS` in the driving frame. One that
    has lost its region never gets one again by itself.
    """
    sampled = F.grid_sample(masks, anchors[:, :, None], align_corners=False, padding_mode="border")[..., 0]
    own = torch.stack([sampled[:, k + 1, i] for i, k in enumerate(ANCHORED_KEYPOINTS)], 1)
    per_pair = -own.clamp(min=1e-4).log().mean(1)
    return (per_pair * has_face).sum() / has_face.sum().clamp(min=1)


def tracked_keypoints(source: Tensor, driving: Tensor, optical: Tensor, sure: Tensor) -> Tensor:
    """Keypoints must move with what they lie on: the optical flow leads from driving to source ones.

    It counts as far as it is `sure` at the place.

    `source` and `driving` (N, K, 2), `optical` (N, H, W, 2), `sure` (N, H, W).
    """
    taught = torch.cat([optical.permute(0, 3, 1, 2), sure[:, None]], 1)
    sampled = F.grid_sample(taught, driving[:, :, None], align_corners=False, padding_mode="border")[..., 0]
    wanted, trust = sampled[:, :2].transpose(1, 2), sampled[:, 2].detach()
    return ((source - wanted).abs().mean(-1) * trust).sum() / trust.sum().clamp(min=1)


def random_affine(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Transforms for the equivariance loss: matrices (N, 2, 2) and shifts (N, 2)."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * (high - low) + low

    angle = uniform(-0.4, 0.4, count)
    scale = uniform(0.8, 1.25, count, 2)
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    return rotation * scale[:, None], uniform(-0.15, 0.15, count, 2)


def equivariance(
    original: KeypointTensors, transformed: KeypointTensors, matrix: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """FOMM section 3.1: keypoints of a transformed picture, mapped back, must be the picture's own.

    The transformed picture shows at z what the original shows at matrix @ z + shift.
    """
    # Products in bfloat16 would be wrong by a pixel.
    with torch.autocast(matrix.device.type, enabled=False):
        mapped = torch.einsum("nij,nkj->nki", matrix, transformed[0].float()) + shift[:, None]
        product = torch.linalg.inv(original[1].float()) @ (matrix[:, None] @ transformed[1].float())
    value = (mapped - original[0]).abs().mean()
    return value, (product - torch.eye(2, device=product.device)).abs().mean()


def mask_choice(mask: Tensor, warped: Tensor, generated: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of the blending mask against which of the two pictures is nearer to the target, softly.

    Without it the mask saturates at the warped picture before the generated one has learnt anything.
    """
    with torch.no_grad():
        further = ((generated - target).abs() - (warped - target).abs()).mean(1, keepdim=True)
        advantage = F.avg_pool2d(further, CHOICE_WINDOW, 1, CHOICE_WINDOW // 2, count_include_pad=False)
        wanted = torch.sigmoid((advantage + CHOICE_LEAD) * CHOICE_SHARPNESS)
    chosen = mask.float().clamp(1e-4, 1 - 1e-4)
    # Written out, because torch refuses its binary_cross_entropy in mixed precision on CUDA.
    return -(wanted * chosen.log() + (1 - wanted) * (1 - chosen).log()).mean()


def discriminator_hinge(real: Tensor, generated: Tensor) -> Tensor:
    """What the discriminator minimises: logits of real pictures above 1, of generated ones below -1."""
    return F.relu(1 - real).mean() + F.relu(1 + generated).mean()


def generator_hinge(generated: Tensor) -> Tensor:
    """The adversarial term of eq. 4: what the generator minimises."""
    return -generated.mean()


def feature_matching(real: list[Tensor], generated: list[Tensor]) -> Tensor:
    """L1 between the discriminator's features of both pictures, averaged over its levels."""
    levels = [F.l1_loss(b, a.detach()) for a, b in zip(real, generated, strict=True)]
    return torch.stack(levels).mean()


class PerceptualLoss(nn.Module):
    """L1 between VGG16 features up to relu3_3, with the trunk that ST-LPIPS ships."""

    def __init__(self) -> None:
        super().__init__()
        state = trunk_weights("vgg")
        kernels = [
            v
            for k, v in state.items()
            if k.startswith("net.slice") and v.dim() == 4 and v.shape[2] == 3 and v.shape[1] > 1
        ]
        biases = [v for k, v in state.items() if k.startswith("net.slice") and k.endswith(".bias")]
        self.convolutions = nn.ModuleList()
        for kernel, bias in list(zip(kernels, biases, strict=True))[:7]:
            layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
            layer.load_state_dict({"weight": kernel, "bias": bias})
            self.convolutions.append(layer)
        self.requires_grad_(False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def features(self, x: Tensor) -> list[Tensor]:
        """relu1_2, relu2_2 and relu3_3 of (N, 3, H, W) in [0, 1]."""
        x = (x - self.mean) / self.std
        kept = []
        for i, layer in enumerate(self.convolutions):
            x = F.relu(layer(x))
            if i in (1, 3, 6):
                kept.append(x)
            if i in (1, 3):
                x = F.max_pool2d(x, 2)
        return kept

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.features(target)
        pairs = zip(self.features(output), wanted, strict=True)
        return sum((F.l1_loss(a, b) for a, b in pairs), torch.zeros((), device=output.device))
