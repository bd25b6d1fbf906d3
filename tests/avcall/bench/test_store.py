"""What is kept on disk, and what is not trusted."""

from pathlib import Path

import numpy as np
import pytest

from avcall.bench.score import Scored
from avcall.bench.store import Point, Store, code_digest, fingerprint_of
from avcall.errors import RecordingError
from models.metrics.measures import Scores
from models.metrics.sets import Features
from tests.bench_fakes import make_point


def scored(point: Point, *, inception: bool = False) -> Scored:
    effnet = np.arange(12, dtype=np.float32).reshape(3, 4)
    return Scored(point.scores, Features(effnet, effnet * 2 if inception else None))


def test_a_point_comes_back_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    point = make_point("h266", 12.0, 30.0, quality=44.6, setting="q44.6", off_target=-0.01)
    store.save(point, "f", b"bits", scored(point, inception=True))
    assert store.load("clip", "h266", "q44.6", "f") == point
    assert store.data(point) == b"bits"
    features = store.features(point)
    assert features.effnet.tolist() == scored(point).features.effnet.tolist()
    assert features.inception is not None and features.inception[2, 3] == 22


def test_settings_with_a_dot_do_not_collide(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for setting, psnr in (("q44.2", 30.0), ("q44.6", 31.0)):
        point = make_point("h266", 12.0, psnr, setting=setting)
        store.save(point, "f", setting.encode(), scored(point))
    loaded = store.load("clip", "h266", "q44.2", "f")
    assert loaded is not None and loaded.scores == Scores(psnr=30.0)
    assert store.data(loaded) == b"q44.2"


@pytest.mark.parametrize("damage", ["fingerprint", "json", "features", "field", "missing"])
def test_what_does_not_fit_is_not_used(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    point = make_point("h266", 12.0, 30.0)
    store.save(point, "f", b"bits", scored(point))
    path = tmp_path / "points" / "clip" / "h266-12.json"
    if damage == "json":
        path.write_text(path.read_text()[:50])
    elif damage == "features":
        path.with_suffix(".npz").unlink()
    elif damage == "field":
        path.write_text(path.read_text().replace('"held"', '"kept"'))
    elif damage == "missing":
        path.unlink()
    fingerprint = "g" if damage == "fingerprint" else "f"
    assert store.load("clip", "h266", "12", fingerprint) is None


def test_originals_of_an_older_run_are_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "points" / "clip").mkdir(parents=True)
    for value, fingerprint in ((1.0, "old"), (2.0, "new")):
        features = np.full((2, 2), value, np.float32)
        store.save_original("clip", fingerprint, Features(features, None))
    assert store.has_original("clip", "new") and not store.has_original("clip", "old")
    assert store.original("clip").effnet[0, 0] == 2.0


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "points").write_text("a file where the folder should be")
    point = make_point("h266", 12.0, 30.0)
    with pytest.raises(RecordingError, match="cannot be written"):
        Store(tmp_path).save(point, "f", b"bits", scored(point))


def test_fingerprints_tell_everything_apart() -> None:
    assert fingerprint_of(a=1, b=2) == fingerprint_of(b=2, a=1) != fingerprint_of(a=1, b=3)
    assert len(code_digest()) == 32 and code_digest() == code_digest()
