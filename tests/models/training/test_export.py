"""The exported graphs draw what torch draws."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from avcall.errors import WeightsError
from avcall.types import Keypoints, Priors, U8Image
from models.config import LIVE, ModelConfig
from models.free_form import fit_lattice
from models.layers import resize, warp
from models.network import Network
from models.runtime import Device, Graph, ModelRuntime
from models.second_look import misfit, texture_of
from models.sight import SecondLook, Sight, look
from models.training.data import Clip
from models.training.export import export_weights, load_network
from models.training.quantise import EXACT, calibrate
from tests.models.tiny import TINY_LIVE, TINY_PAPER, landmarks, pictures, random_network, write_prepared
from tests.units import make_keypoints


def to_rgb(picture: torch.Tensor) -> U8Image:
    return (picture[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)


def from_rgb(rgb: U8Image) -> torch.Tensor:
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255


def tensors(keypoints: Keypoints) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(keypoints.values)[None], torch.from_numpy(keypoints.jacobians)[None]


KEYFRAME = to_rgb(pictures(1, 256, 1))
MEL = np.random.default_rng(0).random((80, 16), np.float32)
SPREAD = np.random.default_rng(1)
PRIORS = Priors(
    SPREAD.integers(0, 255, (64, 64), np.uint8), SPREAD.integers(0, 255, (64, 64), np.uint8), None
)


@torch.no_grad()
def torch_picture(network: Network, driving: Keypoints, *, speech: bool) -> np.ndarray:
    drawn = network(
        network.encode_keyframe(from_rgb(KEYFRAME), tensors(make_keypoints(1))),
        tensors(make_keypoints(1)),
        tensors(driving),
        torch.from_numpy(MEL)[None],
        torch.full((1, 1), float(speech)),
    )
    return (drawn.image[0].permute(1, 2, 0) * 255).numpy()


@torch.no_grad()
def torch_keypoints(network: Network) -> tuple[np.ndarray, np.ndarray]:
    small = torch.nn.functional.avg_pool2d(from_rgb(KEYFRAME), 4)
    priors = torch.from_numpy(np.stack([PRIORS.mesh, PRIORS.mask]))[None].float() / 255
    values, jacobians = network.detect(small, priors)
    return values[0].numpy(), jacobians[0].numpy()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Path]:
    network = random_network(LIVE)
    with torch.no_grad():  # untrained, speech moves no colour by a step of 255
        network.condition.audio.seed.weight.mul_(30)
    folder = tmp_path_factory.mktemp("live")
    export_weights(network, folder, {"steps": 0})
    return network, folder


def test_the_live_preset_draws_in_onnx_what_it_draws_in_torch(live: tuple[Network, Path]) -> None:
    network, folder = live
    runtime = ModelRuntime(device=Device.CPU, weights=folder)
    found = runtime.detect(KEYFRAME, PRIORS)
    values, jacobians = torch_keypoints(network)
    np.testing.assert_allclose(found.values, values, atol=5e-3)
    np.testing.assert_allclose(found.jacobians, jacobians, atol=2e-2)
    runtime.set_keyframe(7, KEYFRAME, make_keypoints(1))
    for seed in (2, 3):
        for speech in (True, False):
            drawn = runtime.synthesize(7, make_keypoints(seed), MEL, speech=speech)
            difference = np.abs(drawn - torch_picture(network, make_keypoints(seed), speech=speech))
            assert drawn.shape == (256, 256, 3)
            assert difference.mean() < 0.6  # of 255; 0.25 is rounding
            assert difference.max() < 8


@torch.no_grad()
def test_the_preview_warps_as_torch_does_and_measures_the_difference(live: tuple[Network, Path]) -> None:
    network, folder = live
    runtime = ModelRuntime((Graph.PREVIEW,), device=Device.CPU, weights=folder)
    camera = to_rgb(pictures(1, 256, 6))
    source, driving = make_keypoints(1), make_keypoints(2)
    warped, error = runtime.preview(runtime.hold(KEYFRAME, source, None), driving, camera)
    still, seen = (resize(from_rgb(picture), 64) for picture in (KEYFRAME, camera))
    flow = network.dense_motion(still, tensors(source), tensors(driving)).flow
    wanted = warp(still, flow)
    assert np.abs(warped - (wanted[0].permute(1, 2, 0) * 255).numpy()).mean() < 0.6
    assert error == pytest.approx(float((wanted - seen).abs().mean()), abs=2e-3)


@torch.no_grad()
def test_a_second_look_finds_in_onnx_what_it_finds_in_torch(live: tuple[Network, Path]) -> None:
    network, folder = live
    runtime = ModelRuntime((Graph.REFINE,), device=Device.CPU, weights=folder)
    # The camera shows the keyframe itself: flow and landmarks say so, and what the detector found is off.
    points, source = landmarks(), make_keypoints(1)
    driving = Keypoints(source.values + np.float32(0.05), source.jacobians)
    held = runtime.hold(KEYFRAME, source, points)
    found = runtime.refine(driving, KEYFRAME, points, held)
    still = torch.nn.functional.avg_pool2d(from_rgb(KEYFRAME), 4)
    sight = Sight(*(torch.from_numpy(part) for part in look(KEYFRAME, points, KEYFRAME, points)))
    values, jacobians = network.look_again(still, tensors(source), tensors(driving), sight, still)
    np.testing.assert_allclose(found.keypoints.values, values[0].numpy(), atol=5e-3)
    # The graph's kernels are int8, and what nothing was seen of hangs on small differences of the masks.
    np.testing.assert_allclose(found.keypoints.jacobians, jacobians[0].numpy(), atol=8e-2)
    assert not np.allclose(found.keypoints.values, driving.values, atol=1e-2)
    motion = network.dense_motion(still, tensors(source), tensors(found.keypoints))
    assert found.misfit == pytest.approx(float(misfit(motion, still, still, sight)), abs=5e-3)
    assert np.abs(found.masks - motion.masks.numpy()).mean() < 1e-2
    lattice = fit_lattice(motion.flow, sight, texture_of(still))[0].numpy()
    assert np.abs(found.keypoints.lattice - lattice).mean() < 0.1 * np.abs(lattice).mean()


def test_a_second_look_goes_on_from_the_one_before_unless_that_fits_far_worse(
    live: tuple[Network, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = ModelRuntime((Graph.REFINE,), device=Device.CPU, weights=live[1])
    points, source = landmarks(), make_keypoints(1)
    held = runtime.hold(KEYFRAME, source, points)
    fits: list[float] = []
    fit = ModelRuntime._fit

    def counted(self: ModelRuntime, *arguments: Any, share: float = 1.0) -> SecondLook:
        fits.append(share)
        return fit(self, *arguments, share=share)

    monkeypatch.setattr(ModelRuntime, "_fit", counted)
    first = runtime.refine(source, KEYFRAME, points, held)
    assert fits == [0.0, 1.0, 1.0]
    fits.clear()
    second = runtime.refine(source, KEYFRAME, points, held, first)
    assert fits == [1.0]
    np.testing.assert_allclose(second.keypoints.values, first.keypoints.values, atol=2e-2)
    fits.clear()
    again = runtime.refine(source, to_rgb(pictures(1, 256, 6)), None, held, first)
    assert fits == [1.0, 0.0, 1.0, 1.0]
    assert again.misfit >= second.misfit


@torch.no_grad()
def test_a_lattice_deforms_in_onnx_what_it_deforms_in_torch(live: tuple[Network, Path]) -> None:
    network, folder = live
    runtime = ModelRuntime((Graph.ENCODE_KEYFRAME, Graph.SYNTHESIZE), device=Device.CPU, weights=folder)
    source = make_keypoints(1)
    runtime.set_keyframe(0, KEYFRAME, source)
    lattice = np.random.default_rng(4).normal(0, 0.03, (10, 10, 2)).astype(np.float32)
    plain, told = make_keypoints(2), replace(make_keypoints(2), lattice=lattice)
    drawn = runtime.synthesize(0, told, MEL)
    keyframe = network.encode_keyframe(from_rgb(KEYFRAME), tensors(source))
    wanted = network(
        keyframe,
        tensors(source),
        tensors(plain),
        torch.from_numpy(MEL)[None],
        torch.ones(1, 1),
        torch.from_numpy(lattice)[None],
    ).image
    assert np.abs(drawn - to_rgb(wanted).astype(float)).mean() < 0.6
    assert np.abs(drawn - runtime.synthesize(0, plain, MEL).astype(float)).mean() > 1


def test_speech_reaches_the_picture(live: tuple[Network, Path]) -> None:
    runtime = ModelRuntime((Graph.ENCODE_KEYFRAME, Graph.SYNTHESIZE), device=Device.CPU, weights=live[1])
    runtime.set_keyframe(0, KEYFRAME, make_keypoints(1))
    still = make_keypoints(2)
    heard, silent = (runtime.synthesize(0, still, MEL, speech=s) for s in (True, False))
    other = runtime.synthesize(0, still, np.zeros_like(MEL), speech=True)
    assert not np.array_equal(heard, silent)
    assert not np.array_equal(heard, other)
    assert np.array_equal(silent, runtime.synthesize(0, still, 1 - MEL, speech=False))


def test_the_weights_folder_is_small_and_says_what_it_holds(live: tuple[Network, Path]) -> None:
    network, folder = live
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sizes.keys() == {
        "detect.onnx",
        "preview.onnx",
        "part_maps.onnx",
        "refine.onnx",
        "encode_keyframe.onnx",
        "synthesize.onnx",
        "live.safetensors",
        "manifest.json",
    }
    assert sum(sizes.values()) < 21e6
    parameters = sum(p.numel() for p in network.parameters())
    graphs = sum(size for name, size in sizes.items() if name.endswith(".onnx"))
    assert graphs < 3.1 * parameters  # float16, the dense motion twice, and some structure
    manifest = json.loads((folder / "manifest.json").read_text())
    assert ModelConfig.from_dict(manifest["config"]) == LIVE
    assert manifest["record"] == {"steps": 0}


def test_halved_weights_are_floats_again_before_they_are_used(live: tuple[Network, Path]) -> None:
    for path in live[1].glob("*.onnx"):
        graph = onnx.load(path).graph
        onnx.checker.check_model(onnx.load(path))
        halved = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
        cast = {node.input[0] for node in graph.node if node.op_type == "Cast"}
        assert halved
        assert halved <= cast


@torch.no_grad()
def test_safetensors_give_the_network_back(live: tuple[Network, Path]) -> None:
    network, folder = live
    again = load_network(folder / "live.safetensors")
    assert again.config == LIVE
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], atol=1e-3, rtol=1e-3)


def test_a_truncated_or_foreign_safetensors_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "live.safetensors"
    for content in (b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{}", b"rubbish" * 50):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="not a weights file of avcall") as caught:
            load_network(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [TINY_PAPER, TINY_LIVE], ids=["paper", "live"])
def test_both_presets_export(config: ModelConfig, tmp_path: Path) -> None:
    network = random_network(config)
    export_weights(network, tmp_path, {})
    runtime = ModelRuntime(device=Device.CPU, weights=tmp_path)
    runtime.warm_up()
    runtime.set_keyframe(0, KEYFRAME, make_keypoints(1))
    drawn = runtime.synthesize(0, make_keypoints(2), MEL)
    assert np.abs(drawn - torch_picture(network, make_keypoints(2), speech=True)).mean() < 0.6


def test_int8_draws_nearly_what_float_draws_and_is_smaller(
    live: tuple[Network, Path], tmp_path: Path
) -> None:
    network, folder = live
    clips = [Clip(write_prepared(tmp_path / f"{seed}.npz", frames=12, seed=seed)) for seed in (1, 2)]
    export_weights(network, tmp_path / "int8", {"steps": 0}, calibrate(network, clips))
    drawn = []
    for weights in (folder, tmp_path / "int8"):
        runtime = ModelRuntime(device=Device.CPU, weights=weights)
        runtime.set_keyframe(0, KEYFRAME, make_keypoints(1))
        drawn.append(runtime.synthesize(0, make_keypoints(2), MEL).astype(int))
    assert 0 < np.abs(drawn[0] - drawn[1]).mean() < 4
    whole, small = (path / "synthesize.onnx" for path in (folder, tmp_path / "int8"))
    assert small.stat().st_size < 0.7 * whole.stat().st_size
    graph = onnx.load(tmp_path / "int8" / "synthesize.onnx").graph
    restored = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    plain = [n.name for n in graph.node if n.op_type == "Conv" and n.input[1] not in restored]
    assert len(plain) == 5 and all(any(part in name for part in EXACT) for name in plain)


def test_a_clip_of_a_few_frames_calibrates_nothing(tmp_path: Path) -> None:
    clip = Clip(write_prepared(tmp_path / "short.npz", frames=4))
    assert not any(calibrate(random_network(TINY_LIVE), [clip]).values())


def test_a_constant_stands_in_a_graph_once(live: tuple[Network, Path]) -> None:
    for path in live[1].glob("*.onnx"):
        nodes = onnx.load(path).graph.node
        values = [node.attribute[0].SerializeToString() for node in nodes if node.op_type == "Constant"]
        assert len(values) == len(set(values))
        made = {name for node in nodes for name in node.output}
        assert all(name in made for node in nodes for name in node.input if name.startswith("/Constant"))
