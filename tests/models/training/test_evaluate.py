"""The protocol: which frame is the keyframe, what is compared with what, and what is written."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from avcall.errors import InputError, WeightsError
from avcall.types import F32Array, Keypoints, Priors, U8Image
from models.metrics.picture import FACE_SIDES
from models.runtime import Device
from models.training import evaluate as module
from models.training.data import Clip
from models.training.evaluate import (
    Drawn,
    Judge,
    Row,
    Scores,
    Strip,
    draw_clip,
    evaluate,
    mean_scores,
    table,
)
from models.training.export import export_weights
from tests.models.tiny import TINY_LIVE, landmarks, random_network, write_prepared

MARK = 7  # grey level of what the fake runtime draws in silence; with speech it draws twice that


class FakeRuntime:
    """Draws flat pictures and remembers what it was asked."""

    def __init__(self) -> None:
        self.keyframe: U8Image | None = None
        self.detected: list[Priors] = []
        self.drawn: list[bool] = []

    def detect(self, rgb: U8Image, priors: Priors) -> Keypoints:
        self.detected.append(priors)
        return Keypoints(np.zeros((10, 2), np.float32), np.zeros((10, 2, 2), np.float32))

    def set_keyframe(self, index: int, rgb: U8Image, keypoints: Keypoints) -> None:
        self.keyframe = rgb

    def synthesize(self, index: int, keypoints: Keypoints, mel: F32Array, *, speech: bool) -> U8Image:
        self.drawn.append(speech)
        return np.full((256, 256, 3), MARK * (1 + speech), np.uint8)


class FakeExtractor:
    """Finds the same face in every picture that is not flat."""

    def faces(self, rgb: U8Image) -> list[F32Array]:
        return [] if rgb.min() == rgb.max() else [landmarks()]


@pytest.fixture
def judge() -> Judge:
    return Judge(FakeExtractor(), perceptual=False)  # type: ignore[arg-type]


def faceless_start(path: Path) -> Clip:
    """A clip of eight frames, the first of which shows no face."""
    write_prepared(path, frames=8)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["landmarks"][0] = 0
    np.savez(path, **arrays)
    return Clip(path)


def test_the_first_frame_with_a_face_is_the_keyframe(tmp_path: Path, judge: Judge) -> None:
    clip, runtime = faceless_start(tmp_path / "a.npz"), FakeRuntime()
    frames = list(draw_clip(runtime, judge, clip, every=3))  # type: ignore[arg-type]
    assert [d.index for d in frames] == [1, 4, 7]
    assert runtime.keyframe is not None
    assert np.array_equal(runtime.keyframe, clip.picture(1))
    for drawn in frames[1:]:
        assert np.array_equal(drawn.pictures[Row.UNMOVED], clip.picture(1))
        assert np.array_equal(drawn.wanted, clip.picture(drawn.index))
        assert drawn.pictures[Row.SILENT].max() == MARK
        assert drawn.pictures[Row.SPEECH].max() == 2 * MARK
    assert runtime.drawn == [False, True] * 2
    assert all(p.mesh.any() and p.mask.all() for p in runtime.detected)


def test_a_clip_without_sound_is_drawn_in_silence_only(tmp_path: Path, judge: Judge) -> None:
    path = write_prepared(tmp_path / "a.npz")
    with np.load(path) as file:
        arrays = dict(file) | {"pcm": np.zeros(0, np.int16)}
    np.savez(path, **arrays)
    runtime = FakeRuntime()
    frames = list(draw_clip(runtime, judge, Clip(path), every=2))  # type: ignore[arg-type]
    assert runtime.drawn == [False, False]
    assert np.array_equal(frames[1].pictures[Row.SPEECH], frames[1].pictures[Row.SILENT])


def test_a_clip_without_a_face_gives_no_frame(tmp_path: Path, judge: Judge) -> None:
    path = write_prepared(tmp_path / "a.npz")
    with np.load(path) as file:
        arrays = dict(file)
    arrays["landmarks"][:] = 0
    np.savez(path, **arrays)
    report, strip = module.evaluate_clip(FakeRuntime(), judge, Clip(path), 1)  # type: ignore[arg-type]
    assert (report.frames, strip) == (0, None)
    assert report.rows[Row.SPEECH.value] == Scores()


def test_a_frame_is_scored_row_by_row(judge: Judge) -> None:
    wanted = np.random.default_rng(0).integers(0, 200, (256, 256, 3), np.uint8)
    flat = np.zeros_like(wanted)
    pictures = {Row.SPEECH: wanted, Row.SILENT: wanted + np.uint8(51), Row.UNMOVED: flat}
    scores = judge.score(Drawn(3, wanted, landmarks(), pictures))
    assert scores[Row.SPEECH].l1 == 0
    assert scores[Row.SPEECH].lmd == scores[Row.SPEECH].lmd_lips == scores[Row.SPEECH].face_lost == 0
    assert scores[Row.SPEECH].st_lpips_vgg is None
    for name in ("l1", "face_l1", "mouth_l1"):
        assert getattr(scores[Row.SILENT], name) == pytest.approx(0.2)
    assert scores[Row.UNMOVED].face_lost == 1
    assert scores[Row.UNMOVED].lmd is None


def test_without_a_face_in_the_camera_only_the_whole_picture_is_scored(judge: Judge) -> None:
    wanted = np.zeros((256, 256, 3), np.uint8)
    score = judge.score(Drawn(3, wanted, None, {Row.SPEECH: wanted}))[Row.SPEECH]
    assert (score.l1, score.ssim) == (0, pytest.approx(1))
    assert score.mouth_psnr is score.lmd is score.face_lost is None


def test_means_leave_out_what_is_missing() -> None:
    mean = mean_scores([Scores(l1=0.1, lmd=2), Scores(l1=0.3)])
    assert (mean.l1, mean.lmd, mean.psnr) == (pytest.approx(0.2), 2, None)
    assert mean_scores([]) == Scores()


def face(change: Callable[[F32Array], None]) -> F32Array:
    points = landmarks()
    points[list(FACE_SIDES)] = (60, 128), (190, 128)
    points[[13, 14]] = (128, 180), (128, 182)
    points[[159, 145, 386, 374]] = (90, 100), (90, 108), (160, 100), (160, 108)
    change(points)
    return points


def opens_mouth(points: F32Array) -> None:
    points[14, 1] += 20


def shuts_eyes(points: F32Array) -> None:
    points[[145, 374], 1] -= 7


def moves_head(points: F32Array) -> None:
    points[:] += 30


def test_a_strip_keeps_the_widest_mouth_the_closed_eyes_and_the_farthest_head() -> None:
    def drawn(index: int, change: Callable[[F32Array], None]) -> Drawn:
        picture = np.full((4, 4, 3), index, np.uint8)
        return Drawn(index, picture, face(change), dict.fromkeys(Row, picture))

    strip = Strip(drawn(0, lambda _: None))
    assert strip.picture() is None
    changes = [lambda _: None, opens_mouth, lambda _: None, moves_head, shuts_eyes]
    for index, change in enumerate(changes, 1):
        strip.offer(drawn(index, change))
    picture = strip.picture()
    assert picture is not None
    assert picture.shape == (3 * 4, 4 * 4, 3)
    assert picture[::4, ::4, 0].tolist() == [[0, 2, 2, 2], [0, 4, 4, 4], [0, 5, 5, 5]]


def test_a_folder_is_evaluated_through_the_shipped_runtime(tmp_path: Path) -> None:
    weights, data, out = tmp_path / "weights", tmp_path / "data", tmp_path / "out"
    export_weights(random_network(TINY_LIVE), weights, {"steps": 12})
    data.mkdir()
    for name in ("a", "b"):
        write_prepared(data / f"{name}.npz", seed=ord(name))
    seen: list[str] = []
    report = evaluate(
        weights,
        data,
        every=3,
        perceptual=False,
        out=out,
        device=Device.CPU,
        threads=1,
        on_clip=lambda clip: seen.append(clip.name),
    )
    assert seen == ["a", "b"]
    assert report.record == {"steps": 12}
    assert [clip.frames for clip in report.clips] == [1, 1]
    for row in Row:
        values = [clip.rows[row.value].l1 for clip in report.clips]
        assert report.rows[row.value].l1 == pytest.approx(np.mean([v for v in values if v is not None]))
    written = json.loads((out / "report.json").read_text())
    assert written["rows"]["keyframe unmoved"]["l1"] == report.rows["keyframe unmoved"].l1
    assert (out / "table.md").read_text() == table(report)
    assert table(report).count("\n") == 2 + len(Row)


def test_a_strip_is_written_as_a_picture(tmp_path: Path) -> None:
    module._write_strip(tmp_path / "new", "a", np.full((8, 16, 3), (255, 0, 0), np.uint8))
    shown = cv2.imread(str(tmp_path / "new" / "a.jpg"))
    assert shown.shape == (8, 16, 3)
    assert shown[4, 8, 2] > 200 > shown[4, 8, 0]


def test_nothing_to_evaluate_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no prepared clip"):
        evaluate(tmp_path, tmp_path)
    write_prepared(tmp_path / "a.npz")
    with pytest.raises(WeightsError, match="no weights"):
        evaluate(tmp_path / "none", tmp_path)
