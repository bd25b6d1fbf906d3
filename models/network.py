"""AVFR-GAN's generator side in one module: detector, dense motion, condition, generator."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.audio_encoder import AudioVisualCondition
from models.config import ModelConfig
from models.dense_motion import MAX_FLOW, DenseMotion, Motion
from models.free_form import fit_lattice, spread
from models.generator import Generator, IdentityEncoder, Picture
from models.keypoint_detector import INPUT_SIZE_PX, KeypointDetector
from models.layers import resize
from models.second_look import Look, misfit, second_look, texture_of
from models.sight import FITS, Sight

KeypointTensors = tuple[Tensor, Tensor]  # values (N, K, 2), jacobians (N, K, 2, 2)


class EncodedKeyframe(NamedTuple):
    """All that depends on the keyframe alone: the picture, its 64x64 reduction, its identity features.

    The picture is that of `IdentityEncoder.sharp`. And its part maps, where the configuration has them.
    """

    picture: Tensor
    small: Tensor
    identity: list[Tensor]
    parts: Tensor | None = None


def first_cached(network: "Network") -> int:
    """The first scale whose identity features a keyframe's cache holds beside the picture.

    It is 1 where the picture itself stands in for full resolution: a graph may not return one tensor twice.
    """
    return 0 if network.identity.keep_first else 1


class Network(nn.Module):
    """detect -> encode_keyframe -> synthesize, the three steps that the call runs apart."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.detector = KeypointDetector(config)
        self.dense_motion = DenseMotion(config)
        self.condition = AudioVisualCondition(
            self.dense_motion.outputs,
            config.audio,
            config.generator.condition_channels,
            use_audio=config.audio_prior,
        )
        self.identity = IdentityEncoder(config.generator)
        self.generator = Generator(config)

    def detect(self, small: Tensor, priors: Tensor) -> KeypointTensors:
        """`small` (N, 3, 64, 64) RGB in [0, 1], `priors` (N, 2, 64, 64) mesh and mask in [0, 1]."""
        values, jacobians = self.detector(torch.cat([small, priors], 1))
        return values, jacobians

    def encode_keyframe(self, picture: Tensor, source: KeypointTensors) -> EncodedKeyframe:
        """`picture` (N, 3, H, W) in [0, 1] with its keypoints."""
        small = resize(picture, INPUT_SIZE_PX)
        parts = self.dense_motion.parts(small, source)
        return EncodedKeyframe(self.identity.sharp(picture), small, self.identity(picture), parts)

    def refine(
        self, still: Tensor, source: KeypointTensors, driving: KeypointTensors, sight: Sight, camera: Tensor
    ) -> KeypointTensors:
        """Driving keypoints after a second look; as they are where the configuration has none.

        `still` (N, 3, 64, 64) is the keyframe, `camera` the driving frame. What comes out has a gradient with
        regard to masks and bend of the dense motion alone: they learn to be such that can be fitted with.
        """
        if not self.config.second_look:
            return driving
        source, driving = (tuple(part.detach() for part in kp) for kp in (source, driving))
        motion: Motion = self.dense_motion(still, source, driving)
        return second_look((motion.masks, motion.bend), source, driving, sight, texture_of(camera))

    @torch.no_grad()
    def look(  # noqa: PLR0917 (as the graph's inputs)
        self,
        still: Tensor,
        source: KeypointTensors,
        driving: KeypointTensors,
        held: tuple[Tensor, Tensor],
        sight: Sight,
        camera: Tensor,
        parts: Tensor | None,
        share: Tensor | float = 1.0,
    ) -> Look:
        """One fit from `driving` with the masks and bend `held`, and the dense motion to what it found.

        `still` (N, 3, 64, 64) is the keyframe and `parts` its part maps, `camera` (N, 3, 64, 64) the frame.
        With a `share` of 0 the keypoints stay, and what is found of them is the rest.
        """
        texture = texture_of(camera)
        values, jacobians = second_look(held, source, driving, sight, texture, share=share)
        motion: Motion = self.dense_motion(still, source, (values, jacobians), parts)
        lattice = fit_lattice(motion.flow, sight, texture) if self.config.deforms else None
        off = misfit(motion, still, camera, sight)
        return Look(values, jacobians, motion.masks, motion.bend, off, lattice)

    @torch.no_grad()
    def look_again(  # noqa: PLR0917 (as the graph's inputs)
        self,
        still: Tensor,
        source: KeypointTensors,
        driving: KeypointTensors,
        sight: Sight,
        camera: Tensor,
        parts: Tensor | None = None,
    ) -> KeypointTensors:
        """`look` from what the detector found, `FITS` times: of it and of each fit, what fits the frame best.

        Optical flow may be wrong. `driving` as it is where the configuration has no second look.
        """
        if not self.config.second_look:
            return driving
        parts = self.dense_motion.parts(still, source) if parts is None else parts
        motion: Motion = self.dense_motion(still, source, driving, parts)
        looks = [Look(*driving, motion.masks, motion.bend, misfit(motion, still, camera, sight))]
        for _ in range(FITS):
            last = looks[-1]
            begun = (last.values, last.jacobians), (last.masks, last.bend)
            looks.append(self.look(still, source, *begun, sight, camera, parts))
        best = torch.stack([found.misfit for found in looks]).argmin(0)
        pairs = torch.arange(len(best), device=best.device)
        values, jacobians = (torch.stack([found[i] for found in looks])[best, pairs] for i in (0, 1))
        return values, jacobians

    def move(
        self,
        keyframe: EncodedKeyframe,
        source: KeypointTensors,
        driving: KeypointTensors,
        lattice: Tensor | None = None,
    ) -> Motion:
        """The dense motion between two sets of keypoints, deformed by a `lattice` (N, points, points, 2)."""
        motion: Motion = self.dense_motion(keyframe.small, source, driving, keyframe.parts)
        return motion if lattice is None else deformed(motion, lattice)

    def draw(self, keyframe: EncodedKeyframe, motion: Motion, mel: Tensor, gate: Tensor) -> Picture:
        """The picture for one motion and one mel window (N, 80, 16); `gate` (N, 1) is 0 without speech."""
        condition = self.condition(motion.features, mel, gate)
        picture: Picture = self.generator(keyframe.identity, keyframe.picture, motion, condition)
        return picture

    def forward(  # noqa: PLR0917 (as the graph's inputs)
        self,
        keyframe: EncodedKeyframe,
        source: KeypointTensors,
        driving: KeypointTensors,
        mel: Tensor,
        gate: Tensor,
        lattice: Tensor | None = None,
    ) -> Picture:
        return self.draw(keyframe, self.move(keyframe, source, driving, lattice), mel, gate)


def deformed(motion: Motion, lattice: Tensor) -> Motion:
    """The motion with a free-form deformation beside its flow."""
    return motion._replace(flow=(motion.flow + spread(lattice)).clamp(-MAX_FLOW, MAX_FLOW))
