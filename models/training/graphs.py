"""The graphs of a call as modules: what goes in and comes out is what `models.runtime` feeds and takes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avcall.types import FRAME_SIZE_PX, LATTICE_POINTS
from models.config import MEL_BANDS, MEL_STEPS
from models.keypoint_detector import INPUT_SIZE_PX
from models.layers import resize, warp
from models.network import EncodedKeyframe, KeypointTensors, Network, first_cached
from models.runtime import Graph
from models.second_look import Look, as_tensors
from models.sight import Sight, look


def _planes(rgb: Tensor) -> Tensor:
    """(1, H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]."""
    return rgb.permute(0, 3, 1, 2).float() / 255


def _pixels(picture: Tensor) -> Tensor:
    """(1, 3, H, W) -> (1, H, W, 3) uint8."""
    return (picture.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1)


class _NetworkGraph(nn.Module):
    """What all of them have: the network that they run a part of."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network


class DetectGraph(_NetworkGraph):
    """rgb (1, 256, 256, 3) uint8, priors (1, 2, 64, 64) uint8 -> values, jacobians."""

    def forward(self, rgb: Tensor, priors: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.detect(resize(_planes(rgb), INPUT_SIZE_PX), priors.float() / 255)


class PreviewGraph(_NetworkGraph):
    """What the receiver will see, from pictures (1, 64, 64, 3) uint8: the sender's own estimate.

    The keyframe with its part maps, two sets of keypoints, the camera's picture -> the warped keyframe, and
    its mean absolute difference (1,) to the camera's picture, where white is 1.
    """

    def forward(
        self,
        keyframe: Tensor,
        parts: Tensor | None,
        source: KeypointTensors,
        driving: KeypointTensors,
        camera: Tensor,
    ) -> tuple[Tensor, Tensor]:
        still, seen = _planes(keyframe), _planes(camera)
        moved = warp(still, self.network.dense_motion(still, source, driving, parts).flow)
        error = (moved - seen).abs().mean((1, 2, 3))
        return _pixels(moved), error


class RefineGraph(_NetworkGraph):
    """One fit: a keyframe (1, 64, 64, 3) uint8, its parts, keypoints, where to start, a Sight -> a Look.

    `held` are the masks and the bend to start with, `share` (1,) of the fit is taken.
    """

    def forward(  # noqa: PLR0917 (a graph's inputs have an order)
        self,
        keyframe: Tensor,
        parts: Tensor | None,
        source: KeypointTensors,
        driving: KeypointTensors,
        camera: Tensor,
        held: tuple[Tensor, Tensor],
        share: Tensor,
        sight: Sight,
    ) -> tuple[Tensor, ...]:
        still, seen = _planes(keyframe), _planes(camera)
        found = self.network.look(still, source, driving, held, Sight(*sight), seen, parts, share)
        return tuple(part for part in found if part is not None)


class PartMapsGraph(_NetworkGraph):
    """A keyframe (1, 64, 64, 3) uint8 and the places of its keypoints -> its part maps."""

    def forward(self, keyframe: Tensor, source_values: Tensor) -> Tensor:
        upright = torch.eye(2).expand(*source_values.shape, 2)  # the maps hang on the places alone
        parts = self.network.dense_motion.parts(_planes(keyframe), (source_values, upright))
        assert parts is not None, "a network without part maps has no such graph"
        return parts


class EncodeKeyframeGraph(_NetworkGraph):
    """rgb (1, 256, 256, 3) uint8 -> picture, small, identity features from fine to coarse."""

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        picture = _planes(rgb)
        identity = self.network.identity(picture)[first_cached(self.network) :]
        return (self.network.identity.sharp(picture), resize(picture, INPUT_SIZE_PX), *identity)


class SynthesizeGraph(_NetworkGraph):
    """The cached keyframe, two sets of keypoints, speech -> rgb (1, 256, 256, 3) uint8."""

    def forward(  # noqa: PLR0917 (a graph's inputs have an order)
        self,
        picture: Tensor,
        small: Tensor,
        identity: list[Tensor],
        parts: Tensor | None,
        source_values: Tensor,
        source_jacobians: Tensor,
        driving_values: Tensor,
        driving_jacobians: Tensor,
        mel: Tensor,
        gate: Tensor,
        lattice: Tensor | None = None,
    ) -> Tensor:
        features = [picture, *identity] if first_cached(self.network) else identity
        encoded = EncodedKeyframe(picture, small, features, parts)
        source, driving = (source_values, source_jacobians), (driving_values, driving_jacobians)
        drawn = self.network(encoded, source, driving, mel, gate, lattice)
        return _pixels(drawn.image)


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """A graph to export: its module, example inputs, and the names of inputs and outputs."""

    module: nn.Module
    inputs: tuple[Any, ...]
    input_names: list[str]
    output_names: list[str]


def graph_specs(network: Network) -> dict[Graph, GraphSpec]:
    """The graphs that a network of this configuration needs."""
    k = network.config.num_keypoints
    rgb = torch.zeros(1, FRAME_SIZE_PX, FRAME_SIZE_PX, 3, dtype=torch.uint8)
    thumb = torch.zeros(1, INPUT_SIZE_PX, INPUT_SIZE_PX, 3, dtype=torch.uint8)
    priors = torch.zeros(1, 2, INPUT_SIZE_PX, INPUT_SIZE_PX, dtype=torch.uint8)
    values, jacobians = torch.zeros(1, k, 2), torch.eye(2).expand(1, k, 2, 2).contiguous()
    source, driving = (values, jacobians), (values.clone(), jacobians.clone())
    first = first_cached(network)
    with torch.no_grad():
        picture, small, identity, parts = network.encode_keyframe(rgb.permute(0, 3, 1, 2).float(), source)
    cached = ["picture", "small", *(f"identity_{i}" for i in range(first, len(identity)))]
    mapped = [] if parts is None else ["parts"]
    source_names, driving_names = (
        [f"{side}_{part}" for part in ("values", "jacobians")] for side in ("source", "driving")
    )
    keypoints = [*source_names, *driving_names]
    beside = (thumb, parts, source, driving, thumb.clone())
    beside_names = ["keyframe", *mapped, *keypoints, "camera"]
    speech = (torch.zeros(1, MEL_BANDS, MEL_STEPS), torch.ones(1, 1))
    deforms = network.config.deforms
    lattice = torch.zeros(1, LATTICE_POINTS, LATTICE_POINTS, 2) if deforms else None
    specs = {
        Graph.DETECT: GraphSpec(
            DetectGraph(network), (rgb, priors), ["rgb", "priors"], ["values", "jacobians"]
        ),
        Graph.PREVIEW: GraphSpec(PreviewGraph(network), beside, beside_names, ["warped", "error"]),
        Graph.ENCODE_KEYFRAME: GraphSpec(EncodeKeyframeGraph(network), (rgb,), ["rgb"], cached),
        Graph.SYNTHESIZE: GraphSpec(
            SynthesizeGraph(network),
            (picture, small, identity[first:], parts, *source, *driving, *speech, lattice),
            [*cached, *mapped, *keypoints, "mel", "gate", *(["lattice"] if deforms else [])],
            ["rgb"],
        ),
    }
    if parts is not None:
        specs[Graph.PART_MAPS] = GraphSpec(
            PartMapsGraph(network), (thumb, values), ["keyframe", "source_values"], mapped
        )
    if network.config.second_look:
        sight = as_tensors(look(rgb[0].numpy(), None, rgb[0].numpy(), None))
        held = (
            torch.zeros(1, k + 1, INPUT_SIZE_PX, INPUT_SIZE_PX),
            torch.zeros(1, INPUT_SIZE_PX, INPUT_SIZE_PX, 2),
        )
        specs[Graph.REFINE] = GraphSpec(
            RefineGraph(network),
            (*beside, held, torch.ones(1), sight),
            [*beside_names, *(f"held_{name}" for name in ("masks", "bend")), "share", *Sight._fields],
            [name for name in Look._fields if deforms or name != "lattice"],
        )
    return specs
