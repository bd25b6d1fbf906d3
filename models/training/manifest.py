"""What `avcall prepare` keeps beside its clips: manifest.tsv and refused.tsv, by which it also resumes."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avcall.errors import InputError

MANIFEST_NAME = "manifest.tsv"
REFUSED_NAME = "refused.tsv"


@dataclass(frozen=True, slots=True)
class ClipRow:
    """A prepared clip: file name without suffix, where it comes from, and where it lies there.

    `left_px`, `top_px` and `side_px` are its square in the source's frames.
    """

    clip: str
    video: str
    source: str
    track: int
    start_s: float
    frames: int
    seconds: float
    sound: str
    left_px: int
    top_px: int
    side_px: int


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A video, or a stretch of it, that gave no clip, and why. `seconds` is 0 where nothing could be read."""

    video: str
    source: str
    start_s: float
    seconds: float
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class VideoResult:
    """What became of one video."""

    video: str
    clips: tuple[ClipRow, ...] = ()
    refused: tuple[RefusedRow, ...] = ()


class Manifest:
    """The two tables of a folder of prepared clips. Raises InputError when they cannot be read or written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tables: dict[Path, type[ClipRow | RefusedRow]] = {
            folder / MANIFEST_NAME: ClipRow,
            folder / REFUSED_NAME: RefusedRow,
        }
        rows = {path: _read(path, kind) for path, kind in tables.items()}
        taken = rows[folder / MANIFEST_NAME]
        lost = {row["video"] for row in taken if not (folder / f"{row['clip']}.npz").exists()}
        for path, kind in tables.items():
            rows[path], before = [row for row in rows[path] if row["video"] not in lost], rows[path]
            if rows[path] != before:  # it will be prepared again
                path.unlink()
                _append(path, kind, [list(row.values()) for row in rows[path]])
        self._done = {row["video"] for path in rows for row in rows[path]}
        self.clips = len(rows[folder / MANIFEST_NAME])

    def done(self, video: str) -> bool:
        """Whether a video was prepared or refused already, and what it gave is still there."""
        return video in self._done

    def add(self, result: VideoResult) -> None:
        """Record what became of a video."""
        for rows in (result.clips, result.refused):
            if rows:
                path = self.folder / (MANIFEST_NAME if isinstance(rows[0], ClipRow) else REFUSED_NAME)
                _append(path, type(rows[0]), [list(map(_plain, dataclasses.astuple(row))) for row in rows])
        self.clips += len(result.clips)


def _header(kind: type[ClipRow | RefusedRow]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _read(path: Path, kind: type[ClipRow | RefusedRow]) -> list[dict[str, str]]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); choose another --out") from None
    whole = text[: text.rfind("\n") + 1]
    if whole != text:  # an interrupted write
        path.write_text(whole)
    rows = list(csv.DictReader(io.StringIO(whole), delimiter="\t"))
    if whole and (whole.partition("\n")[0].split("\t") != _header(kind)):
        raise InputError(f"{path} is not a table of avcall prepare; choose another --out")
    return rows


def _append(path: Path, kind: type[ClipRow | RefusedRow], rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    if not path.exists() or not path.stat().st_size:
        table.writerow(_header(kind))
    table.writerows(rows)
    try:
        with path.open("a") as file:
            file.write(text.getvalue())
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); free some space and prepare again: "
            "what is done is kept"
        ) from None


def _plain(value: object) -> object:
    """A cell of one line: tabs and line breaks in a file's name become spaces."""
    return " ".join(value.split()) if isinstance(value, str) and not value.isprintable() else value
