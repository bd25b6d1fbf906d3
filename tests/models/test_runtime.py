"""Weights folders that cannot be used, and what the runtime keeps."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from avcall.bitstream.live import MAX_LIVE_KEYFRAMES
from avcall.errors import InputError, WeightsError
from avcall.types import HeldKeyframe
from models.runtime import (
    DEFAULT_WEIGHTS,
    WEIGHTS_VARIABLE,
    Device,
    Graph,
    ModelRuntime,
    graphs_in,
    load_manifest,
    read_graph,
    weights_folder,
)
from models.training.export import export_weights
from tests.fakes import make_crop
from tests.models.tiny import TINY_LIVE, random_network
from tests.units import make_keypoints, make_still

MEL = np.zeros((80, 16), np.float32)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    export_weights(random_network(TINY_LIVE), folder, {})
    return folder


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def drop_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def cut_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])


def binary_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\xff\xfe\x00")


def other_format(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))


def list_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1]")


def no_checksums(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": ["x"]}))


def cut_graph(folder: Path) -> None:
    path = folder / "detect.onnx"
    path.write_bytes(path.read_bytes()[:-1])


def altered_graph(folder: Path) -> None:
    path = folder / "detect.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def drop_graph(folder: Path) -> None:
    (folder / "detect.onnx").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_manifest, "manifest.json is missing"),
        (cut_manifest, "cannot be read"),
        (binary_manifest, "cannot be read"),
        (other_format, "another weights format"),
        (list_manifest, "another weights format"),
        (no_checksums, "truncated or altered"),
        (cut_graph, "truncated or altered"),
        (altered_graph, "truncated or altered"),
        (drop_graph, "cannot be read"),
    ],
)
def test_damaged_weights_are_one_line(copy: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(copy)
    with pytest.raises(WeightsError, match=message) as caught:
        ModelRuntime((Graph.DETECT,), device=Device.CPU, weights=copy)
    assert "\n" not in str(caught.value)
    assert str(copy) in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights in .*nowhere"):
        load_manifest(tmp_path / "nowhere")


def test_a_graph_is_handed_over_only_with_its_checksum(tiny: Path) -> None:
    data = read_graph(tiny, Graph.DETECT)
    assert hashlib.sha256(data).hexdigest() == load_manifest(tiny)["sha256"]["detect.onnx"]


def test_which_folder_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)
    assert weights_folder() == DEFAULT_WEIGHTS
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "mine"))
    assert weights_folder() == tmp_path / "mine"
    assert weights_folder(tmp_path / "named") == tmp_path / "named"


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="there is CUDA here")
def test_cuda_that_is_not_there_is_said_and_not_replaced(tiny: Path) -> None:
    with pytest.raises(InputError, match=r"--device cuda: .*use --device cpu"):
        ModelRuntime((Graph.DETECT,), device=Device.CUDA, weights=tiny)


class FallsBack:
    """In place of a session that was asked for CUDA: it is on the CPU, or breaks."""

    def __init__(self, *_: object, **options: object) -> None:
        assert options["enable_fallback"] == 0
        print("a page about missing libraries")  # noqa: T201

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


class Breaks(FallsBack):
    def __init__(self, *_: object, **options: object) -> None:
        super().__init__(**options)
        raise RuntimeError("CUDA failure 35: driver too old")


@pytest.mark.parametrize("session", [FallsBack, Breaks])
def test_cuda_that_does_not_start_is_said_and_not_replaced(
    tiny: Path, session: type, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded: list[bool] = []
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: loaded.append(True), raising=False)
    monkeypatch.setattr(ort, "InferenceSession", session)
    with pytest.raises(InputError, match="--device cuda"):
        ModelRuntime((Graph.DETECT,), device=Device.CUDA, weights=tiny)
    assert loaded == [True]
    assert capfd.readouterr().out == ""


def test_auto_takes_the_cpu_when_cuda_does_not_start(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ort.InferenceSession

    def choose(*arguments: object, **options: object) -> object:
        return Breaks(**options) if "enable_fallback" in options else real(*arguments, **options)

    providers = [*ort.get_available_providers(), "CUDAExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: providers)
    monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(ort, "InferenceSession", choose)
    runtime = ModelRuntime((Graph.DETECT,), device=Device.AUTO, weights=tiny)
    assert runtime.provider.startswith("CPU")


def test_the_fifth_keyframe_pushes_out_the_oldest(tiny: Path) -> None:
    runtime = ModelRuntime((Graph.ENCODE_KEYFRAME, Graph.SYNTHESIZE), device=Device.CPU, weights=tiny)
    still = make_still()
    for index in range(MAX_LIVE_KEYFRAMES):
        runtime.set_keyframe(index, still, make_keypoints())
    runtime.set_keyframe(0, still, make_keypoints())  # sent again: the newest now
    runtime.set_keyframe(9, still, make_keypoints())
    assert [runtime.has_keyframe(i) for i in (0, 1, 2, 3, 9)] == [True, False, True, True, True]
    with pytest.raises(KeyError):
        runtime.synthesize(1, make_keypoints(1), MEL)


def test_each_keyframe_draws_its_own_face(tiny: Path) -> None:
    runtime = ModelRuntime((Graph.ENCODE_KEYFRAME, Graph.SYNTHESIZE), device=Device.CPU, weights=tiny)
    still, other = make_still(), make_still()[::-1].copy()
    runtime.set_keyframe(0, still, make_keypoints())
    alone = runtime.synthesize(0, make_keypoints(1), MEL)
    runtime.set_keyframe(1, other, make_keypoints())
    assert np.array_equal(runtime.synthesize(0, make_keypoints(1), MEL), alone)
    assert not np.array_equal(runtime.synthesize(1, make_keypoints(1), MEL), alone)


def test_warming_up_leaves_no_keyframe_behind(tiny: Path) -> None:
    runtime = ModelRuntime(device=Device.CPU, weights=tiny)
    runtime.warm_up()
    assert not runtime.has_keyframe(0)


def test_the_call_path_does_not_import_torch() -> None:
    code = (
        "import sys, models.runtime, models.priors, models.mel; "
        "print(*(m for m in ('torch', 'lightning_fabric', 'onnx', 'tensorboard', 'skimage', "
        "'stlpips_pytorch') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_folder_may_lack_preview_and_refiner(copy: Path) -> None:
    assert ModelRuntime(device=Device.CPU, weights=copy).has_preview
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    for graph in (Graph.REFINE, Graph.PREVIEW):
        del manifest["sha256"][f"{graph.value}.onnx"]
        (copy / f"{graph.value}.onnx").unlink()
    path.write_text(json.dumps(manifest))
    assert graphs_in(copy) == (Graph.DETECT, Graph.PART_MAPS, Graph.ENCODE_KEYFRAME, Graph.SYNTHESIZE)
    for wanted in (None, (Graph.DETECT, Graph.REFINE, Graph.PREVIEW)):
        runtime = ModelRuntime(wanted, device=Device.CPU, weights=copy)
        assert not runtime.has_preview
        runtime.warm_up()
        found = make_keypoints(3)
        crop = make_crop()
        held = HeldKeyframe(crop.rgb, make_keypoints(1), None)
        assert runtime.refine(found, crop.rgb, None, held).keypoints is found


def test_a_preview_that_is_named_and_missing_is_one_line(copy: Path) -> None:
    (copy / "preview.onnx").unlink()
    with pytest.raises(WeightsError, match=r"preview\.onnx cannot be read"):
        ModelRuntime((Graph.PREVIEW,), device=Device.CPU, weights=copy)


@pytest.mark.parametrize("switch", ["structural_prior", "audio_prior", "identity_aware"])
def test_an_ablated_network_runs_like_the_whole_one(switch: str, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY_LIVE, **{switch: False})
    export_weights(random_network(config), tmp_path, {})
    runtime = ModelRuntime(device=Device.PLAIN, threads=1, weights=tmp_path)
    runtime.warm_up()
    runtime.set_keyframe(0, make_still(), make_keypoints())
    drawn = runtime.synthesize(0, make_keypoints(1), MEL)
    assert drawn.shape == (256, 256, 3) and drawn.std() > 0
