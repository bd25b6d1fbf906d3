"""Scores by visible variety: groups, their means, and what cannot be read."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from avcall.errors import InputError
from models.training.variety import (
    CHEEKS,
    ClipScores,
    groups_of,
    read_marks,
    read_report,
    skin_group,
    typology_angle,
    variety_table,
)
from tests.models.tiny import landmarks, write_prepared


def face_of(lightness: float, yellow: float) -> np.ndarray:
    """(256, 256, 3) of one CIELAB colour."""
    lab = np.full((256, 256, 3), (lightness, 0, yellow), np.float32)
    return (cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255 + 0.5).astype(np.uint8)


def cheeked() -> np.ndarray:
    points = landmarks()
    for cheek, x in zip(CHEEKS, (90, 150), strict=True):
        points[list(cheek)] = [(x, 120), (x + 16, 120), (x + 16, 136), (x, 136)]
    return points


@pytest.mark.parametrize(("lightness", "yellow"), [(70, 20), (55, 20), (40, 20)])
def test_the_angle_is_that_of_the_definition(lightness: float, yellow: float) -> None:
    expected = np.degrees(np.arctan((lightness - 50) / yellow))
    assert typology_angle(face_of(lightness, yellow), cheeked()) == pytest.approx(expected, abs=1.5)


def test_the_classes_follow_the_angle() -> None:
    assert [skin_group(angle) for angle in (50, 41, 20, 9, -40)] == [
        "skin: light",
        "skin: light",
        "skin: between",
        "skin: dark",
        "skin: dark",
    ]


def test_a_table_has_a_row_for_each_group_with_means_and_spread(tmp_path: Path) -> None:
    clips = [
        ClipScores("p1_0", {"psnr": 24.0, "lmd": 1.0}, 4.0),
        ClipScores("p1_1", {"psnr": 26.0}, 6.0),
        ClipScores("p2_0", {"psnr": 20.0, "lmd": 3.0}, 2.0),
    ]
    for clip in clips:
        write_prepared(tmp_path / f"{clip.name}.npz")
    groups = groups_of(clips, tmp_path, {"p2_0": {"glasses"}})
    assert [clip.name for clip in groups["no glasses"]] == ["p1_0", "p1_1"]
    rows = {row[0]: row[1:] for row in variety_table(groups).rows}
    assert rows["all"][:4] == ("3", "2", "+4.00 ± 1.15", "23.33")
    assert rows["all"][5] == "2.00"
    assert rows["glasses"][:3] == ("1", "1", "+2.00")
    assert rows["no glasses"][2] == "+5.00 ± 1.00"
    assert sum(int(row[0]) for name, row in rows.items() if name.startswith("skin")) == 3


def test_report_and_marks_are_read(tmp_path: Path) -> None:
    rows = {"with speech": {"psnr": 24.0, "lmd": None}, "keyframe unmoved": {"psnr": 20.0}}
    report = {"reports": [{"same": {"clips": [{"name": "p1_0", "rows": rows}]}}]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert read_report(tmp_path / "report.json") == [ClipScores("p1_0", {"psnr": 24.0}, 4.0)]
    (tmp_path / "marks.tsv").write_text("p1_0\tglasses\thair-long\n\np2_0\n")
    assert read_marks(tmp_path / "marks.tsv") == {"p1_0": {"glasses", "hair-long"}, "p2_0": set()}


@pytest.mark.parametrize("text", ["", "[]", '{"reports": []}', '{"reports": [{"same": {"clips": [{}]}}]}'])
def test_what_is_no_report_is_said_in_a_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is no report of avcall evaluate") as caught:
        read_report(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_marks(tmp_path / "none.tsv")
