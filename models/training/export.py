"""From a trained network to the ONNX graphs that the call runs: see models.runtime.Graph."""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avcall.errors import WeightsError
from avcall.types import FRAME_SIZE_PX, F32Array
from models.config import MEL_BANDS, MEL_STEPS, ModelConfig
from models.keypoint_detector import INPUT_SIZE_PX
from models.layers import warp
from models.network import EncodedKeyframe, KeypointTensors, Network, first_cached
from models.runtime import WEIGHTS_FORMAT
from models.second_look import as_tensors
from models.sight import Sight, look
from models.training.quantise import Calibration, quantise

OPSET = 18
MIN_SHRUNK_VALUES = 64  # smaller tensors are constants of the graph, and save nothing
KERNEL_DIMENSIONS = 4
ESTIMATES = ("preview", "refine")  # nobody sees their pictures: int8 weights are enough


class DetectGraph(nn.Module):
    """rgb (1, 256, 256, 3) uint8, priors (1, 2, 64, 64) uint8 -> values, jacobians."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, rgb: Tensor, priors: Tensor) -> tuple[Tensor, Tensor]:
        picture = rgb.permute(0, 3, 1, 2).float() / 255
        small = torch.nn.functional.avg_pool2d(picture, FRAME_SIZE_PX // INPUT_SIZE_PX)
        return self.network.detect(small, priors.float() / 255)


class PreviewGraph(nn.Module):
    """What the receiver will see, from 64x64 pictures (1, 64, 64, 3) uint8: the sender's own estimate.

    The keyframe, two sets of keypoints, the camera's picture -> the warped keyframe as uint8, and its mean
    absolute difference (1,) to the camera's picture, where white is 1.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, keyframe: Tensor, source: tuple[Tensor, Tensor], driving: tuple[Tensor, Tensor], camera: Tensor
    ) -> tuple[Tensor, Tensor]:
        picture = keyframe.permute(0, 3, 1, 2).float() / 255
        moved = warp(picture, self.network.dense_motion(picture, source, driving).flow)
        error = (moved - camera.permute(0, 3, 1, 2).float() / 255).abs().mean((1, 2, 3))
        return (moved.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1), error


class RefineGraph(nn.Module):
    """A keyframe (1, 256, 256, 3) uint8 with its keypoints, what `detect` found, a Sight -> keypoints."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        keyframe: Tensor,
        source: KeypointTensors,
        driving: KeypointTensors,
        camera: Tensor,
        sight: Sight,
    ) -> KeypointTensors:
        still, seen = (
            torch.nn.functional.avg_pool2d(
                picture.permute(0, 3, 1, 2).float() / 255, FRAME_SIZE_PX // INPUT_SIZE_PX
            )
            for picture in (keyframe, camera)
        )
        return self.network.look_again(still, source, driving, Sight(*sight), seen)


class EncodeKeyframeGraph(nn.Module):
    """rgb (1, 256, 256, 3) uint8 -> picture, small, identity features from fine to coarse."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        encoded = self.network.encode_keyframe(rgb.permute(0, 3, 1, 2).float() / 255)
        return (encoded.picture, encoded.small, *encoded.identity[first_cached(self.network) :])


class SynthesizeGraph(nn.Module):
    """The cached keyframe, two sets of keypoints, speech -> rgb (1, 256, 256, 3) uint8."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(  # noqa: PLR0917 (a graph's inputs have an order)
        self,
        picture: Tensor,
        small: Tensor,
        identity: list[Tensor],
        source_values: Tensor,
        source_jacobians: Tensor,
        driving_values: Tensor,
        driving_jacobians: Tensor,
        mel: Tensor,
        gate: Tensor,
    ) -> Tensor:
        features = [picture, *identity] if first_cached(self.network) else identity
        encoded = EncodedKeyframe(picture, small, features)
        drawn = self.network(
            encoded, (source_values, source_jacobians), (driving_values, driving_jacobians), mel, gate
        )
        return (drawn.image.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1)


def _export_graph(
    graph: nn.Module, inputs: tuple[Any, ...], path: Path, input_names: list[str], output_names: list[str]
) -> None:
    with warnings.catch_warnings():
        # One says that this exporter is the older one, the others that Python values become constants: here
        # they are the preset's own.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            inputs,
            str(path),
            input_names=input_names,
            output_names=output_names,
            opset_version=OPSET,
            dynamo=False,
            external_data=False,
        )


def export_onnx(network: Network, folder: Path) -> list[Path]:
    """Write one file for each graph of `models.runtime.Graph` into `folder`; returns their paths."""
    network = network.eval()
    k = network.config.num_keypoints
    rgb = torch.zeros(1, FRAME_SIZE_PX, FRAME_SIZE_PX, 3, dtype=torch.uint8)
    thumbnail = torch.zeros(1, INPUT_SIZE_PX, INPUT_SIZE_PX, 3, dtype=torch.uint8)
    priors = torch.zeros(1, 2, INPUT_SIZE_PX, INPUT_SIZE_PX, dtype=torch.uint8)
    encode = EncodeKeyframeGraph(network)
    with torch.no_grad():
        picture, small, *identity = encode(rgb)
    values, jacobians = torch.zeros(1, k, 2), torch.eye(2).expand(1, k, 2, 2).contiguous()
    mel, gate = torch.zeros(1, MEL_BANDS, MEL_STEPS), torch.ones(1, 1)
    names = [f"identity_{i + first_cached(network)}" for i in range(len(identity))]
    keypoints = ["source_values", "source_jacobians", "driving_values", "driving_jacobians"]
    graphs: dict[str, tuple[nn.Module, tuple[Any, ...], list[str], list[str]]] = {
        "detect": (DetectGraph(network), (rgb, priors), ["rgb", "priors"], ["values", "jacobians"]),
        "preview": (
            PreviewGraph(network),
            (thumbnail, (values, jacobians), (values.clone(), jacobians.clone()), thumbnail.clone()),
            ["keyframe", *keypoints, "camera"],
            ["warped", "error"],
        ),
        "encode_keyframe": (encode, (rgb,), ["rgb"], ["picture", "small", *names]),
        "synthesize": (
            SynthesizeGraph(network),
            (picture, small, identity, values, jacobians, values.clone(), jacobians.clone(), mel, gate),
            ["picture", "small", *names, *keypoints, "mel", "gate"],
            ["rgb"],
        ),
    }
    if network.config.second_look:
        sight = as_tensors(look(rgb[0].numpy(), None, rgb[0].numpy(), None))
        graphs["refine"] = (
            RefineGraph(network),
            (rgb, (values, jacobians), (values.clone(), jacobians.clone()), rgb.clone(), sight),
            ["keyframe", *keypoints, "camera", *Sight._fields],
            ["values", "jacobians"],
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (graph, inputs, input_names, output_names) in graphs.items():
        path = folder / f"{name}.onnx"
        _export_graph(graph.eval(), inputs, path, input_names, output_names)
        written.append(path)
    return written


def shrink_weights(path: Path, *, to_bytes: bool) -> None:
    """Store a graph's large weights as float16, or its kernels as int8 with a scale for each channel.

    Nodes that restore them stand at the graph's start; the runtime folds them on loading, so that the
    arithmetic stays that of float32.
    """
    model = onnx.load(path)
    graph = model.graph
    large = [
        tensor
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) >= MIN_SHRUNK_VALUES
    ]
    restoring = []
    for tensor in large:
        name, values = tensor.name, onnx.numpy_helper.to_array(tensor)
        if to_bytes and values.ndim == KERNEL_DIMENSIONS:
            numbers, scales = _quantised(values)
            tensor.CopyFrom(onnx.numpy_helper.from_array(numbers, f"{name}.int8"))
            graph.initializer.append(onnx.numpy_helper.from_array(scales, f"{name}.scale"))
            parts = [f"{name}.int8", f"{name}.scale"]
            restoring.append(onnx.helper.make_node("DequantizeLinear", parts, [name], axis=0))
        else:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
            cast = onnx.helper.make_node("Cast", [f"{name}.fp16"], [name], to=onnx.TensorProto.FLOAT)
            restoring.append(cast)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*restoring, *rest])
    onnx.save(model, path)


def _quantised(kernels: F32Array) -> tuple[NDArray[np.int8], F32Array]:
    """Kernels (outputs, inputs, h, w) as whole numbers of -127..127 and a scale for each output."""
    scales = np.abs(kernels).max((1, 2, 3)) / 127
    scales = np.where(scales > 0, scales, 1.0).astype(np.float32)
    return np.rint(kernels / scales[:, None, None, None]).astype(np.int8), scales


def export_weights(
    network: Network, folder: Path, record: dict[str, object], calibration: Calibration | None = None
) -> Path:
    """Write a weights folder: graphs, live.safetensors (float16), and the manifest with their sha256.

    `record` says where the weights come from (steps, data, measured quality); it goes into the manifest.
    Graphs that `calibration` has inputs for calculate in int8, the others in float32.
    """
    paths = export_onnx(network, folder)
    for path in paths:
        if calibration is not None and path.stem in calibration:
            quantise(path, calibration[path.stem])
        shrink_weights(path, to_bytes=path.stem in ESTIMATES)
    tensors = folder / f"{network.config.name}.safetensors"
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    save_file(
        {k: v.contiguous() for k, v in state.items()},
        tensors,
        {"config": json.dumps(network.config.to_dict())},
    )
    tensors.chmod(0o644)  # the writer makes it private; weights are installed for everyone
    manifest = {
        "format": WEIGHTS_FORMAT,
        "config": network.config.to_dict(),
        "record": record,
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in [*paths, tensors]},
    }
    target = folder / "manifest.json"
    target.write_text(json.dumps(manifest, indent=2) + "\n")
    return target


def load_network(path: Path) -> Network:
    """The network of a safetensors file, in evaluation mode. Raises WeightsError."""
    try:
        with safe_open(path, "pt") as file:
            config = ModelConfig.from_dict(json.loads(file.metadata()["config"]))
        state = load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is not a weights file of avcall ({error}); export it again") from None
    network = Network(config)
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return network.eval()
