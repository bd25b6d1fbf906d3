"""From a trained network to the ONNX graphs that the call runs: detect, encode_keyframe, synthesize."""

from pathlib import Path

import torch
from torch import Tensor, nn

from avcall.types import FRAME_SIZE_PX
from models.config import MEL_BANDS, MEL_STEPS
from models.keypoint_detector import INPUT_SIZE_PX
from models.network import EncodedKeyframe, Network

OPSET = 18


class DetectGraph(nn.Module):
    """rgb (1, 256, 256, 3) uint8, priors (1, 2, 64, 64) uint8 -> values, jacobians."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, rgb: Tensor, priors: Tensor) -> tuple[Tensor, Tensor]:
        picture = rgb.permute(0, 3, 1, 2).float() / 255
        small = torch.nn.functional.avg_pool2d(picture, FRAME_SIZE_PX // INPUT_SIZE_PX)
        return self.network.detect(small, priors.float() / 255)


class EncodeKeyframeGraph(nn.Module):
    """rgb (1, 256, 256, 3) uint8 -> picture, small, identity features from fine to coarse."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        encoded = self.network.encode_keyframe(rgb.permute(0, 3, 1, 2).float() / 255)
        # identity[0] is the picture itself in the live preset: a graph may not return one tensor twice.
        return (encoded.picture, encoded.small, *encoded.identity[1:])


class SynthesizeGraph(nn.Module):
    """The cached keyframe, two sets of keypoints, speech -> rgb (1, 256, 256, 3) uint8."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
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
        encoded = EncodedKeyframe(picture, small, [picture, *identity])
        drawn = self.network(
            encoded, (source_values, source_jacobians), (driving_values, driving_jacobians), mel, gate
        )
        return (drawn.image.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1)


def export_onnx(network: Network, folder: Path) -> list[Path]:
    """Write detect.onnx, encode_keyframe.onnx and synthesize.onnx into `folder`; returns their paths."""
    network = network.eval()
    k = network.config.num_keypoints
    rgb = torch.zeros(1, FRAME_SIZE_PX, FRAME_SIZE_PX, 3, dtype=torch.uint8)
    priors = torch.zeros(1, 2, INPUT_SIZE_PX, INPUT_SIZE_PX, dtype=torch.uint8)
    encode = EncodeKeyframeGraph(network)
    with torch.no_grad():
        picture, small, *identity = encode(rgb)
    values, jacobians = torch.zeros(1, k, 2), torch.eye(2).expand(1, k, 2, 2).contiguous()
    mel, gate = torch.zeros(1, MEL_BANDS, MEL_STEPS), torch.ones(1, 1)
    names = [f"identity_{i + 1}" for i in range(len(identity))]
    keypoints = ["source_values", "source_jacobians", "driving_values", "driving_jacobians"]
    graphs = {
        "detect": (DetectGraph(network), (rgb, priors), ["rgb", "priors"], ["values", "jacobians"]),
        "encode_keyframe": (encode, (rgb,), ["rgb"], ["picture", "small", *names]),
        "synthesize": (
            SynthesizeGraph(network),
            (picture, small, identity, values, jacobians, values.clone(), jacobians.clone(), mel, gate),
            ["picture", "small", *names, *keypoints, "mel", "gate"],
            ["rgb"],
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (graph, inputs, input_names, output_names) in graphs.items():
        path = folder / f"{name}.onnx"
        torch.onnx.export(
            graph.eval(),
            inputs,
            str(path),
            input_names=input_names,
            output_names=output_names,
            opset_version=OPSET,
            dynamo=False,
            external_data=False,
        )
        written.append(path)
    return written
