"""Results on disk, one file a point, so that an interrupted run goes on where it was.

A point carries a fingerprint of everything that decides it: the clip's content, the codec with its options,
version and weights, and how it was scored. A stored point with another fingerprint is not used.

    OUT/points/CLIP/CODEC-SETTING.json   the point
    OUT/points/CLIP/CODEC-SETTING.bin    what `decode` gets
    OUT/points/CLIP/CODEC-SETTING.npz    the features by which sets of clips are compared
"""

import dataclasses
import hashlib
import importlib.util
import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from avcall.bench.rates import Rates, rates_of
from avcall.bench.score import Scored
from avcall.errors import RecordingError
from avcall.stats import Bill
from models.metrics.measures import Scores
from models.metrics.sets import Features

DECIDING = (
    *("avcall.bench", "avcall.bitstream", "avcall.transport"),
    *("models", "models.metrics", "receiver", "sender"),
)
PRESENTING = (
    *("charts", "gallery", "pictures", "report", "results", "runner", "tables", "verdict", "rd"),
    *("machine", "speed", "speed_report"),
)


class Role(Enum):
    """Why a point was measured."""

    CURVE = "curve"  # a point of its codec's rate-distortion curve
    MATCHED = "matched"  # an anchor at the rate of avcall's default
    STILL = "still"  # the keyframe shown unmoved


@dataclass(frozen=True, slots=True)
class Point:
    """One codec at one setting on one clip.

    `quality` is what an encoder was steered by, None where that is not a number. `off_target` is how far a
    matched point is from the rate that it should have, as a share of it.
    """

    clip: str
    codec: str
    setting: str
    role: Role
    bill: Bill
    scores: Scores
    command: str
    encode_s: float
    frames: int
    held: int
    quality: float | None = None
    off_target: float | None = None

    @property
    def rates(self) -> Rates:
        """Every accounting of what it cost."""
        return rates_of(self.bill)

    @property
    def encode_fps(self) -> float:
        """Frames a second that the encoder made on one core."""
        return self.frames / self.encode_s if self.encode_s > 0 else 0.0


class Store:
    """The folder of a run's points."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._folder = out / "points"

    def load(self, clip: str, codec: str, setting: str, fingerprint: str) -> Point | None:
        """A stored point, or None when there is none that fits."""
        try:
            path = self._path(clip, codec, setting, ".json")
            stored = json.loads(path.read_text())
            if stored.pop("fingerprint") != fingerprint or not path.with_suffix(".npz").is_file():
                return None
            return Point(
                **stored
                | {
                    "role": Role(stored["role"]),
                    "bill": Bill(**stored["bill"]),
                    "scores": Scores(**stored["scores"]),
                }
            )
        except (OSError, ValueError, KeyError, TypeError):  # missing, cut short, or of an older layout
            return None

    def save(self, point: Point, fingerprint: str, data: bytes, scored: Scored) -> None:
        """Keep a point; the JSON comes last, so that what is there is whole. Raises RecordingError."""
        path = self._path(point.clip, point.codec, point.setting, ".json")
        values = dataclasses.asdict(point) | {"role": point.role.value, "fingerprint": fingerprint}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".bin").write_bytes(data)
            _write_arrays(path.with_suffix(".npz"), scored.features)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(values, indent=1) + "\n")
            part.replace(path)
        except OSError as error:
            raise RecordingError(
                f"{path} cannot be written ({error.strerror}); free some space and run again"
            ) from None

    def data(self, point: Point) -> bytes:
        """The coded bytes of a stored point."""
        return self._path(point.clip, point.codec, point.setting, ".bin").read_bytes()

    def features(self, point: Point) -> Features:
        """The features of a stored point."""
        return _read_arrays(self._path(point.clip, point.codec, point.setting, ".npz"))

    def has_original(self, clip: str, fingerprint: str) -> bool:
        """Whether the original's own features are kept under this fingerprint."""
        return (self._folder / clip / f"original-{fingerprint}.npz").is_file()

    def save_original(self, clip: str, fingerprint: str, features: Features) -> None:
        """Keep the original's own features, and no older ones. Raises RecordingError."""
        folder = self._folder / clip
        for stale in folder.glob("original-*.npz"):
            stale.unlink()
        _write_arrays(folder / f"original-{fingerprint}.npz", features)

    def original(self, clip: str) -> Features:
        """The features of the clip's own pictures."""
        return _read_arrays(next((self._folder / clip).glob("original-*.npz")))

    def _path(self, clip: str, codec: str, setting: str, suffix: str) -> Path:
        name = f"{codec}-{setting}".replace("/", "_").replace(".", "p")  # a dot would start a suffix
        return self._folder / clip / f"{name}{suffix}"


def code_digest() -> str:
    """A name for the code that decides a point: both ends of a call, the codecs and the measures."""
    content = hashlib.sha256()
    for package in DECIDING:
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(folder).glob("*.py")):
                if package != "avcall.bench" or path.stem not in PRESENTING:
                    content.update(path.read_bytes())
    return content.hexdigest()[:32]


def fingerprint_of(**parts: Any) -> str:
    """A short name for everything in `parts`."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _write_arrays(path: Path, features: Features) -> None:
    arrays = {"effnet": features.effnet.astype(np.float32)}
    if features.inception is not None:
        arrays["inception"] = features.inception.astype(np.float32)
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _read_arrays(path: Path) -> Features:
    with np.load(path) as arrays:
        return Features(arrays["effnet"], arrays.get("inception"))
