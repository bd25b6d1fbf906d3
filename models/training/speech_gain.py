"""What speech does for the mouth: clips drawn with their own speech, with another's, and without any.

    python -m models.training.speech_gain DIR [--weights DIR] [--every 5] [--motion-step N]

DIR is what `avcall prepare` filled; clips without sound are left out. Prints means over the clips, the LMD of
the lips and the PSNR of the mouth's box among them, and how far the own speech's row is from the two others,
with the standard error over the clips. Another's speech tells whether it is what is said that helps, or
only that something is.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from avcall.bitstream.motion_coded import STEPS
from avcall.types import U8Image
from models.metrics.judge import FrameJudge, Seen, compare_faces, compare_pixels
from models.metrics.tables import Table, print_table
from models.runtime import Device, ModelRuntime, weights_folder
from models.training.data import Clip, load_spoken
from models.training.drawing import Puppet, first_face, priors_of, still_of

OWN, ANOTHERS, NONE = "own", "another's", "none"
MEASURES = {
    "lmd_lips": "LMD lips %",
    "lmd": "LMD %",
    "mouth_psnr": "mouth PSNR dB",
    "mouth_ssim": "mouth SSIM",
}
Rows = dict[str, dict[str, float]]


class SpeechTest:
    """Draws and judges clips."""

    def __init__(self, weights: Path, every: int, motion_step: int | None) -> None:
        self.runtime = ModelRuntime(device=Device.CPU, weights=weights)
        self._judge = FrameJudge(perceptual=False, identity=False)
        self._every, self._step = every, motion_step

    def clip(self, clip: Clip, other: Clip) -> Rows | None:
        """Each row's mean measures; None for a clip without a face. `other` lends its speech."""
        still, first = still_of(self.runtime, clip), first_face(clip)
        if still is None or first is None:
            return None
        puppet = Puppet(self.runtime, still, other_person=False, motion_step=self._step)
        found: dict[str, list[dict[str, float]]] = {OWN: [], ANOTHERS: [], NONE: []}
        for index in range(first, len(clip))[self._every :: self._every]:
            wanted = self._see(clip.picture(index))
            if wanted.face is None:
                continue
            pose = puppet.pose(wanted.rgb, priors_of(clip, index))
            own, anothers = clip.mel(index), other.mel(index % len(other))
            for row, mel in ((OWN, own), (ANOTHERS, anothers), (NONE, own)):
                got = self._see(puppet.draw(pose, mel, speech=row != NONE))
                found[row].append(compare_pixels(got, wanted) | compare_faces(got.face, wanted.face))
        return {row: means(values) for row, values in found.items()} if found[OWN] else None

    def _see(self, rgb: U8Image) -> Seen:
        return Seen(rgb, self._judge.find_face(rgb), None)


def means(values: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each measure, over the frames that have it; none of one that no frame has."""
    return {
        key: float(np.mean(known))
        for key in MEASURES
        if (known := [one[key] for one in values if key in one])
    }


def table(clips: Sequence[Rows]) -> Table:
    """The rows, and how far the first is from each other one, ± its standard error over the clips."""
    lines = [
        (row, *(f"{np.mean(column(clips, row, key)):.3f}" for key in MEASURES))
        for row in (OWN, ANOTHERS, NONE)
    ]
    for row in (ANOTHERS, NONE):
        differences = [column(clips, OWN, key) - column(clips, row, key) for key in MEASURES]
        errors = [np.std(off, ddof=1) / len(off) ** 0.5 if len(off) > 1 else np.nan for off in differences]
        cells = [f"{off.mean():+.3f} ± {error:.3f}" for off, error in zip(differences, errors, strict=True)]
        lines.append((f"{OWN} - {row}", *cells))
    return Table(f"Speech, {len(clips)} clips", ("", *MEASURES.values()), tuple(lines))


def column(clips: Sequence[Rows], row: str, key: str) -> np.ndarray:
    """One measure of a row, of the clips that have it in all rows."""
    return np.array([clip[row][key] for clip in clips if all(key in values for values in clip.values())])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m models.training.speech_gain")
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--motion-step", type=int, choices=range(STEPS))
    options = parser.parse_args()
    spoken = load_spoken(options.data)
    test = SpeechTest(weights_folder(options.weights), options.every, options.motion_step)
    pairs = list(zip(spoken, [*spoken[1:], spoken[0]], strict=True))
    clips = [test.clip(clip, other) for clip, other in track(pairs, "clips", console=Console(stderr=True))]
    print_table(Console(), table([clip for clip in clips if clip is not None]))


if __name__ == "__main__":
    main()
