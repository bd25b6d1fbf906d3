"""One clip through every codec: encode, decode, score, keep; then the anchors once more at avcall's rate."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from avcall.bench.clip import Clip
from avcall.bench.codec import Codec, Coded, Decoded
from avcall.bench.cross import CrossJudge
from avcall.bench.gallery import film_path, show_clip, strip_path
from avcall.bench.matching import Tried, match_rate, sweep
from avcall.bench.plan import Plan, Steered
from avcall.bench.score import Judge, Reference, Scored
from avcall.bench.still import StillCodecRow
from avcall.bench.store import Point, Role, Store, fingerprint_of
from avcall.errors import AvcallError

MATCHED = "matched"  # the setting under which an anchor at avcall's rate is kept
WHOLE_CLIP = "all of it"


@dataclass(frozen=True, slots=True)
class Omission:
    """Something that was asked for and is not in the report."""

    clip: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class ClipResult:
    """All points of a clip; `cross` are those of the photo."""

    clip: str
    frames: int
    digest: str
    remark: str
    points: tuple[Point, ...]
    cross: tuple[Point, ...]
    omissions: tuple[Omission, ...]


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every clip of a run is measured with. `scoring` names how points are scored."""

    plan: Plan
    judge: Judge
    store: Store
    scoring: str
    cross: CrossJudge | None = None


class ClipMeasurement:
    """Measures one clip with a pool of threads; each point is read from the store if it is there."""

    def __init__(self, clip: Clip, work: Workshop, on_point: Callable[[], object]) -> None:
        """`on_point` is called after each point."""
        self._clip, self._on_point = clip, on_point
        self._plan, self._judge, self._store = work.plan, work.judge, work.store
        self._scoring, self._cross = work.scoring, work.cross
        self._lock = threading.Lock()
        self._reference: Reference | None = None
        self._omissions: list[Omission] = []
        self._fresh = False  # whether a point was measured rather than read

    def run(self, pool: ThreadPoolExecutor) -> ClipResult:
        """Everything; what fails is left out and named."""
        sweeps = [(one, pool.submit(self._sweep, one)) for one in self._plan.steered]
        crossed = pool.submit(self._cross_points) if self._cross is not None else None
        fixed = [pool.submit(self._fixed, codec) for codec in self._plan.fixed]
        points = [point for future in fixed if (point := future.result()) is not None]
        curves = [(steered, future.result()) for steered, future in sweeps]
        points += [point for _, curve in curves for point in curve]
        points += self._matched_points(pool, curves, points)
        self._keep_original()
        crosses = crossed.result() if crossed is not None else []
        self._show(points, crosses)
        return ClipResult(
            self._clip.name,
            len(self._clip.crops),
            self._clip.digest,
            self._clip.remark,
            tuple(points),
            tuple(crosses),
            tuple(self._omissions),
        )

    def _show(self, points: list[Point], crosses: list[Point]) -> None:
        """Strip and film, unless they are there and nothing has changed."""
        out = self._store.out
        there = strip_path(out, self._clip.name).is_file() and film_path(out, self._clip.name).is_file()
        if not there or self._fresh:
            show_clip(self._clip, self._plan, self._store, points=points, cross=crosses)

    def _fixed(self, codec: Codec) -> Point | None:
        role = Role.STILL if codec.name == StillCodecRow.name else Role.CURVE
        try:
            return self._point(codec, role)
        except AvcallError as error:
            self._omit(f"{codec.name} {codec.setting}", error)
            return None

    def _sweep(self, steered: Steered) -> list[Point]:
        """The curve of one encoder, as far as it goes."""
        anchor = steered.anchor
        points: list[Point] = []

        def rate_at(quality: float) -> float:
            points.append(self._point(steered.codec(quality), Role.CURVE, quality=quality))
            return points[-1].rates.video.kbps

        try:
            for _ in sweep(anchor.qualities, rate_at):
                pass
        except AvcallError as error:
            self._omit(f"{anchor.name}: the rest of the sweep", error)
        return points

    def _matched_points(
        self, pool: ThreadPoolExecutor, curves: list[tuple[Steered, list[Point]]], points: list[Point]
    ) -> list[Point]:
        """Every anchor at the rate of avcall's default, where both are there."""
        default = self._plan.default
        target = next(
            (p for p in points if default and (p.codec, p.setting) == (default.name, default.setting)),
            None,
        )
        if target is None:
            return []
        kbps = target.rates.video.kbps
        futures: list[Future[Point | None]] = [
            pool.submit(self._matched, steered, curve, kbps) for steered, curve in curves if curve
        ]
        return [point for future in futures if (point := future.result()) is not None]

    def _matched(self, steered: Steered, curve: list[Point], target_kbps: float) -> Point | None:
        coded: dict[float, Coded] = {}

        def rate_at(quality: float) -> float:
            coded[quality] = steered.codec(quality).encode(self._clip)
            bill = coded[quality].bill
            return bill.kbps(bill.motion_bytes + bill.keyframe_bytes)

        fingerprint = self._fingerprint(steered.codec(0.0), target_kbps=round(target_kbps, 6))
        kept = self._store.load(self._clip.name, steered.anchor.name, MATCHED, fingerprint)
        if kept is not None:
            self._on_point()
            return kept
        known = [Tried(p.quality, p.rates.video.kbps) for p in curve if p.quality is not None]
        try:
            found = match_rate(target_kbps, known, steered.anchor.qualities[-1], rate_at)
            codec = steered.codec(found.quality)
            result = coded.get(found.quality) or codec.encode(self._clip)
            return self._finish(
                codec,
                result,
                fingerprint,
                Role.MATCHED,
                setting=MATCHED,
                quality=found.quality,
                off_target=found.kbps / target_kbps - 1,
            )
        except AvcallError as error:
            self._omit(f"{steered.anchor.name} at avcall's rate", error)
            return None

    def _point(self, codec: Codec, role: Role, quality: float | None = None) -> Point:
        """One codec at one setting, from the store or measured now."""
        fingerprint = self._fingerprint(codec)
        kept = self._store.load(self._clip.name, codec.name, codec.setting, fingerprint)
        if kept is not None:
            self._on_point()
            return replace(kept, role=role)
        return self._finish(codec, codec.encode(self._clip), fingerprint, role, quality=quality)

    def _finish(
        self,
        codec: Codec,
        coded: Coded,
        fingerprint: str,
        role: Role,
        *,
        setting: str | None = None,
        quality: float | None = None,
        off_target: float | None = None,
    ) -> Point:
        """Decode from the bytes, score and keep."""
        self._fresh = True
        decoded = codec.decode(coded.data)
        if len(decoded.frames) != len(self._clip.crops):
            raise AvcallError(
                f"{codec.name} {codec.setting}: {len(decoded.frames)} frames came back of "
                f"{len(self._clip.crops)}"
            )
        scored = self._judge.score(self._original(), decoded.frames)
        point = self._as_point(codec, coded, decoded, scored, role)
        point = replace(point, setting=setting or codec.setting, quality=quality, off_target=off_target)
        self._store.save(point, fingerprint, coded.data, scored)
        self._on_point()
        return point

    def _as_point(self, codec: Codec, coded: Coded, decoded: Decoded, scored: Scored, role: Role) -> Point:
        return Point(
            clip=self._clip.name,
            codec=codec.name,
            setting=codec.setting,
            role=role,
            bill=coded.bill,
            scores=scored.scores,
            command=coded.command,
            encode_s=coded.encode_s,
            frames=len(self._clip.crops),
            held=decoded.held,
        )

    def _cross_points(self) -> list[Point]:
        """The photo driven by this clip, and the photo unmoved."""
        assert self._cross is not None
        codec = self._plan.cross
        if codec is None:
            return []
        fingerprint = self._fingerprint(codec)
        points: list[Point] = []
        for setting in (codec.setting, "unmoved"):
            kept = self._store.load(self._clip.name, codec.name, setting, fingerprint)
            if kept is not None:
                points.append(kept)
                continue
            try:
                coded = codec.encode(self._clip)
                decoded = codec.decode(coded.data)
                if setting == "unmoved":
                    decoded = Decoded(np.repeat(self._cross.photo[None], len(self._clip.crops), axis=0))
                scored = self._cross.score(self._original(), decoded.frames)
            except AvcallError as error:
                self._omit(f"{codec.name} {setting}", error)
                continue
            self._fresh = True
            point = replace(self._as_point(codec, coded, decoded, scored, Role.CURVE), setting=setting)
            self._store.save(point, fingerprint, coded.data, scored)
            points.append(point)
        self._on_point()
        return points

    def _original(self) -> Reference:
        with self._lock:
            if self._reference is None:
                self._reference = self._judge.reference(self._clip)
            return self._reference

    def _keep_original(self) -> None:
        """The original's own features, for distances between sets of clips."""
        fingerprint = fingerprint_of(clip=self._clip.digest, scoring=self._scoring)
        if not self._store.has_original(self._clip.name, fingerprint):
            reference = self._original()
            self._store.save_original(self._clip.name, fingerprint, reference.features)

    def _fingerprint(self, codec: Codec, **more: object) -> str:
        return fingerprint_of(clip=self._clip.digest, codec=codec.identity, scoring=self._scoring, **more)

    def _omit(self, what: str, error: AvcallError) -> None:
        self._omissions.append(Omission(self._clip.name, what, str(error)))
