"""From a trained network to the ONNX graphs that the call runs: see models.runtime.Graph."""

import hashlib
import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from avcall.errors import WeightsError
from avcall.types import F32Array
from models.config import ModelConfig
from models.network import Network
from models.runtime import WEIGHTS_FORMAT
from models.training.graphs import GraphSpec, graph_specs
from models.training.quantise import Calibration, quantise

OPSET = 18
MIN_SHRUNK_VALUES = 64  # smaller tensors are constants of the graph, and save nothing
KERNEL_DIMENSIONS = 4
DRAWN = ("synthesize",)  # one value in ten thousand that is cut off shows less than coarser steps for all
SMALL = ("preview", "refine")  # nobody sees pictures of theirs: int8 weights are enough


def _export_graph(spec: GraphSpec, path: Path) -> None:
    with warnings.catch_warnings():
        # One says that this exporter is the older one, the others that Python values become constants: here
        # they are the preset's own.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            spec.module.eval(),
            spec.inputs,
            str(path),
            input_names=spec.input_names,
            output_names=spec.output_names,
            opset_version=OPSET,
            dynamo=False,
            external_data=False,
        )


def export_onnx(network: Network, folder: Path) -> list[Path]:
    """Write one file for each graph of `models.runtime.Graph` into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for graph, spec in graph_specs(network.eval()).items():
        path = folder / f"{graph.value}.onnx"
        _export_graph(spec, path)
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
    rest = _without_repeated_constants(graph.node)
    del graph.node[:]
    graph.node.extend([*restoring, *rest])
    del graph.value_info[:]  # the runtime finds shapes by itself
    onnx.save(model, path)


def _without_repeated_constants(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes, each constant once: an unrolled loop repeats the same indices hundreds of times."""
    kept: list[onnx.NodeProto] = []
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    for node in nodes:
        if node.op_type == "Constant":
            value = b"".join(attribute.SerializeToString() for attribute in node.attribute)
            name = first.setdefault(value, node.output[0])
            same[node.output[0]] = name
            if name != node.output[0]:
                continue
        inputs = [same.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
        kept.append(node)
    return kept


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
            quantise(path, calibration[path.stem], clipped=path.stem in DRAWN)
        shrink_weights(path, to_bytes=path.stem in SMALL)
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
