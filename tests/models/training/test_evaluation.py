"""How an evaluation reads."""

import dataclasses
import json

from models.metrics.measures import Scores
from models.training.evaluation import (
    Block,
    ClipReport,
    Report,
    Row,
    all_tables,
    distinct,
    label_of,
    to_json,
    to_markdown,
)


def report(label: str = "live, complete", psnr: float = 24.0, *, cross: bool = True) -> Report:
    rows = {
        "with speech": Scores(psnr=psnr, lmd=1.0, mouth_psnr=20.0, face_lost=0.0),
        "without speech": Scores(psnr=psnr - 1, lmd=1.5, mouth_psnr=19.0, face_lost=0.0),
        "keyframe unmoved": Scores(psnr=19.0, lmd=10.0, mouth_psnr=15.0, face_lost=0.0),
    }
    same = Block(rows, (ClipReport("a", "a", 3, rows),))
    crossed = Block({row.value: Scores(aed=0.5) for row in Row}, ()) if cross else None
    return Report(label, "folder", {}, "CPU", 5, None, same, crossed, ("FID: no --inception file",))


def test_a_folder_is_named_by_what_it_switches_off() -> None:
    assert label_of({"name": "live", "audio_prior": True}) == "live, complete"
    off = {"name": "live", "structural_prior": False, "audio_prior": False, "identity_aware": True}
    assert label_of(off) == "without structural prior, audio prior"
    assert distinct(["x", "y", "x"], ["a", "b", "c"]) == ["x (a)", "y", "x (c)"]


def test_one_folder_has_a_block_for_each_protocol_with_the_unmoved_keyframe() -> None:
    same, mouth, points, cross = all_tables([report()])  # nothing was measured in the face's box
    assert same.columns == ("", "PSNR ↑", "LMD % ↓")
    assert [row[0] for row in same.rows] == ["with speech", "without speech", "keyframe unmoved"]
    assert same.rows[2] == ("keyframe unmoved", "19.00", "10.00")
    assert mouth.columns == ("", "mouth PSNR ↑")
    assert points.columns == ("", "LMD % ↓", "faces lost ↓")
    assert cross.columns == ("", "AED ↓")
    assert len(all_tables([report(cross=False)])) == 3


def test_a_table_of_the_beginning_of_clips_says_so() -> None:
    (table, *_) = all_tables([dataclasses.replace(report(), seconds=4.0)])
    assert table.title == "Same identity, 4 s a clip (the first frame is the keyframe)"


def test_several_folders_are_rows_of_one_table() -> None:
    reports = [report(), report("without audio prior", 22.0)]
    same, mouth, cross = all_tables(reports)
    assert [row[:2] for row in same.rows] == [
        ("live, complete", "24.00"),
        ("without audio prior", "22.00"),
        ("keyframe unmoved", "19.00"),
    ]
    assert mouth.columns[1] == "mouth PSNR ↑"
    assert len(cross.rows) == 3
    assert len(all_tables([report(), report(cross=False)])) == 2


def test_files_hold_all_of_it() -> None:
    stored = json.loads(to_json([report()]))
    assert stored["reports"][0]["same"]["rows"]["keyframe unmoved"]["psnr"] == 19.0
    assert stored["reports"][0]["same"]["clips"][0]["name"] == "a"
    text = to_markdown([report()])
    assert "| keyframe unmoved | 19.00 | 10.00 |" in text
    assert "Not computed: FID: no --inception file." in text
