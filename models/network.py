"""AVFR-GAN's generator side in one module: detector, dense motion, condition, generator."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.audio_encoder import AudioVisualCondition
from models.config import ModelConfig
from models.dense_motion import DenseMotion, Motion
from models.generator import Generator, IdentityEncoder, Picture
from models.keypoint_detector import INPUT_SIZE_PX, KeypointDetector
from models.layers import resize
from models.second_look import misfit, second_look, texture_of
from models.sight import Sight

KeypointTensors = tuple[Tensor, Tensor]  # values (N, K, 2), jacobians (N, K, 2, 2)


class EncodedKeyframe(NamedTuple):
    """All that depends on the keyframe alone: the picture, its 64x64 reduction, its identity features.

    And its part maps, where the configuration has them.
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
        return EncodedKeyframe(picture, small, self.identity(picture), self.dense_motion.parts(small, source))

    def refine(
        self, still: Tensor, source: KeypointTensors, driving: KeypointTensors, sight: Sight, camera: Tensor
    ) -> KeypointTensors:
        """Driving keypoints after a second look; as they are where the configuration has none.

        `still` (N, 3, 64, 64) is the keyframe, `camera` the driving frame. What comes out has a gradient with
        regard to the masks of the dense motion alone: they learn to be masks that can be fitted with.
        """
        if not self.config.second_look:
            return driving
        source, driving = (tuple(part.detach() for part in kp) for kp in (source, driving))
        masks = self.dense_motion(still, source, driving).masks
        return second_look(masks, source, driving, sight, texture_of(camera))

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
        """`refine`, twice, the second time with better masks; or `driving` as it is, where that fits better.

        Optical flow may be wrong: what the first fit draws is compared with the frame, `camera`
        (N, 3, 64, 64). `parts` are the keyframe's part maps, computed if they are not at hand.
        """
        if not self.config.second_look:
            return driving
        parts = self.dense_motion.parts(still, source) if parts is None else parts
        first = self.dense_motion(still, source, driving, parts)
        texture = texture_of(camera)
        fitted = second_look(first.masks, source, driving, sight, texture)
        second = self.dense_motion(still, source, fitted, parts)
        before, after = (misfit(motion, still, camera, sight) for motion in (first, second))
        refined = second_look(second.masks, source, fitted, sight, texture)
        kept = (after < before)[:, None, None]
        values = torch.where(kept, refined[0], driving[0])
        return values, torch.where(kept[..., None], refined[1], driving[1])

    def move(self, keyframe: EncodedKeyframe, source: KeypointTensors, driving: KeypointTensors) -> Motion:
        """The dense motion between two sets of keypoints."""
        motion: Motion = self.dense_motion(keyframe.small, source, driving, keyframe.parts)
        return motion

    def draw(self, keyframe: EncodedKeyframe, motion: Motion, mel: Tensor, gate: Tensor) -> Picture:
        """The picture for one motion and one mel window (N, 80, 16); `gate` (N, 1) is 0 without speech."""
        condition = self.condition(motion.features, mel, gate)
        picture: Picture = self.generator(keyframe.identity, keyframe.picture, motion, condition)
        return picture

    def forward(
        self,
        keyframe: EncodedKeyframe,
        source: KeypointTensors,
        driving: KeypointTensors,
        mel: Tensor,
        gate: Tensor,
    ) -> Picture:
        return self.draw(keyframe, self.move(keyframe, source, driving), mel, gate)
