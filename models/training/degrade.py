"""What becomes of the picture when something is missing: pictures, and numbers that nothing explodes.

    python -m models.training.degrade CLIP.npz... --out DIR [--weights DIR] [--frames 75]

CLIP.npz is what `avcall prepare` made. Each clip's first face is moved by the clip as it is, and with one
thing amiss at a time; then the next clip's face is. Writes a strip for each clip (columns: what is amiss;
lines: the widest mouth, the most closed eyes, the head turned farthest) and degrade.json, and prints a table.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console

from avcall.errors import InputError
from avcall.types import FRAME_SIZE_PX, F32Array, Keypoints, Priors, U8Image
from models.metrics.multiscale import flicker
from models.metrics.perceptual import one_thread
from models.metrics.picture import FACE_SIDES, LIPS, face_width, psnr
from models.metrics.tables import Table, print_table
from models.network import Network
from models.priors import PriorExtractor
from models.runtime import Device, ModelRuntime, load_manifest, weights_folder
from models.training.data import EYE_CENTRES, Clip
from models.training.drawing import Puppet, Still, first_face, priors_of, still_of
from models.training.export import load_network
from models.training.strips import LOWER_LID, LOWER_LIP, UPPER_LID, UPPER_LIP, openness

NOSE = 1
CHEEKS = (50, 280)  # landmarks whose surroundings have the colour of a hand
COVERED_FROM = 12  # the frame of the clip from which on the hand, or the glasses, are there
HAND_AXES = (0.42, 0.26)  # half axes, in widths of the face
LENS_AXES = (0.19, 0.15)
RIM = 0.025  # widths of the face
RIM_COLOUR = (30, 25, 25)
TILE_PX = 128
CAPTION_PX = 20


@dataclass(frozen=True, slots=True)
class Input:
    """What the sender has of one frame, and whether the receiver hears."""

    rgb: U8Image
    priors: Priors
    speech: bool = True


Spoil = Callable[[Input, int], Input]  # what is amiss, at a frame number from the keyframe on


@dataclass(frozen=True, slots=True)
class Numbers:
    """What would show a picture that flickers or explodes; those of the clip as it is are the measure.

    `change` and `step` are the mean and the largest change from frame to frame, as multiples of the camera's;
    `flicker` is how differently both change, where white is 1. `flow` is the farthest place that the dense
    motion points to, in half widths of the picture from its middle (at most 2 by construction);
    `determinant` the smallest and largest of the jacobians' in magnitude. `psnr` is None for another's face.
    """

    psnr: float | None
    change: float
    step: float
    flicker: float
    flow: float
    determinant: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Run:
    """One clip with one thing amiss: the pictures (frames, 256, 256, 3) that the camera saw and that were
    drawn."""

    name: str
    camera: U8Image
    drawn: U8Image
    numbers: Numbers


def _without_mesh(given: Input) -> Input:
    return dataclasses.replace(
        given, priors=Priors(np.zeros_like(given.priors.mesh), given.priors.mask, None)
    )


def _without_mask(given: Input) -> Input:
    mask = np.zeros_like(given.priors.mask)
    return dataclasses.replace(given, priors=dataclasses.replace(given.priors, mask=mask))


class HeldMesh:
    """The raster of the first frame that has one, instead of none: what a sender can do for a while."""

    def __init__(self) -> None:
        self._mesh: U8Image | None = None

    def __call__(self, given: Input, number: int) -> Input:
        """The first frame keeps its own."""
        if self._mesh is None:
            self._mesh = given.priors.mesh
        return dataclasses.replace(given, priors=dataclasses.replace(given.priors, mesh=self._mesh))


class Covered:
    """Something before the face; the priors are found again, as a sender would."""

    def __init__(self, extractor: PriorExtractor, cover: Callable[[U8Image, F32Array], U8Image]) -> None:
        """`extractor` follows the face from frame to frame; `cover` draws on a picture with landmarks."""
        self._extractor = extractor
        self._cover = cover

    def __call__(self, given: Input, number: int) -> Input:
        """It is there from `COVERED_FROM` on."""
        points = given.priors.landmarks
        rgb = given.rgb if points is None or number < COVERED_FROM else self._cover(given.rgb, points)
        return dataclasses.replace(given, rgb=rgb, priors=self._extractor.extract(rgb))


def with_hand(rgb: U8Image, landmarks: F32Array) -> U8Image:
    """A picture (H, W, 3) with an ellipse of the cheeks' colour before the mouth."""
    x, y = np.clip(landmarks[list(CHEEKS)].round().astype(int), 4, np.array(rgb.shape[1::-1]) - 5).T
    patches = [
        rgb[row - 4 : row + 5, column - 4 : column + 5].reshape(-1, 3)
        for column, row in zip(x, y, strict=True)
    ]
    colour = np.median(np.concatenate(patches), 0)
    width = face_width(landmarks)
    axes = (round(HAND_AXES[0] * width), round(HAND_AXES[1] * width))
    place = _pixel(landmarks[LIPS].mean(0))
    return cv2.ellipse(rgb.copy(), place, axes, -20, 0, 360, colour.tolist(), -1, cv2.LINE_AA)


def with_glasses(rgb: U8Image, landmarks: F32Array) -> U8Image:
    """A picture (H, W, 3) with dark rims around the eyes, bridge and temples."""
    shown = rgb.copy()
    width = face_width(landmarks)
    thick = max(1, round(RIM * width))
    centres = [landmarks[list(corners)].mean(0) for corners in EYE_CENTRES]
    across = (centres[1] - centres[0]) / np.linalg.norm(centres[1] - centres[0])
    slope_deg = float(np.degrees(np.arctan2(across[1], across[0])))
    axes = (round(LENS_AXES[0] * width), round(LENS_AXES[1] * width))
    for centre, outward, side in zip(centres, (-across, across), FACE_SIDES, strict=True):
        inner, outer = (_pixel(centre + way * LENS_AXES[0] * width) for way in (-outward, outward))
        cv2.ellipse(shown, _pixel(centre), axes, slope_deg, 0, 360, RIM_COLOUR, thick, cv2.LINE_AA)
        cv2.line(shown, inner, _pixel(np.mean(centres, 0)), RIM_COLOUR, thick, cv2.LINE_AA)
        cv2.line(shown, outer, _pixel(landmarks[side]), RIM_COLOUR, thick, cv2.LINE_AA)
    return shown


def _pixel(place: F32Array) -> tuple[int, int]:
    return round(float(place[0])), round(float(place[1]))


COVERS = {"hand": with_hand, "glasses": with_glasses}  # what the camera sees beside the face


def conditions(extractor: PriorExtractor) -> dict[str, Spoil]:
    """Everything that may be amiss on the way, by its name; the first is nothing."""
    return {
        "as it is": lambda given, _: given,
        "no speech": lambda given, _: dataclasses.replace(given, speech=False),
        "no mesh": lambda given, _: _without_mesh(given),
        "mesh held": HeldMesh(),
        "no mask": lambda given, _: _without_mask(given),
        "mesh on and off": lambda given, number: _without_mesh(given) if number % 2 else given,
        "mask on and off": lambda given, number: _without_mask(given) if number % 2 else given,
        **{name: Covered(extractor, cover) for name, cover in COVERS.items()},
    }


class Proving:
    """Draws clips through the runtime; the flow, which the graphs keep to themselves, comes from torch."""

    def __init__(self, weights: Path, frames: int) -> None:
        """The first `frames` of each clip. Raises WeightsError."""
        self.runtime = ModelRuntime(device=Device.CPU, weights=weights)
        name = load_manifest(weights)["config"]["name"]
        self._network: Network = load_network(weights / f"{name}.safetensors")
        self._frames = frames
        one_thread()  # torch would wait for cores that the runtime has

    def run(self, name: str, clip: Clip, still: Still, spoil: Spoil) -> Run:
        """One clip with one thing amiss. Raises InputError for a clip without a face."""
        first = first_face(clip)
        if first is None or first + 1 >= len(clip):
            raise InputError(f"{clip.name} shows no face; prepare it again from a clip of one")
        other = still.name != clip.name
        puppet = Puppet(self.runtime, still, other_person=other)
        camera, drawn, poses = [], [], []
        for index in range(first, min(len(clip), first + self._frames)):
            given = spoil(
                Input(clip.picture(index), priors_of(clip, index), len(clip.pcm) > 0), index - first
            )
            pose = puppet.pose(given.rgb, given.priors)
            camera.append(given.rgb)
            drawn.append(puppet.draw(pose, clip.mel(index), speech=given.speech))
            poses.append(pose)
        seen, got = np.stack(camera), np.stack(drawn)
        real = None if other else [clip.picture(first + i) for i in range(len(got))]
        farthest = max(self._farthest(still, pose) for pose in poses)
        return Run(name, seen, got, measure(seen, got, real, poses, farthest))

    @torch.no_grad()
    def _farthest(self, still: Still, pose: Keypoints) -> float:
        """The largest coordinate that the flow points to."""
        picture = torch.from_numpy(still.rgb).permute(2, 0, 1)[None].float() / 255
        small = torch.nn.functional.avg_pool2d(picture, FRAME_SIZE_PX // 64)
        source, driving = (
            (torch.from_numpy(k.values)[None], torch.from_numpy(k.jacobians)[None])
            for k in (still.keypoints, pose)
        )
        return float(self._network.dense_motion(small, source, driving).flow.abs().max())


def measure(
    camera: U8Image, drawn: U8Image, real: Sequence[U8Image] | None, poses: Sequence[Keypoints], flow: float
) -> Numbers:
    """Numbers of a run; `real` are the camera's pictures before anything was amiss."""
    theirs, ours = _changes(camera), _changes(drawn)
    determinants = np.abs(np.linalg.det(np.stack([pose.jacobians for pose in poses]).astype(np.float64)))
    return Numbers(
        psnr=None if real is None else float(np.mean([psnr(a, b) for a, b in zip(drawn, real, strict=True)])),
        change=float(ours.mean() / theirs.mean()),
        step=float(ours.max() / theirs.max()),
        flicker=flicker(drawn, camera),
        flow=flow,
        determinant=(float(determinants.min()), float(determinants.max())),
    )


def _changes(frames: U8Image) -> F32Array:
    """Mean absolute change from each frame to the next; never 0."""
    steps = np.diff(frames.astype(np.float32), axis=0)
    return np.asarray(np.maximum(np.abs(steps).mean((1, 2, 3)), 1e-6), np.float32)


def turned(landmarks: F32Array) -> float:
    """How far a head is turned: 0 from the front, 1 where the nose reaches the side of the face."""
    left, right = (float(np.linalg.norm(landmarks[NOSE] - landmarks[side])) for side in FACE_SIDES)
    return abs(left - right) / (left + right)


def moments(clip: Clip, first: int, count: int) -> list[int]:
    """Frame numbers from `first` on: widest mouth, most closed eyes, head turned farthest."""
    numbers = [i for i in range(min(COVERED_FROM, count - 1), count) if clip.landmarks(first + i).any()]
    worth: tuple[Callable[[F32Array], float], ...] = (_mouth, _eyes, turned)
    return [max(numbers, key=_at(clip, first, of)) for of in worth if numbers]


def _mouth(landmarks: F32Array) -> float:
    return openness(landmarks, UPPER_LIP, LOWER_LIP)


def _eyes(landmarks: F32Array) -> float:
    return -openness(landmarks, UPPER_LID, LOWER_LID)


def _at(clip: Clip, first: int, worth: Callable[[F32Array], float]) -> Callable[[int], float]:
    return lambda number: worth(clip.landmarks(first + number))


def strip(runs: Sequence[Run], chosen: Sequence[int]) -> U8Image:
    """A column for the camera and for each run, a line for each moment, (H, W, 3), with captions."""
    columns = [("camera", runs[0].camera)]
    for run in runs:
        if run.name in COVERS:
            columns.append((f"camera, {run.name}", run.camera))
        if "on and off" not in run.name:  # a still picture does not show it
            columns.append((run.name, run.drawn))
    return np.concatenate([_column(title, frames[list(chosen)]) for title, frames in columns], 1)


def _column(title: str, frames: U8Image) -> U8Image:
    caption = np.full((CAPTION_PX, TILE_PX, 3), 255, np.uint8)
    cv2.putText(caption, title, (3, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    tiles = [cv2.resize(frame, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA) for frame in frames]
    return np.concatenate([caption, *tiles], 0)


def degrade_clip(tester: Proving, clip: Clip, other: Clip | None) -> tuple[list[Run], U8Image]:
    """All runs of a clip, the last with the face of `other`, and the strip."""
    still = still_of(tester.runtime, clip)
    if still is None:
        raise InputError(f"{clip.name} shows no face; prepare it again from a clip of one")
    with PriorExtractor() as extractor:
        spoils = conditions(extractor)
        runs = [tester.run(name, clip, still, spoil) for name, spoil in spoils.items()]
    theirs = None if other is None else still_of(tester.runtime, other)
    if theirs is not None:
        runs.append(tester.run("other face", clip, theirs, spoils["as it is"]))
    return runs, strip(runs, moments(clip, first_face(clip) or 0, len(runs[0].drawn)))


def table(found: Sequence[Sequence[Run]]) -> Table:
    """Means over the clips, but the worst of flow and determinants."""
    rows = []
    for name in dict.fromkeys(run.name for runs in found for run in runs):
        numbers = [run.numbers for runs in found for run in runs if run.name == name]
        known = [n.psnr for n in numbers if n.psnr is not None]
        rows.append(
            (
                name,
                f"{np.mean(known):.2f}" if known else "-",
                f"{np.mean([n.change for n in numbers]):.2f}",
                f"{max(n.step for n in numbers):.2f}",
                f"{np.mean([n.flicker for n in numbers]):.4f}",
                f"{max(n.flow for n in numbers):.2f}",
                f"{min(n.determinant[0] for n in numbers):.2f}-{max(n.determinant[1] for n in numbers):.2f}",
            )
        )
    columns = ("", "PSNR dB", "change", "largest step", "flicker", "flow", "determinants")
    note = "change, largest step: from frame to frame, in multiples of the camera's. flow: at most 2."
    return Table(f"Degrading, {len(found)} clips", columns, tuple(rows), note)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m models.training.degrade")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--frames", type=int, default=75)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tester = Proving(weights_folder(options.weights), options.frames)
    clips = [Clip(path) for path in options.clips]
    found: list[list[Run]] = []
    for number, clip in enumerate(clips):
        other = clips[(number + 1) % len(clips)] if len(clips) > 1 else None
        runs, picture = degrade_clip(tester, clip, other)
        cv2.imwrite(str(options.out / f"{clip.name}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        found.append(runs)
    values = {
        clip.name: {run.name: dataclasses.asdict(run.numbers) for run in runs}
        for clip, runs in zip(clips, found, strict=True)
    }
    (options.out / "degrade.json").write_text(json.dumps(values, indent=1) + "\n")
    print_table(Console(), table(found))


if __name__ == "__main__":
    main()
