"""The tables beside prepared clips: what is done stays done, and an interrupted write does no harm."""

from pathlib import Path

import pytest

from avcall.errors import InputError
from models.training.manifest import ClipRow, Manifest, RefusedRow, VideoResult


def clip(video: str, name: str) -> ClipRow:
    return ClipRow(name, video, f"/videos/{video}.mp4", 0, 0.0, 50, 2.0, "yes", 1, 2, 300)


def refused(video: str) -> RefusedRow:
    return RefusedRow(video, f"/videos/{video}.mp4", 0.0, 2.0, "no face", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a__t0", "a__t1", "b"):
        (tmp_path / f"{name}.npz").touch()
    manifest = Manifest(tmp_path)
    manifest.add(VideoResult("a", (clip("a", "a__t0"), clip("a", "a__t1"))))
    manifest.add(VideoResult("b", (clip("b", "b"),), (refused("b"),)))
    manifest.add(VideoResult("c", (), (refused("c"),)))
    return tmp_path


def test_what_was_taken_or_refused_is_done(folder: Path) -> None:
    manifest = Manifest(folder)
    assert [manifest.done(name) for name in "abcd"] == [True, True, True, False]
    assert manifest.clips == 3


def test_a_video_whose_clip_is_gone_is_not_done_and_loses_its_rows(folder: Path) -> None:
    (folder / "a__t1.npz").unlink()
    assert not Manifest(folder).done("a")
    assert Manifest(folder).clips == 1
    assert "a__t0" not in (folder / "manifest.tsv").read_text()


def test_half_a_line_is_cut_off(folder: Path) -> None:
    path = folder / "manifest.tsv"
    whole = path.read_text()
    path.write_text(whole + "d\td\t/vid")
    assert not Manifest(folder).done("d")
    assert path.read_text() == whole


def test_a_name_with_a_tab_or_a_line_break_stays_one_cell(tmp_path: Path) -> None:
    row = RefusedRow("a", "/videos/a\tb\nc.mp4", 0.0, 0.0, "no face", "two\nlines")
    Manifest(tmp_path).add(VideoResult("a", (), (row,)))
    lines = (tmp_path / "refused.tsv").read_text().splitlines()
    assert [len(line.split("\t")) for line in lines] == [6, 6]


@pytest.mark.parametrize("content", [b"file\tidentity\nx\ty\n", b"\xff\xfe\x00"])
def test_a_table_of_something_else_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.tsv").write_bytes(content)
    with pytest.raises(InputError, match="choose another --out"):
        Manifest(tmp_path)
    assert (tmp_path / "manifest.tsv").read_bytes() == content


def test_a_full_disk_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest(folder)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match=r"No space left on device.*free some space"):
        manifest.add(VideoResult("e", (), (refused("e"),)))
