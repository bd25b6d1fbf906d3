"""One training step's forward: every loss of one batch."""

from typing import Self

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from models.dense_motion import Motion
from models.free_form import fit_lattice
from models.generator import Picture
from models.layers import pixel_grid, resize, warp
from models.metrics.stlpips import StLpips
from models.network import EncodedKeyframe, KeypointTensors, Network, deformed
from models.second_look import texture_of
from models.sight import LIPS_AND_EYES_TRUST, Sight, landmark_emphasis
from models.training.data import ANCHORED_KEYPOINTS, SEEDED_KEYPOINTS, Batch
from models.training.losses import (
    LossConfig,
    PerceptualLoss,
    equivariance,
    guided_flow,
    led_by_landmarks,
    mask_choice,
    misplaced,
    part_choice,
    random_affine,
    still_where_moved,
    taught_flow,
    tracked_keypoints,
    weighted_l1,
)

REFINED_SHARE = 0.7  # of the pairs
DEFORMED_SHARE = 0.75  # of the pairs: a link may have no room for it
LATTICE_STEP = 1 / 64  # half widths: about how coarsely a call tells it


class Whole:
    """A batch that stays as it is: Fabric's mixed precision rounds what tensors it finds in an input."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch


class TrainingStep(nn.Module):
    """The network with its losses, as one module, so that one forward call is one step on any device."""

    def __init__(self, network: Network, config: LossConfig, seed: int) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.perceptual = PerceptualLoss()
        self.register_buffer(
            "emphasis", torch.from_numpy(landmark_emphasis(config.lips_and_eyes)), persistent=False
        )
        self.register_buffer(
            "trust", torch.from_numpy(landmark_emphasis(LIPS_AND_EYES_TRUST)), persistent=False
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.st_lpips = StLpips("vgg") if config.st_lpips else None
        self.held = self._held()
        for part in self.held:
            part.requires_grad_(False)

    def _held(self) -> tuple[nn.Module, ...]:
        """The parts of the network that do not learn."""
        motion = (self.network.detector, self.network.dense_motion)
        picture = (self.network.condition, self.network.identity, self.network.generator)
        return picture if self.config.motion_only else motion if self.config.picture_only else ()

    def train(self, mode: bool = True) -> Self:
        """As of any module, but that the norms of what does not learn keep their statistics."""
        super().train(mode)
        for part in self.held:
            part.eval()
        return self

    def _keypoints(self, inputs: Tensor) -> tuple[KeypointTensors, KeypointTensors, Tensor, Tensor]:
        """Keypoints of source and driving, and the equivariance losses, from one pass of the detector.

        `inputs` (N, 2, 5, 64, 64) are what it sees of both.
        """
        n = inputs.shape[0]
        matrix, shift = random_affine(n, self.generator)
        matrix, shift = matrix.to(inputs.device), shift.to(inputs.device)
        grid = nn.functional.affine_grid(
            torch.cat([matrix, shift[..., None]], 2),
            [n, *inputs.shape[2:]],
            align_corners=False,
        )
        turned = warp(inputs[:, 1], grid)
        values, jacobians = self.network.detector(torch.cat([inputs[:, 0], inputs[:, 1], turned]))
        (sv, dv, tv), (sj, dj, tj) = values.chunk(3), jacobians.chunk(3)
        found = [k for k in range(dv.shape[1]) if k != self.network.config.background_keypoint]
        original, transformed = (dv[:, found], dj[:, found]), (tv[:, found], tj[:, found])
        value, jacobian = equivariance(original, transformed, matrix, shift)
        return (sv, sj), (dv, dj), value, jacobian

    def _hide(self, inputs: Tensor, seen: Tensor) -> Tensor:
        """What the detector gets: a colour at random, and no mesh, where the driving frame is not `seen`."""
        n = inputs.shape[0]
        fill = torch.rand(n, inputs.shape[2], 1, 1, generator=self.generator).to(inputs.device)
        fill[:, 3:] = 0.0
        driving = inputs[:, 1] * seen + fill * (1 - seen)
        driving = torch.cat([driving[:, :4], inputs[:, 1, 4:]], 1)  # the person is where it was
        return torch.stack([inputs[:, 0], driving], 1)

    def _refined(
        self, small: Tensor, source: KeypointTensors, driving: KeypointTensors, sight: Sight
    ) -> KeypointTensors:
        """Driving keypoints of a second look, or in some pairs of the first, which learns from these.

        `small` (N, 2, 3, 64, 64) are the pairs' pictures.
        """
        refined = self.network.refine(small[:, 0], source, driving, sight, small[:, 1])
        first = torch.rand(len(small), generator=self.generator).to(small.device) >= REFINED_SHARE
        values = torch.where(first[:, None, None], driving[0], refined[0])
        return values, torch.where(first[:, None, None, None], driving[1], refined[1])

    def _sight(self, batch: Batch) -> Sight:
        """What the sender sees of a pair: no landmarks without both meshes, and nothing of what is hidden."""
        meshes = batch.priors[:, :, 0].flatten(2).any(2).all(1)
        whole = (meshes * batch.has_face)[:, None]

        def trusted(pair: Tensor) -> Tensor:
            places = pair[:, 1, :, None]  # of the driving frame
            sampled = nn.functional.grid_sample(
                batch.seen, places, align_corners=False, padding_mode="border"
            )
            return sampled[:, 0, :, 0] * whole

        pins = batch.anchors[:, :, 1:]  # without the nose, which leads the whole head
        sure = batch.optical_sure * batch.seen[:, 0]
        trust = self.trust * trusted(batch.landmarks)
        return Sight(batch.optical, sure, batch.landmarks, trust, pins, trusted(pins))

    def _deformed(self, motion: Motion, sight: Sight, texture: Tensor) -> Motion:
        """The motion with what the sender tells beside the keypoints, in most pairs, and rounded."""
        if not self.network.config.deforms:
            return motion
        with exact(texture):
            lattice = fit_lattice(motion.flow.detach(), sight, texture)
        lattice = (lattice / LATTICE_STEP).round() * LATTICE_STEP
        told = torch.rand(len(lattice), generator=self.generator).to(lattice.device) < DEFORMED_SHARE
        return deformed(motion, lattice * told[:, None, None, None])

    def _judged(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The dear losses, each that has a weight, on one crop of `judged_px`."""
        size = min(self.config.judged_px, output.shape[-1])
        room = output.shape[-1] - size
        # The face is in the middle: crops lean there.
        y, x = (int(torch.randint(0, room + 1, (1,), generator=self.generator)) for _ in range(2))
        window = (..., slice(y, y + size), slice(x, x + size))
        output, target = output[window], target[window]
        parts: dict[str, Tensor] = {}
        if self.config.perceptual:
            parts["perceptual"] = self.perceptual(output, target)
        if self.st_lpips is not None:
            parts["st_lpips"] = self.st_lpips(output, target)
        if self.config.ssim:
            with exact(output):  # it subtracts squares from each other
                alike = structural_similarity_index_measure(output.float(), target, data_range=1.0)
            assert isinstance(alike, Tensor)
            parts["ssim"] = 1 - alike
        return parts

    def _anchor(self, batch: Batch, keypoints: Tensor, step: int) -> Tensor:
        """How far keypoints (N, 2, K, 2) are from their landmarks and, if held, from where they begin."""
        wanted, which = [batch.anchors], list(ANCHORED_KEYPOINTS)
        until = self.config.seeded_until
        if until is None or step < until:
            wanted.append(batch.seeds[:, None].expand(-1, 2, -1, -1))
            which += SEEDED_KEYPOINTS
        face = batch.has_face.view(-1, 1, 1, 1)
        return ((keypoints[:, :, which] - torch.cat(wanted, 2)).abs() * face).mean()

    def forward(self, whole: Whole, step: int) -> tuple[Tensor, dict[str, Tensor], Picture]:
        """Total loss, its named parts, and the picture."""
        c, batch = self.config, whole.batch
        source, driving = batch.pictures[:, 0], batch.pictures[:, 1]
        small = torch.stack([resize(source, 64), resize(driving, 64)], 1)
        inputs = self._hide(torch.cat([small, batch.priors], 2), batch.seen)
        texture, sight = texture_of(small[:, 1]), self._sight(batch)
        # Positions in bfloat16 would be wrong by pixels.
        with torch.set_grad_enabled(not c.picture_only and torch.is_grad_enabled()), exact(source):
            kp_source, kp_driving, value, jacobian = self._keypoints(inputs)
            refined = self._refined(small, kp_source, kp_driving, sight)
            motion: Motion = self.network.dense_motion(small[:, 0], kp_source, refined)
        if c.motion_only:
            shown, picture = motion, moved_only(source, motion)
        else:
            identity = self.network.identity
            with exact(source):  # it is the picture itself, before anything is drawn
                sharp = identity.sharp(source)
            keyframe = EncodedKeyframe(sharp, small[:, 0], identity(source))
            shown = self._deformed(motion, sight, texture)
            picture = self.network.draw(keyframe, shown, batch.mel, batch.gate)
        parts: dict[str, Tensor] = {}
        if not c.picture_only:
            parts |= {"equivariance_value": value, "equivariance_jacobian": jacobian}
            parts |= self._keypoint_parts(batch, kp_source[0], kp_driving[0], step)
            parts |= self._motion_parts(batch, motion, texture)
        wrong = misplaced(shown.flow, batch.priors[:, :, 1])
        parts |= self._picture_parts(picture, driving, batch.weights + c.misplaced * wrong)
        total = sum(
            (getattr(c, name) * part for name, part in parts.items()), torch.zeros((), device=source.device)
        )
        every = c.perceptual_every
        if step % every == 0 and not c.motion_only:
            # The generated branch starves behind the mask unless it is judged by itself as well.
            judged = picture.generated if step % (3 * every) == 0 else picture.image
            dear = self._judged(judged, driving)
            total = total + every * sum(getattr(c, name) * part for name, part in dear.items())
            parts |= dear
        return total, parts, picture

    def _picture_parts(self, picture: Picture, driving: Tensor, weights: Tensor) -> dict[str, Tensor]:
        parts = {
            "l1": weighted_l1(picture.image, driving, weights),
            "warped": (picture.warped - driving).abs().mean(),
        }
        if not self.config.motion_only:
            parts["generated"] = weighted_l1(picture.generated, driving, weights)
            parts["mask"] = mask_choice(picture.mask, picture.warped, picture.generated, driving)
        return parts

    def _motion_parts(self, batch: Batch, motion: Motion, texture: Tensor) -> dict[str, Tensor]:
        grid = pixel_grid(64, 64, motion.flow)
        return {
            "flow": guided_flow(motion.flow, batch.landmarks, self.emphasis, batch.has_face),
            "optical": taught_flow(motion.flow, batch.optical, batch.optical_sure, texture),
            "still": still_where_moved(motion.masks[:, 0], batch.optical, grid, batch.optical_sure),
            "parts": part_choice(motion.masks, batch.parts),
            "led": led_by_landmarks(motion.masks, batch.anchors[:, 1], batch.has_face),
        }

    def _keypoint_parts(self, batch: Batch, source: Tensor, driving: Tensor, step: int) -> dict[str, Tensor]:
        return {
            "anchor": self._anchor(batch, torch.stack([source, driving], 1), step),
            "tracked": tracked_keypoints(
                source[:, SEEDED_KEYPOINTS], driving[:, SEEDED_KEYPOINTS], batch.optical, batch.optical_sure
            ),
        }


def exact(like: Tensor) -> torch.autocast:
    """The context in which a run of mixed precision calculates in float32, on the device of `like`."""
    return torch.autocast(like.device.type, enabled=False)


def moved_only(keyframe: Tensor, motion: Motion) -> Picture:
    """The keyframe moved, and nothing generated."""
    warped = warp(keyframe, motion.flow)
    return Picture(warped, warped, warped, torch.ones_like(warped[:, :1]))
