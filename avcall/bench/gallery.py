"""The pictures of one clip for the report: its strip and its film, decoded from the stored bytes."""

from collections.abc import Sequence
from pathlib import Path

from avcall.bench.clip import Clip
from avcall.bench.pictures import Row, as_jpeg, strip, write_film
from avcall.bench.plan import Plan
from avcall.bench.store import Point, Role, Store
from avcall.errors import RecordingError
from avcall.types import U8Image

PREFERRED = "h266-lowdelay"  # the anchor that a call could use


def strip_path(out: Path, clip: str) -> Path:
    """Where the strip of a clip lies."""
    return out / "strips" / f"{clip}.jpg"


def film_path(out: Path, clip: str) -> Path:
    """Where the film of a clip lies."""
    return out / "films" / f"{clip}.mp4"


def show_clip(
    clip: Clip, plan: Plan, store: Store, *, points: Sequence[Point], cross: Sequence[Point]
) -> None:
    """Write strip and film of what there is: original | avcall | the anchor at its bits | the photo.

    Raises RecordingError when they cannot be written.
    """
    out = store.out
    rows = [Row("original", clip.frames), *_decoded(plan, store, points), *_photo(plan, store, cross)]
    try:
        for path in (strip_path(out, clip.name), film_path(out, clip.name)):
            path.parent.mkdir(parents=True, exist_ok=True)
        strip_path(out, clip.name).write_bytes(as_jpeg(strip(rows)))
    except OSError as error:
        raise RecordingError(f"{out} cannot be written ({error.strerror}); free some space") from None
    write_film(film_path(out, clip.name), rows, clip)


def row_titles(points: Sequence[Point], default: tuple[str, str] | None, *, cross: bool) -> list[str]:
    """What the lines of a strip are, from top to bottom."""
    titles = ["original"]
    ours = _default_point(points, default)
    if ours is not None:
        titles.append(f"{ours.codec}, {ours.rates.video.kbps:.1f} kbit/s of picture")
    theirs = _matched_point(points)
    if theirs is not None:
        titles.append(f"{theirs.codec}, {theirs.rates.video.kbps:.1f} kbit/s of picture")
    return titles + ["the photo, driven"] * cross


def _decoded(plan: Plan, store: Store, points: Sequence[Point]) -> list[Row]:
    rows: list[Row] = []
    default = plan.default
    ours = _default_point(points, (default.name, default.setting) if default else None)
    if ours is not None and default is not None:
        rows.append(Row(ours.codec, default.decode(store.data(ours)).frames))
    theirs = _matched_point(points)
    if theirs is not None and theirs.quality is not None:
        steered = next(one for one in plan.steered if one.anchor.name == theirs.codec)
        rows.append(Row(theirs.codec, steered.codec(theirs.quality).decode(store.data(theirs)).frames))
    return rows


def _photo(plan: Plan, store: Store, cross: Sequence[Point]) -> list[Row]:
    if plan.cross is None:
        return []
    driven = next((p for p in cross if p.setting == plan.cross.setting), None)
    if driven is None:
        return []
    frames: U8Image = plan.cross.decode(store.data(driven)).frames
    return [Row(driven.codec, frames)]


def _default_point(points: Sequence[Point], default: tuple[str, str] | None) -> Point | None:
    return next((p for p in points if (p.codec, p.setting) == default and p.role is Role.CURVE), None)


def _matched_point(points: Sequence[Point]) -> Point | None:
    found = [point for point in points if point.role is Role.MATCHED]
    preferred = [point for point in found if point.codec == PREFERRED]
    return next(iter(preferred + found), None)
