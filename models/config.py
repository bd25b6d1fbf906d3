"""The network's two presets and its ablation switches: one graph, two sizes."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from avcall.errors import ConfigError
from avcall.types import NUM_KEYPOINTS

MEL_BANDS = 80
MEL_STEPS = 16  # 200 ms at a hop of 12.5 ms


@dataclass(frozen=True, slots=True)
class HourglassConfig:
    """An hourglass: first width, number of halvings, widest layer, and kernel of the heads on top of it.

    Between it and its heads stand `blocks` residual blocks of inner width `block_width`.
    """

    width: int
    levels: int
    max_width: int
    head_kernel: int
    blocks: int = 0
    block_width: int = 24


@dataclass(frozen=True, slots=True)
class AudioConfig:
    """Audio branch: width of its CNN and `channels`, the c of Enc_aud (h/4 x w/4 x c)."""

    width: int
    channels: int


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """Identity-aware generator, scale by scale from full resolution down.

    `identity_widths[i]` are the features of the keyframe at 1/2**i (0: the warped picture itself stands in),
    `widths[i]` those of the decoder, `blocks` the residual blocks at the lowest scale, `condition_channels`
    the projection of the condition that modulates them. `modulated_scales` are the scales whose blocks are
    SPADE-inspired; the others are plain. `enlarger_width` is that of the network that enlarges the keyframe
    twice before it is warped, 0 for none.
    """

    identity_widths: tuple[int, ...]
    widths: tuple[int, ...]
    blocks: int
    condition_channels: int
    modulated_scales: tuple[int, ...]
    enlarger_width: int = 0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """All of AVFR-GAN. The three switches are the rows of the paper's Table 3.

    The paper has none of the rest. `second_look` corrects the driving keypoints beside the keyframe;
    `part_maps` is the network that tells which part of the keyframe goes with which keypoint; the detector
    leaves `background_keypoint` in the picture's middle: only a second look can tell how the camera moves;
    with `bends` the dense motion adds to the local affine motions what no blend of them can say; `deforms`
    has the sender tell a free-form deformation beside the keypoints.
    """

    name: str
    detector: HourglassConfig
    dense_motion: HourglassConfig
    audio: AudioConfig
    generator: GeneratorConfig
    num_keypoints: int = NUM_KEYPOINTS
    temperature: float = 0.1
    keypoint_variance: float = 0.01
    structural_prior: bool = True
    audio_prior: bool = True
    identity_aware: bool = True
    second_look: bool = False
    part_maps: HourglassConfig | None = None
    background_keypoint: int | None = None
    bends: bool = False
    deforms: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a weights file's header."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; ConfigError names an unknown or missing key."""
        parts: dict[str, Any] = {
            "detector": HourglassConfig,
            "dense_motion": HourglassConfig,
            "audio": AudioConfig,
            "generator": GeneratorConfig,
            "part_maps": HourglassConfig,
        }
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := set(values) - known:
            raise ConfigError(
                f"unknown model key {sorted(unknown)[0]!r}; valid keys: {', '.join(sorted(known))}"
            )
        try:
            built = {
                key: parts[key](**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})
                if key in parts and value is not None
                else value
                for key, value in values.items()
            }
            return cls(**built)
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"the model configuration does not fit this version: {error}") from None


PAPER = ModelConfig(
    name="paper",
    detector=HourglassConfig(width=32, levels=5, max_width=1024, head_kernel=7),
    dense_motion=HourglassConfig(width=64, levels=5, max_width=1024, head_kernel=7),
    audio=AudioConfig(width=64, channels=64),
    generator=GeneratorConfig(
        identity_widths=(64, 128, 256),
        widths=(64, 128, 256),
        blocks=6,
        condition_channels=64,
        modulated_scales=(1, 2),
    ),
)

LIVE = ModelConfig(
    name="live",
    detector=HourglassConfig(width=24, levels=4, max_width=160, head_kernel=3),
    dense_motion=HourglassConfig(width=24, levels=4, max_width=192, head_kernel=3, blocks=2),
    audio=AudioConfig(width=16, channels=16),
    generator=GeneratorConfig(
        identity_widths=(0, 32, 64, 112),
        widths=(12, 32, 64, 112),
        blocks=2,
        condition_channels=32,
        modulated_scales=(2, 3),
        enlarger_width=16,
    ),
    second_look=True,
    part_maps=HourglassConfig(width=16, levels=3, max_width=64, head_kernel=3),
    background_keypoint=9,
    bends=True,
    deforms=True,
)

PRESETS = {preset.name: preset for preset in (PAPER, LIVE)}
