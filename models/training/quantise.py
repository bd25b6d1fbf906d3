"""Int8 arithmetic for the graph that draws: half the time a frame, for a picture 46 dB from the float one.

Convolutions alone are quantised, with the ranges that a calibration set shows (one for each output channel of
the weights, one for each activation). Those that end in the flow, the occlusion map and the picture's colours
stay in floating point: there a step of 1/255 of the range is a visible one.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from avcall.types import U8Image
from models.keypoint_detector import INPUT_SIZE_PX
from models.layers import resize
from models.network import KeypointTensors, Network, first_cached
from models.second_look import as_tensors
from models.training.data import Clip
from models.training.drawing import prior_channels, sight_of

Feeds = dict[str, NDArray[Any]]  # inputs of a graph by name
Calibration = Mapping[str, Sequence[Feeds]]  # by graph: "synthesize" and "refine"
# Convolutions by what their names contain.
EXACT = ("/masks/", "/occlusion/", "/head/")
FRAMES_PER_CLIP = 2
SHORTEST_FRAMES = 10


@torch.no_grad()
def calibrate(network: Network, clips: Iterable[Clip]) -> Calibration:
    """What the graphs get in calls of these clips: `FRAMES_PER_CLIP` frames of each, from its first."""
    found: dict[str, list[Feeds]] = {"synthesize": [], "refine": []}
    for clip in clips:
        if len(clip) < SHORTEST_FRAMES:
            continue
        keyframe = network.encode_keyframe(_tensor(clip.picture(0)))
        source = network.detect(keyframe.small, _priors(clip, 0))
        first = first_cached(network)
        cached = {"picture": keyframe.picture, "small": keyframe.small} | {
            f"identity_{i}": feature for i, feature in enumerate(keyframe.identity[first:], first)
        }
        fixed = {name: value.numpy() for name, value in cached.items()} | _named("source", source)
        for index in np.linspace(1, len(clip) - 1, FRAMES_PER_CLIP + 1).astype(int)[1:].tolist():
            camera = resize(_tensor(clip.picture(index)), INPUT_SIZE_PX)
            driving = network.detect(camera, _priors(clip, index))
            sight = sight_of(clip, index, 0)
            refined = network.look_again(keyframe.small, source, driving, as_tensors(sight), camera)
            speech = {
                "mel": clip.mel(index)[None].astype(np.float32),
                "gate": np.full((1, 1), float(len(clip.pcm) > 0), np.float32),
            }
            found["synthesize"].append(fixed | _named("driving", refined) | speech)
            beside = {
                "keyframe": clip.picture(0)[None],
                "camera": clip.picture(index)[None],
            } | sight._asdict()
            found["refine"].append(beside | _named("source", source) | _named("driving", driving))
    return found


def quantise(path: Path, feeds: Sequence[Feeds]) -> None:
    """Rewrite the ONNX graph at `path`, in float32, with int8 convolutions whose ranges `feeds` give."""
    with tempfile.TemporaryDirectory(prefix="avcall-quantise-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        known = {tensor.name for tensor in graph.input}
        exact = [
            node.name
            for node in graph.node
            if node.op_type == "Conv" and any(part in node.name for part in EXACT)
        ]
        quantize_static(
            str(prepared),
            str(path),
            _Reader({k: v for k, v in one.items() if k in known} for one in feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=exact,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # 7 bits: CPUs without VNNI add two products in 16 bits, which 8 overflow
        )


class _Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime carries no types
    def __init__(self, feeds: Iterable[Feeds]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


def _tensor(rgb: U8Image) -> torch.Tensor:
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255


def _priors(clip: Clip, index: int) -> torch.Tensor:
    return torch.from_numpy(prior_channels(clip, index))[None].float() / 255


def _named(side: str, keypoints: KeypointTensors) -> Feeds:
    return {f"{side}_values": keypoints[0].numpy(), f"{side}_jacobians": keypoints[1].numpy()}
