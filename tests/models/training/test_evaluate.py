"""The protocols: whose picture is moved by whom, what is compared with what, and what is written."""

import json
from pathlib import Path

import numpy as np
import pytest

from avcall.errors import InputError, RecordingError, WeightsError
from avcall.types import F32Array, FaceCrop, HeldKeyframe, Keypoints, Priors, U8Image
from models.metrics.judge import Face, Seen, compare_faces, compare_pixels
from models.metrics.sets import Features
from models.sight import SecondLook
from models.training import evaluate as module
from models.training.data import Clip
from models.training.drawing import Still
from models.training.evaluate import ClipJudge, EvaluateConfig, draw_clip, evaluate
from models.training.evaluation import Report, Row, to_markdown
from models.training.export import export_weights
from tests.fakes import unrefined
from tests.models.tiny import TINY_LIVE, landmarks, random_network, write_prepared
from tests.units import make_keypoints

MARK = 7  # grey level of what the fake runtime draws in silence; with speech it draws twice that
STILL = Still("other", HeldKeyframe(np.full((256, 256, 3), 90, np.uint8), make_keypoints(1), None))


class FakeRuntime:
    """Draws flat pictures."""

    def __init__(self) -> None:
        self.drawn: list[bool] = []

    def detect(self, rgb: U8Image, priors: Priors) -> Keypoints:
        return make_keypoints(2)

    def hold(self, rgb: U8Image, keypoints: Keypoints, landmarks: F32Array | None) -> HeldKeyframe:
        return HeldKeyframe(rgb, keypoints, landmarks)

    def refine(
        self, driving: Keypoints, rgb: U8Image, landmarks: F32Array | None, keyframe: HeldKeyframe
    ) -> SecondLook:
        return unrefined(driving)

    def set_keyframe(self, index: int, rgb: U8Image, keypoints: Keypoints) -> None:
        pass

    def synthesize(self, index: int, keypoints: Keypoints, mel: F32Array, *, speech: bool) -> U8Image:
        self.drawn.append(speech)
        return np.full((256, 256, 3), MARK * (1 + speech), np.uint8)


class FakeFrames:
    """The arithmetic without networks: a face is where a picture is not black, its identity its grey."""

    def __init__(self, *, perceptual: bool = True) -> None:
        self.looked = 0

    def find_face(self, rgb: U8Image) -> Face | None:
        return Face(landmarks(), np.full(128, float(rgb[0, 0, 0]))) if rgb.any() else None

    def see(self, rgb: U8Image) -> Seen:
        self.looked += 1
        return Seen(rgb, self.find_face(rgb), None)

    @staticmethod
    def compare(got: Seen, wanted: Seen) -> dict[str, float]:
        return compare_pixels(got, wanted) | compare_faces(got.face, wanted.face)


class FakeSets:
    """Features are a pixel of each picture; Sync, where it hears, counts frames and samples."""

    def __init__(self, inception: Path | None = None, syncnet: Path | None = None) -> None:
        self.hears = syncnet is not None

    @staticmethod
    def features(pictures: list[U8Image]) -> Features:
        return Features(np.stack([picture[0, 0].astype(np.float32) for picture in pictures]))

    @staticmethod
    def sync(frames: U8Image, places: list[F32Array], pcm: np.ndarray) -> dict[str, float]:
        return {"lse_d": float(len(frames)), "lse_c": float(len(pcm))}


def judge(every: int = 2, *, hears: bool = False) -> ClipJudge:
    return ClipJudge(FakeFrames(), FakeSets(syncnet=Path() if hears else None), slice(0, None, every))  # type: ignore[arg-type]


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    return Clip(write_prepared(tmp_path / "a_0.npz", frames=8))


@pytest.fixture
def own(clip: Clip) -> Still:
    return Still(clip.name, HeldKeyframe(clip.picture(0), make_keypoints(1), None))


def test_ones_own_first_frame_is_not_judged_another_persons_clip_is_from_the_first_on(
    clip: Clip, own: Still
) -> None:
    runtime = FakeRuntime()
    same = list(draw_clip(runtime, clip, own, slice(0, None, 3), other=False))  # type: ignore[arg-type]
    assert [one.index for one in same] == [3, 6]
    assert runtime.drawn == [False, True] * 2
    assert np.array_equal(same[0].wanted, clip.picture(3))
    assert same[0].pictures[Row.UNMOVED] is own.rgb
    assert same[0].pictures[Row.SILENT].max() == MARK
    assert same[0].pictures[Row.SPEECH].max() == 2 * MARK
    cross = draw_clip(runtime, clip, STILL, slice(0, None, 3), other=True)  # type: ignore[arg-type]
    assert [one.index for one in cross] == [0, 3, 6]


def test_the_first_seconds_of_a_clip_are_judged_alone(clip: Clip, own: Still) -> None:
    config = EvaluateConfig(weights=(), data=Path(), every=2, seconds=0.16)
    same = draw_clip(FakeRuntime(), clip, own, config.span, other=False)  # type: ignore[arg-type]
    assert [one.index for one in same] == [2, 4]
    with pytest.raises(InputError, match=r"--seconds is 0\.01; it goes from 0\.04"):
        EvaluateConfig(weights=(), data=Path(), seconds=0.01)


def test_a_clip_without_sound_is_drawn_in_silence_only(clip: Clip, own: Still) -> None:
    clip.pcm = np.zeros(0, np.int16)
    runtime = FakeRuntime()
    frames = list(draw_clip(runtime, clip, own, slice(0, None, 4), other=False))  # type: ignore[arg-type]
    assert runtime.drawn == [False]
    assert frames[0].pictures[Row.SPEECH] is frames[0].pictures[Row.SILENT]


def test_the_same_person_is_compared_with_the_camera(clip: Clip, own: Still) -> None:
    judged = judge().judge(FakeRuntime(), clip, own, other=False)  # type: ignore[arg-type]
    assert judged is not None
    rows = judged.report.rows
    expected = np.mean([np.abs(clip.picture(i).astype(float) - 2 * MARK).mean() / 255 for i in (2, 4, 6)])
    assert rows["with speech"].l1 == pytest.approx(expected, rel=1e-5)
    assert rows["with speech"].lmd == rows["with speech"].face_lost == 0
    assert rows["keyframe unmoved"].l1 != rows["with speech"].l1
    assert judged.features[Row.SILENT].effnet.tolist() == [[MARK] * 3] * 3
    assert judged.strip is not None and judged.strip.shape[1] == 4 * 256


def test_another_person_is_compared_with_the_keyframe(clip: Clip) -> None:
    judged = judge().judge(FakeRuntime(), clip, STILL, other=True)  # type: ignore[arg-type]
    assert judged is not None
    assert judged.report.still == "other"
    spoken = judged.report.rows["with speech"]
    assert spoken.aed == pytest.approx((90 - 2 * MARK) * 128**0.5)
    assert judged.report.rows["keyframe unmoved"].aed == 0
    assert (spoken.lmd, spoken.face_lost, spoken.psnr) == (0, 0, None)
    black = Still("black", HeldKeyframe(np.zeros((256, 256, 3), np.uint8), make_keypoints(1), None))
    faceless = judge().judge(FakeRuntime(), clip, black, other=True)  # type: ignore[arg-type]
    assert faceless is not None and faceless.report.rows["with speech"].aed is None


@pytest.mark.parametrize(("other", "drawn", "judged_frames"), [(False, 7, 2), (True, 8, 3)])
def test_for_sync_every_frame_is_drawn_and_the_speech_begins_with_the_first(
    clip: Clip, own: Still, other: bool, drawn: int, judged_frames: int
) -> None:
    still = STILL if other else own
    judged = judge(3, hears=True).judge(FakeRuntime(), clip, still, other=other)  # type: ignore[arg-type]
    assert judged is not None
    row = judged.report.rows["with speech"]
    assert (row.lse_d, row.lse_c) == (drawn, len(clip.pcm) - (0 if other else 640))
    assert judged.report.frames == judged_frames


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Tiny weights, and clips of two people; the measures are without networks."""
    monkeypatch.setattr(module, "FrameJudge", FakeFrames)
    monkeypatch.setattr(module, "SetJudge", FakeSets)
    weights, data = tmp_path / "weights", tmp_path / "data"
    export_weights(random_network(TINY_LIVE), weights, {"steps": 12})
    data.mkdir()
    for name in ("a_0", "a_1", "b_0"):
        write_prepared(data / f"{name}.npz", frames=8, seed=ord(name[0]))
    return weights, data


def test_a_folder_is_evaluated_through_the_shipped_runtime(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    weights, data = folders
    seen: list[str] = []
    config = EvaluateConfig(
        weights=(weights,), data=data, out=tmp_path / "out", every=3, cross=True, device="cpu", threads=1
    )
    (report,) = evaluate(config, seen.append)
    assert config.steps == 6
    assert seen == ["a_0", "a_1", "b_0", "a_0 cross", "a_1 cross", "b_0 cross"]
    assert (report.record, report.label) == ({"steps": 12}, "live, complete")
    assert [clip.frames for clip in report.same.clips] == [2, 2, 2]
    assert report.cross is not None
    assert [clip.still for clip in report.cross.clips] == ["b_0", "b_0", "a_0"]  # never the same person
    for row in Row:
        values = [clip.rows[row.value].l1 for clip in report.same.clips]
        assert report.same.rows[row.value].l1 == pytest.approx(np.mean([v for v in values if v is not None]))
        assert report.same.rows[row.value].fd_effnet is not None
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["reports"][0]["label"] == "live, complete"
    assert (tmp_path / "out" / "table.md").read_text() == to_markdown([report])
    assert (tmp_path / "out" / "same" / "a_0.jpg").is_file()
    assert (tmp_path / "out" / "cross" / "b_0.jpg").is_file()


def test_several_folders_share_a_table_and_a_photo_serves_all_clips(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    weights, data = folders
    prior = np.zeros((64, 64), np.uint8)
    photo = FaceCrop(STILL.rgb, Priors(prior, prior, None), 0)
    config = EvaluateConfig(
        weights=(weights, weights), data=data, out=tmp_path / "out", every=7, source=photo, device="cpu"
    )
    reports = evaluate(config)
    assert [report.label for report in reports] == ["live, complete (weights)"] * 2
    assert all(_stills(report) == {"photo"} for report in reports)
    assert "Ablation" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "weights" / "cross" / "a_0.jpg").is_file()


def _stills(report: Report) -> set[str]:
    assert report.cross is not None
    return {clip.still for clip in report.cross.clips}


def test_what_cannot_be_evaluated_is_one_line(folders: tuple[Path, Path], tmp_path: Path) -> None:
    weights, data = folders
    with pytest.raises(InputError, match="no prepared clip"):
        evaluate(EvaluateConfig(weights=(weights,), data=tmp_path))
    with pytest.raises(WeightsError, match="no weights"):
        evaluate(EvaluateConfig(weights=(tmp_path,), data=data))
    with pytest.raises(InputError, match="for longer than --every 50"):
        evaluate(EvaluateConfig(weights=(weights,), data=data, every=50, device="cpu"))
    (tmp_path / "file").touch()
    with pytest.raises(RecordingError, match="choose another folder"):
        evaluate(EvaluateConfig(weights=(weights,), data=data, out=tmp_path / "file", every=7, device="cpu"))


@pytest.mark.parametrize("wrong", [{"every": 0}, {"threads": 0}, {"device": "tpu"}])
def test_settings_out_of_range_are_named(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(wrong))}"):
        EvaluateConfig(weights=(tmp_path,), data=tmp_path, **wrong)  # type: ignore[arg-type]


def test_what_the_settings_leave_out_is_said() -> None:
    paths = {"weights": (Path(),), "data": Path()}
    bare = EvaluateConfig(**paths, perceptual=False)  # type: ignore[arg-type]
    assert [reason.split(":")[0] for reason in bare.not_computed] == [
        "ST-LPIPS",
        "FID",
        "Sync",
        "cross-identity",
    ]
    full = EvaluateConfig(**paths, cross=True, inception=Path(), syncnet=Path())  # type: ignore[arg-type]
    assert full.not_computed == ()
