"""How well the weights serve the visible variety of the evaluation clips: a first look for bias.

    python -m models.training.variety REPORT DATA [--marks TABLE]

REPORT is the report.json of `avcall evaluate`, DATA the folder that it judged, TABLE a file of what was seen
by eye, a line a clip: its name, then words (glasses, long hair), separated by tabs. Skin is measured: the
individual typology angle (Chardon et al. 1991) of the cheeks in the keyframe. Light and camera change it as
much as the person does: it says how the face looks in the picture, and nothing about anyone's origin.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from avcall.errors import InputError
from avcall.types import F32Array, U8Image
from models.metrics.tables import Table, as_markdown
from models.training.data import Clip
from models.training.drawing import first_face

CHEEKS = ((50, 101, 36, 205), (280, 330, 266, 425))  # landmarks around each
LIGHT_DEGREES, DARK_DEGREES = 41.0, 10.0  # classes of the angle: light or lighter, tan or darker
MEASURES = (
    ("psnr", "PSNR dB"),
    ("mouth_psnr", "mouth PSNR dB"),
    ("lmd", "LMD %"),
    ("lmd_eyelids", "eyelids %"),
)
DRAWN, STILL = "with speech", "keyframe unmoved"


@dataclass(frozen=True, slots=True)
class ClipScores:
    """One clip: the scores of the drawn row, and by how much its PSNR exceeds the unmoved keyframe's."""

    name: str
    scores: dict[str, float]
    gain_db: float

    @property
    def person(self) -> str:
        """A clip's name up to its number."""
        return self.name.split("_")[0]


def typology_angle(rgb: U8Image, landmarks: F32Array) -> float:
    """Individual typology angle of the cheeks in degrees: above 41 light, below 10 dark."""
    canvas = np.zeros(rgb.shape[:2], np.uint8)
    for cheek in CHEEKS:
        cv2.fillConvexPoly(canvas, cv2.convexHull(landmarks[list(cheek)].astype(np.int32)), 1)
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[canvas > 0]
    lightness, _, yellow = np.median(lab, 0)
    return float(np.degrees(np.arctan2(lightness - 50, yellow)))


def skin_group(degrees: float) -> str:
    """The class of an angle."""
    if degrees >= LIGHT_DEGREES:
        return "skin: light"
    return "skin: dark" if degrees < DARK_DEGREES else "skin: between"


def read_report(path: Path) -> list[ClipScores]:
    """The clips of the first weights folder of a report. Raises InputError."""
    try:
        clips: list[dict[str, Any]] = json.loads(path.read_text())["reports"][0]["same"]["clips"]
        return [
            ClipScores(
                clip["name"],
                {key: value for key, value in clip["rows"][DRAWN].items() if value is not None},
                clip["rows"][DRAWN]["psnr"] - clip["rows"][STILL]["psnr"],
            )
            for clip in clips
        ]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path} is no report of avcall evaluate ({error!r})") from None


def read_marks(path: Path) -> dict[str, set[str]]:
    """Words by clip. Raises InputError."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    return {name: set(words) for name, *words in (line.split("\t") for line in lines if line.strip())}


def groups_of(clips: list[ClipScores], data: Path, marks: dict[str, set[str]]) -> dict[str, list[ClipScores]]:
    """Clips by group: all, skin, and each mark with its absence."""
    groups: dict[str, list[ClipScores]] = defaultdict(list, {"all": list(clips)})
    words = sorted(set().union(*marks.values())) if marks else []
    for clip in clips:
        prepared = Clip(data / f"{clip.name}.npz")
        first = first_face(prepared)
        if first is not None:
            angle = typology_angle(prepared.picture(first), prepared.landmarks(first))
            groups[skin_group(angle)].append(clip)
        for word in words:
            has = word in marks.get(clip.name, set())
            groups[word if has else f"no {word}"].append(clip)
    return groups


def variety_table(groups: dict[str, list[ClipScores]]) -> Table:
    """A row a group: how many clips and people, the mean gain with its standard error, and the means."""
    rows = []
    for name, clips in sorted(
        groups.items(), key=lambda item: (item[0] != "all", item[0].removeprefix("no "))
    ):
        gains = np.array([clip.gain_db for clip in clips])
        spread = f" ± {gains.std(ddof=1) / np.sqrt(len(gains)):.2f}" if len(gains) > 1 else ""
        means = [
            f"{np.mean(found):.2f}" if (found := [c.scores[key] for c in clips if key in c.scores]) else "-"
            for key, _ in MEASURES
        ]
        people = len({clip.person for clip in clips})
        rows.append((name, str(len(clips)), str(people), f"{gains.mean():+.2f}{spread}", *means))
    titles = tuple(title for _, title in MEASURES)
    return Table("Visible variety", ("", "clips", "people", "over unmoved, dB", *titles), tuple(rows))


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--marks", type=Path)
    options = parser.parse_args()
    marks = {} if options.marks is None else read_marks(options.marks)
    groups = groups_of(read_report(options.report), options.data, marks)
    Console(width=200).print(as_markdown(variety_table(groups)), highlight=False, markup=False)


if __name__ == "__main__":
    main()
