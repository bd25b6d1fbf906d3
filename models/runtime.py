"""The trained network as the call uses it: ONNX graphs on the best provider that is really there.

No torch. One object serves one end of a call: the sender detects, the receiver encodes keyframes and
synthesizes.
"""

import contextlib
import hashlib
import io
import json
import os
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort

from avcall.bitstream.live import LiveKeyframes
from avcall.bitstream.motion_coded import MotionCoder, MotionTables
from avcall.errors import InputError, WeightsError
from avcall.types import (
    FRAME_SIZE_PX,
    LATTICE_POINTS,
    NUM_KEYPOINTS,
    F32Array,
    HeldKeyframe,
    Keypoints,
    Priors,
    U8Image,
)
from models.config import MEL_BANDS, MEL_STEPS
from models.priors import PRIOR_SIZE_PX
from models.sight import FITS, SecondLook, look

WEIGHTS_FORMAT = 1
DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "live"
WEIGHTS_VARIABLE = "AVCALL_WEIGHTS"  # environment variable that names another weights folder
MOTION_TABLES_NAME = "motion.safetensors"
# A pinned thread waits for its core while the rest of the call has it, and its partner spins meanwhile.
OPENVINO_CONFIG = json.dumps({"CPU": {"ENABLE_CPU_PINNING": "NO"}})
MAX_MANIFEST_BYTES = 64 * 1024
CUDA, OPENVINO, PLAIN_CPU = "CUDAExecutionProvider", "OpenVINOExecutionProvider", "CPUExecutionProvider"


class Device(Enum):
    """Where inference may run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    PLAIN = "plain"  # ONNX Runtime's own CPU kernels, to compare with


class Graph(Enum):
    """The graphs of a weights folder; the value is the file name without its suffix."""

    DETECT = "detect"
    PART_MAPS = "part_maps"
    REFINE = "refine"
    PREVIEW = "preview"
    ENCODE_KEYFRAME = "encode_keyframe"
    SYNTHESIZE = "synthesize"


BLANK = (
    np.zeros((1, NUM_KEYPOINTS + 1, PRIOR_SIZE_PX, PRIOR_SIZE_PX), np.float32),
    np.zeros((1, PRIOR_SIZE_PX, PRIOR_SIZE_PX, 2), np.float32),
)  # masks and bend where none are known
UNDEFORMED = np.zeros((1, LATTICE_POINTS, LATTICE_POINTS, 2), np.float32)
OPTIONAL = frozenset({Graph.PART_MAPS, Graph.REFINE, Graph.PREVIEW})  # a folder may lack these

DETECTED_SHARE = 0.15  # of what the detector finds, where a second look goes on from the frame before
# A second look begins anew where its misfit is beyond so many times that of the frame before, and so much.
SPOILT, SPOILT_BY = 2.5, 0.03

USE_PART_MAPS = frozenset({Graph.REFINE, Graph.PREVIEW, Graph.SYNTHESIZE})


def weights_folder(folder: Path | None = None) -> Path:
    """The folder to load: the argument, else $AVCALL_WEIGHTS, else what the package ships."""
    return folder or Path(os.environ.get(WEIGHTS_VARIABLE) or DEFAULT_WEIGHTS)


def load_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a weights folder. Raises WeightsError when it is missing or of another format."""
    path = folder / "manifest.json"
    try:
        text = path.read_bytes()[:MAX_MANIFEST_BYTES]
        manifest: dict[str, Any] = json.loads(text)
    except FileNotFoundError:
        raise WeightsError(
            f"no weights in {folder}: manifest.json is missing; reinstall avcall or set ${WEIGHTS_VARIABLE}"
        ) from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); reinstall avcall") from None
    if not isinstance(manifest, dict) or manifest.get("format") != WEIGHTS_FORMAT:
        raise WeightsError(f"{path} is of another weights format; this avcall reads format {WEIGHTS_FORMAT}")
    return manifest


def graphs_in(folder: Path) -> tuple[Graph, ...]:
    """The graphs that a weights folder names, and those that it must have. Raises WeightsError."""
    named = load_manifest(folder).get("sha256")
    known = named if isinstance(named, dict) else {}
    return tuple(graph for graph in Graph if graph not in OPTIONAL or f"{graph.value}.onnx" in known)


def read_graph(folder: Path, graph: Graph) -> bytes:
    """A graph's bytes, checked against the manifest. Raises WeightsError when truncated or altered."""
    return _read_checked(folder, f"{graph.value}.onnx")


def load_motion_tables(folder: Path) -> MotionTables:
    """The tables of coded motion. Raises WeightsError when damaged, or not those of these weights."""
    return MotionTables.from_bytes(_read_checked(folder, MOTION_TABLES_NAME))


def _read_checked(folder: Path, name: str) -> bytes:
    checksums = load_manifest(folder).get("sha256")
    expected = checksums.get(name) if isinstance(checksums, dict) else None
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise WeightsError(f"{folder / name} cannot be read ({error.strerror}); reinstall avcall") from None
    if hashlib.sha256(data).hexdigest() != expected:
        raise WeightsError(
            f"{folder / name} is truncated or altered: its sha256 is not the manifest's; reinstall avcall"
        )
    return data


def _session_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Threads that spin between frames would take the cores from the rest of the call.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _cpu_providers(threads: int) -> list[Any]:
    if OPENVINO not in ort.get_available_providers():
        return [PLAIN_CPU]
    options = {
        "device_type": "CPU",
        "precision": "FP32",
        "num_of_threads": str(threads),
        "load_config": OPENVINO_CONFIG,
    }
    return [(OPENVINO, options), PLAIN_CPU]


def _open_on_cuda(graph: bytes, options: ort.SessionOptions) -> ort.InferenceSession | None:
    """A session that really runs on CUDA, or None.

    ONNX Runtime falls back to the CPU by itself when a library or the driver is missing, and prints a page
    about it; the caller says it in a line.
    """
    if CUDA not in ort.get_available_providers():
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        if hasattr(ort, "preload_dlls"):  # finds the CUDA libraries that pip installed
            ort.preload_dlls()
        try:
            session = ort.InferenceSession(graph, options, providers=[CUDA, PLAIN_CPU], enable_fallback=0)
        except Exception:  # ONNX Runtime's own errors share no narrower base
            return None
    return session if session.get_providers()[0] == CUDA else None


def _open_session(folder: Path, graph: Graph, device: Device, threads: int) -> ort.InferenceSession:
    data = read_graph(folder, graph)
    options = _session_options(threads)
    session = _open_on_cuda(data, options) if device in (Device.AUTO, Device.CUDA) else None
    if session is None and device is Device.CUDA:
        raise InputError(
            "--device cuda: ONNX Runtime has no working CUDA here; install the extra with "
            "pip install 'avcall[cuda]' and a CUDA driver, or use --device cpu"
        )
    providers = [PLAIN_CPU] if device is Device.PLAIN else _cpu_providers(threads)
    return session or ort.InferenceSession(data, options, providers=providers)


def thumbnail(rgb: U8Image) -> U8Image:
    """(256, 256, 3) -> (64, 64, 3), by area as the network does it."""
    small = cv2.resize(rgb, (PRIOR_SIZE_PX, PRIOR_SIZE_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _beside(keyframe: HeldKeyframe, driving: Keypoints, rgb: U8Image) -> dict[str, Any]:
    """What `refine` and `preview` are fed with alike."""
    feeds: dict[str, Any] = {
        "keyframe": thumbnail(keyframe.rgb)[None],
        "source_values": keyframe.keypoints.values[None],
        "source_jacobians": keyframe.keypoints.jacobians[None],
        "driving_values": driving.values[None],
        "driving_jacobians": driving.jacobians[None],
        "camera": thumbnail(rgb)[None],
    }
    return feeds if keyframe.parts is None else feeds | {"parts": keyframe.parts}


def _between(last: Keypoints, found: Keypoints) -> Keypoints:
    """The last frame's keypoints, and `DETECTED_SHARE` of what was found: alone they would drift."""
    pairs = ((last.values, found.values), (last.jacobians, found.jacobians))
    return Keypoints(*(kept + DETECTED_SHARE * (new - kept) for kept, new in pairs))


class ModelRuntime:
    """Owns the ONNX sessions of one end; opens only the graphs that this end needs.

    Not thread-safe, but for what a sender calls, `detect`, `hold`, `refine` and `preview`: they keep nothing,
    and several threads may call them.
    """

    def __init__(
        self,
        graphs: tuple[Graph, ...] | None = None,
        *,
        device: Device = Device.AUTO,
        threads: int = 2,
        weights: Path | None = None,
    ) -> None:
        """Open `graphs`, by default all that the folder has; of `OPTIONAL` those that it has.

        The part maps come with the graphs that use them.
        """
        folder = self._folder = weights_folder(weights)
        present = graphs_in(folder)
        named = set(present if graphs is None else graphs)
        named |= {Graph.PART_MAPS} if named & USE_PART_MAPS else set()
        wanted = [graph for graph in present if graph in named]
        self._sessions = {graph: _open_session(folder, graph, device, threads) for graph in wanted}
        self._keyframes: LiveKeyframes[dict[str, Any]] = LiveKeyframes()
        self._cached_names: list[str] = []
        self._synthesize_names: list[str] = []
        if Graph.ENCODE_KEYFRAME in self._sessions:
            self._cached_names = [o.name for o in self._sessions[Graph.ENCODE_KEYFRAME].get_outputs()]
        if Graph.SYNTHESIZE in self._sessions:
            self._synthesize_names = [i.name for i in self._sessions[Graph.SYNTHESIZE].get_inputs()]

    @property
    def provider(self) -> str:
        """What inference really runs on, for people: 'CUDA', 'CPU (OpenVINO)' or 'CPU'."""
        first = next(iter(self._sessions.values())).get_providers()[0]
        return {CUDA: "CUDA", OPENVINO: "CPU (OpenVINO)"}.get(first, "CPU")

    def motion_coder(self) -> MotionCoder:
        """The coder of motion with the tables of these weights. Raises WeightsError."""
        return MotionCoder(load_motion_tables(self._folder))

    def warm_up(self) -> None:
        """Run every open graph once on blank input: the first run of a graph takes many times longer."""
        blank = np.zeros((FRAME_SIZE_PX, FRAME_SIZE_PX, 3), np.uint8)
        identity = np.tile(np.eye(2, dtype=np.float32), (NUM_KEYPOINTS, 1, 1))
        still = Keypoints(np.zeros((NUM_KEYPOINTS, 2), np.float32), identity)
        prior = np.zeros((PRIOR_SIZE_PX, PRIOR_SIZE_PX), np.uint8)
        if Graph.DETECT in self._sessions:
            self.detect(blank, Priors(prior, prior, None))
        held = self.hold(blank, still, None)
        if Graph.REFINE in self._sessions:
            self.refine(still, blank, None, held)
        if Graph.PREVIEW in self._sessions:
            self.preview(held, still, blank)
        if Graph.ENCODE_KEYFRAME in self._sessions:
            self.set_keyframe(0, blank, still)
        if Graph.SYNTHESIZE in self._sessions:
            self.synthesize(0, still, np.zeros((MEL_BANDS, MEL_STEPS), np.float32), speech=False)
        self._keyframes.clear()

    def detect(self, rgb: U8Image, priors: Priors) -> Keypoints:
        """Keypoints of a crop (256, 256, 3) uint8."""
        feeds = {"rgb": rgb[None], "priors": np.stack([priors.mesh, priors.mask])[None]}
        values, jacobians = self._sessions[Graph.DETECT].run(None, feeds)
        return Keypoints(values[0], jacobians[0])

    def hold(self, rgb: U8Image, keypoints: Keypoints, landmarks: F32Array | None) -> HeldKeyframe:
        """A keyframe as `refine` and `preview` need it: what depends on it alone is computed once."""
        return HeldKeyframe(rgb, keypoints, landmarks, self._part_maps(rgb, keypoints))

    def _part_maps(self, rgb: U8Image, keypoints: Keypoints) -> F32Array | None:
        session = self._sessions.get(Graph.PART_MAPS)
        if session is None:
            return None
        feeds = {"keyframe": thumbnail(rgb)[None], "source_values": keypoints.values[None]}
        parts: F32Array = session.run(None, feeds)[0]
        return parts

    def refine(
        self,
        driving: Keypoints,
        rgb: U8Image,
        landmarks: F32Array | None,
        keyframe: HeldKeyframe,
        last: SecondLook | None = None,
    ) -> SecondLook:
        """What `detect` found in a crop, after a second look: beside a keyframe of the same person.

        `rgb` (256, 256, 3) uint8 is the crop, `landmarks` (478, 2) its own in pixels; the keyframe is one of
        `hold`. `last` is what came of the frame before, beside the same keyframe: one fit from there will do,
        where that does not fit worse by far. Otherwise the keypoints stay as they are where they draw better,
        and in any case without that graph.
        """
        if Graph.REFINE not in self._sessions:
            return SecondLook(driving, *BLANK, 0.0)
        sight = look(rgb, landmarks, keyframe.rgb, keyframe.landmarks)
        feeds = _beside(keyframe, driving, rgb) | sight._asdict()
        looks = []
        if last is not None:
            start = replace(last, keypoints=_between(last.keypoints, driving))
            looks.append(self._fit(start, feeds))
            if looks[0].misfit <= max(SPOILT * last.misfit, last.misfit + SPOILT_BY):
                return looks[0]
        looks.append(self._fit(SecondLook(driving, *BLANK, 0.0), feeds, share=0.0))
        for _ in range(FITS):
            looks.append(self._fit(looks[-1], feeds))
        return min(looks, key=lambda found: found.misfit)

    def _fit(self, start: SecondLook, feeds: dict[str, Any], share: float = 1.0) -> SecondLook:
        """One fit from `start`, of which `share` is taken: with 0, `start` with its masks."""
        begun = {
            "driving_values": start.keypoints.values[None],
            "driving_jacobians": start.keypoints.jacobians[None],
            "held_masks": start.masks,
            "held_bend": start.bend,
            "share": np.array([share], np.float32),
        }
        found = self._sessions[Graph.REFINE].run(None, feeds | begun)
        values, jacobians, masks, bend, misfit, *deformed = found
        lattice = deformed[0][0] if deformed else None
        return SecondLook(Keypoints(values[0], jacobians[0], lattice), masks, bend, float(misfit[0]))

    @property
    def has_preview(self) -> bool:
        """Whether `preview` can be called."""
        return Graph.PREVIEW in self._sessions

    def preview(self, keyframe: HeldKeyframe, driving: Keypoints, rgb: U8Image) -> tuple[U8Image, float]:
        """A keyframe warped into the pose of `driving`, (64, 64, 3), and how far it is from a crop.

        The crop `rgb` is (256, 256, 3); the distance is the mean absolute one at 64x64, where white is 1. The
        keyframe comes from `hold`.
        """
        warped, error = self._sessions[Graph.PREVIEW].run(None, _beside(keyframe, driving, rgb))
        return warped[0], float(error[0])

    def set_keyframe(self, index: int, rgb: U8Image, keypoints: Keypoints) -> None:
        """Compute and cache all that depends on a keyframe alone; see LiveKeyframes for which gives way."""
        source = {
            "source_values": keypoints.values[None],
            "source_jacobians": keypoints.jacobians[None],
        }
        parts = self._part_maps(rgb, keypoints)
        source |= {} if parts is None else {"parts": parts}
        outputs = self._sessions[Graph.ENCODE_KEYFRAME].run(None, {"rgb": rgb[None]})
        self._keyframes.put(index, dict(zip(self._cached_names, outputs, strict=True)) | source)

    def has_keyframe(self, index: int) -> bool:
        """Whether motion that names keyframe `index` can be drawn."""
        return index in self._keyframes

    def synthesize(self, index: int, keypoints: Keypoints, mel: F32Array, *, speech: bool = True) -> U8Image:
        """Keyframe `index` in the pose of `keypoints`, with `mel` (80, 16): (256, 256, 3) uint8.

        Raises KeyError when the keyframe is not there.
        """
        cached = self._keyframes.get(index)
        if cached is None:
            raise KeyError(index)
        feeds = {
            **cached,
            "driving_values": keypoints.values[None],
            "driving_jacobians": keypoints.jacobians[None],
            "mel": mel[None],
            "gate": np.array([[1.0 if speech else 0.0]], np.float32),
            "lattice": UNDEFORMED if keypoints.lattice is None else keypoints.lattice[None],
        }
        # An ablated network has no use for some of them, and its graph does not know their names.
        feeds = {name: feeds[name] for name in self._synthesize_names}
        picture: U8Image = self._sessions[Graph.SYNTHESIZE].run(None, feeds)[0][0]
        return picture
