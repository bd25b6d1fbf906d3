"""What an evaluation found, and how it reads: JSON, and tables in the layout of the paper."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from models.metrics.measures import CROSS_IDENTITY, SAME_IDENTITY, Scores
from models.metrics.tables import Table, as_markdown, scores_table

SCHEMA = 2
PARTS = {
    part: tuple(f"{part}_{name}" for name in ("l1", "psnr", "ssim", "lpips")) for part in ("face", "mouth")
}
LANDMARKS = ("lmd", "lmd_lips", "lmd_eyelids", "face_lost")
SWITCHES = {
    "structural_prior": "structural prior",
    "audio_prior": "audio prior",
    "identity_aware": "identity-aware generator",
}
CROSS_NOTE = (
    "FD-EffNet and FID against the driver's own pictures, AED against the keyframe, LMD of the way that the "
    "landmarks went since the first frame."
)


class Row(Enum):
    """What is compared with the frame that the camera saw."""

    SPEECH = "with speech"
    SILENT = "without speech"
    UNMOVED = "keyframe unmoved"


@dataclass(frozen=True, slots=True)
class ClipReport:
    """One clip: whose still it moved, how many frames were judged, and the mean scores by row."""

    name: str
    still: str
    frames: int
    rows: dict[str, Scores]


@dataclass(frozen=True, slots=True)
class Block:
    """One protocol: scores by row over all clips, and every clip."""

    rows: dict[str, Scores]
    clips: tuple[ClipReport, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """One weights folder. `record` is what the weights say about themselves, `provider` what drew them.

    Motion was coded with `motion_step`, a quantiser's, and keyframes in `keyframe_bytes`, or not at all.
    """

    label: str
    weights: str
    record: dict[str, object]
    provider: str
    every: int
    seconds: float | None
    same: Block
    cross: Block | None
    not_computed: tuple[str, ...]
    motion_step: int | None = None
    keyframe_bytes: int | None = None


def label_of(config: dict[str, Any]) -> str:
    """A weights folder by what its configuration switches off, as the rows of the paper's Table 3."""
    off = [words for switch, words in SWITCHES.items() if config.get(switch) is False]
    return f"without {', '.join(off)}" if off else f"{config.get('name', 'weights')}, complete"


def distinct(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """Labels of several folders; those that repeat are told apart by the folder's name."""
    return [
        f"{label} ({name})" if labels.count(label) > 1 else label
        for label, name in zip(labels, names, strict=True)
    ]


def to_json(reports: Sequence[Report]) -> str:
    """Everything, as a file holds it."""
    whole = {"schema": SCHEMA, "reports": [dataclasses.asdict(report) for report in reports]}
    return json.dumps(whole, indent=1) + "\n"


def tables_of(report: Report) -> list[Table]:
    """One folder: the columns of the paper's Table 1 by protocol, then the regions."""
    same = list(report.same.rows.items())
    part = "" if report.seconds is None else f", {report.seconds:g} s a clip"
    part += "" if report.motion_step is None else f", motion coded with step {report.motion_step}"
    part += "" if report.keyframe_bytes is None else f", keyframes of at most {report.keyframe_bytes} bytes"
    tables = [
        scores_table(f"Same identity{part} (the first frame is the keyframe)", same, SAME_IDENTITY),
        *(scores_table(f"Same identity: the {part}'s box", same, keys) for part, keys in PARTS.items()),
        scores_table("Same identity: landmarks", same, LANDMARKS),
    ]
    if report.cross is not None:
        rows = list(report.cross.rows.items())
        tables.append(
            scores_table("Cross-identity (another person's keyframe)", rows, CROSS_IDENTITY, CROSS_NOTE)
        )
    return tables


def ablation_tables(reports: Sequence[Report]) -> list[Table]:
    """Several folders, a row each, and the unmoved keyframe, in the layout of the paper's Table 3."""
    same = _by_report(reports, [report.same for report in reports])
    regions = ("mouth_psnr", "mouth_lpips", "lmd_lips", "lmd_eyelids", "face_lost")
    tables = [
        scores_table("Ablation, same identity", same, SAME_IDENTITY),
        scores_table("Ablation, same identity: mouth and eyes", same, regions),
    ]
    crosses = [report.cross for report in reports if report.cross is not None]
    if len(crosses) == len(reports):
        rows = _by_report(reports, crosses)
        tables.append(scores_table("Ablation, cross-identity", rows, CROSS_IDENTITY, CROSS_NOTE))
    return tables


def all_tables(reports: Sequence[Report]) -> list[Table]:
    """Those of one folder, or the ablation of several; none without a measure."""
    tables = tables_of(reports[0]) if len(reports) == 1 else ablation_tables(reports)
    return [table for table in tables if len(table.columns) > 1]


def to_markdown(reports: Sequence[Report]) -> str:
    """All tables, and what was not computed."""
    parts = [as_markdown(table) for table in all_tables(reports)]
    missing = [f"Not computed: {reason}." for reason in reports[0].not_computed]
    return "\n".join([*parts, *missing]).rstrip("\n") + "\n"


def _by_report(reports: Sequence[Report], blocks: Sequence[Block]) -> list[tuple[str, Scores]]:
    rows = [
        (report.label, block.rows[Row.SPEECH.value]) for report, block in zip(reports, blocks, strict=True)
    ]
    return [*rows, (Row.UNMOVED.value, blocks[0].rows[Row.UNMOVED.value])]
