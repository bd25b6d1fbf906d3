"""Int8 arithmetic for the graphs of every frame: half the time, for a picture 46 dB from the float one.

Convolutions alone are quantised, with the ranges that a calibration set shows (one for each output channel of
the weights, one for each activation). Those that end in keypoints, the flow, the occlusion map and the
picture's colours stay in floating point: there a step of 1/255 of the range is a visible one. So does the one
that mixes the warped picture with features, whose range is five times as wide.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from avcall.types import U8Image
from models.config import LIVE
from models.dense_motion import Motion
from models.free_form import fit_lattice
from models.keypoint_detector import INPUT_SIZE_PX
from models.layers import resize
from models.network import EncodedKeyframe, KeypointTensors, Network, first_cached
from models.runtime import thumbnail
from models.second_look import as_tensors, texture_of
from models.sight import Sight
from models.training.data import Clip
from models.training.drawing import prior_channels, sight_of

Feeds = dict[str, NDArray[Any]]  # inputs of a graph by name
Calibration = Mapping[str, Sequence[Feeds]]  # by graph: "detect", "synthesize", "refine" and "preview"
# Convolutions by what their names contain.
EXACT = (
    *("/masks/", "/occlusion/", "/bend/", "/head/", "/heatmaps/", "/jacobians/", "/generator/refine/"),
    # And the detector's finest layers: with them in int8 a keypoint is 0.26 pixels of 256 off, not 0.08.
    "/detector/hourglass/down.0/",
    f"/detector/hourglass/up.{LIVE.detector.levels - 1}/",
)
# Of a range that a drawn picture's features have, so much is kept in percent: a few values are ten times as
# large as the rest. The picture is then 46.9 dB from the float one, not 39.9 (99.9: 46.7; 99.99: 45.6).
KEPT_RANGE = 99.97
HISTOGRAM_FRAMES = 32  # all that convolutions get and give in them is in memory at once
FRAMES_PER_CLIP = 2
SHORTEST_FRAMES = 10


@torch.no_grad()
def calibrate(network: Network, clips: Iterable[Clip]) -> Calibration:
    """What the graphs get in calls of these clips: `FRAMES_PER_CLIP` frames of each, from its first."""
    found: dict[str, list[Feeds]] = {"detect": [], "synthesize": [], "refine": [], "preview": []}
    for clip in clips:
        frames = sampled_frames(clip)
        if not frames:
            continue
        picture = picture_tensor(clip.picture(0))
        source = network.detect(resize(picture, INPUT_SIZE_PX), prior_tensor(clip, 0))
        keyframe = network.encode_keyframe(picture, source)
        first = first_cached(network)
        cached = {"picture": keyframe.picture, "small": keyframe.small} | {
            f"identity_{i}": feature for i, feature in enumerate(keyframe.identity[first:], first)
        }
        known = {} if keyframe.parts is None else {"parts": keyframe.parts.numpy()}
        known |= _named("source", source)
        fixed = known | {name: value.numpy() for name, value in cached.items()}
        for index in frames:
            camera = resize(picture_tensor(clip.picture(index)), INPUT_SIZE_PX)
            priors = prior_channels(clip, index)[None]
            driving = network.detect(camera, torch.from_numpy(priors).float() / 255)
            sight = sight_of(clip, index, 0)
            refined = network.look_again(
                keyframe.small, source, driving, as_tensors(sight), camera, keyframe.parts
            )
            speech = {
                "mel": clip.mel(index)[None].astype(np.float32),
                "gate": np.full((1, 1), float(len(clip.pcm) > 0), np.float32),
            }
            told = _lattice(network.move(keyframe, source, refined), as_tensors(sight), camera)
            found["detect"].append({"rgb": clip.picture(index)[None], "priors": priors})
            found["synthesize"].append(fixed | _named("driving", refined) | speech | told)
            pictures = {"keyframe": clip.picture(0), "camera": clip.picture(index)}
            beside = known | {side: thumbnail(rgb)[None] for side, rgb in pictures.items()}
            found["refine"].append(beside | _begun(network, keyframe, source, driving) | sight._asdict())
            found["preview"].append(beside | _named("driving", refined))
    return found


def _lattice(motion: Motion, sight: Sight, camera: torch.Tensor) -> Feeds:
    """What a call tells beside the keypoints, if the network takes it."""
    return {"lattice": fit_lattice(motion.flow, sight, texture_of(camera)).numpy()}


def _begun(
    network: Network, keyframe: EncodedKeyframe, source: KeypointTensors, driving: KeypointTensors
) -> Feeds:
    """Where a second look begins: with what the detector found, and the dense motion to that."""
    motion = network.move(keyframe, source, driving)
    held = {"held_masks": motion.masks.numpy(), "held_bend": motion.bend.numpy()}
    return held | _named("driving", driving) | {"share": np.ones(1, np.float32)}


def quantise(path: Path, feeds: Sequence[Feeds], *, clipped: bool = False) -> None:
    """Rewrite the ONNX graph at `path`, in float32, with int8 convolutions whose ranges `feeds` give.

    The ranges are whole, or `clipped` to `KEPT_RANGE`.
    """
    ranges: dict[str, Any] = {}
    if clipped:
        feeds = feeds[:: -(-len(feeds) // HISTOGRAM_FRAMES)]
        ranges["calibrate_method"] = CalibrationMethod.Percentile
        ranges["extra_options"] = {"CalibPercentile": KEPT_RANGE}
    told = contextlib.redirect_stdout(io.StringIO())  # of histograms, line by line
    with tempfile.TemporaryDirectory(prefix="avcall-quantise-") as folder, told:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(prepared)
        graph = model.graph
        _give_each_its_own_bias(graph)
        onnx.save(model, prepared)
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
            **ranges,
        )


def _give_each_its_own_bias(graph: onnx.GraphProto) -> None:
    """Dissolve the Identity nodes by which the convolutions of a network that runs twice share their values.

    Behind such a node a bias stays in floating point, which costs a third of the graph's time.
    """
    values = {tensor.name: tensor for tensor in graph.initializer}
    shared: dict[str, str] = {}
    for node in [n for n in graph.node if n.op_type == "Identity" and n.input[0] in values]:
        value = values[node.input[0]]
        if len(value.dims) == 1:
            graph.initializer.add().CopyFrom(value)
            graph.initializer[-1].name = node.output[0]
        else:
            shared[node.output[0]] = value.name
        graph.node.remove(node)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = shared.get(name, name)


class _Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime carries no types
    def __init__(self, feeds: Iterable[Feeds]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


def sampled_frames(clip: Clip, count: int = FRAMES_PER_CLIP) -> list[int]:
    """`count` frames of a clip after its first, evenly over it; none of one that is very short."""
    if len(clip) < SHORTEST_FRAMES:
        return []
    found: list[int] = np.linspace(1, len(clip) - 1, count + 1).astype(int)[1:].tolist()
    return found


def picture_tensor(rgb: U8Image) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255


def prior_tensor(clip: Clip, index: int) -> torch.Tensor:
    """Mesh and mask of a prepared frame, (1, 2, 64, 64) in [0, 1]."""
    return torch.from_numpy(prior_channels(clip, index))[None].float() / 255


def _named(side: str, keypoints: KeypointTensors) -> Feeds:
    return {f"{side}_values": keypoints[0].numpy(), f"{side}_jacobians": keypoints[1].numpy()}
