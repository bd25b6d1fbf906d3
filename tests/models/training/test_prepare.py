"""Preparing clips: what is taken, what is refused and why, and going on after an interruption."""

from pathlib import Path

import numpy as np
import pytest

from avcall.errors import InputError
from avcall.types import Priors, U8Image
from models.training import prepare as module
from models.training.data import Clip
from models.training.prepare import find_videos, prepare, prepare_clip, read_pictures, read_speech
from tests.clips import tone, write_clip
from tests.models.tiny import landmarks

SECOND = [40 * i for i in range(25)]


class SeesAFace:
    """In place of PriorExtractor: a face in every frame but the first `blind`."""

    blind = 0

    def __init__(self) -> None:
        self.seen = 0

    def extract(self, rgb: U8Image) -> Priors:
        self.seen += 1
        points = None if self.seen <= self.blind else landmarks()
        return Priors(np.zeros((64, 64), np.uint8), np.full((64, 64), self.seen, np.uint8), points)

    def __enter__(self) -> "SeesAFace":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def face(monkeypatch: pytest.MonkeyPatch) -> type[SeesAFace]:
    monkeypatch.setattr(module, "PriorExtractor", SeesAFace)
    monkeypatch.setattr(SeesAFace, "blind", 0)
    return SeesAFace


@pytest.mark.usefixtures("face")
def test_a_clip_with_a_face_is_taken_whole(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", SECOND)
    result = prepare_clip(source, tmp_path / "a.npz")
    assert (result.refused, result.frames) == (None, 25)
    clip = Clip(tmp_path / "a.npz")
    assert len(clip) == 25
    assert clip.picture(3).shape == (256, 256, 3)
    assert abs(clip.picture(3).mean() - 35) < 3
    np.testing.assert_allclose(clip.landmarks(24), landmarks(), atol=1 / 128)
    assert clip.mask(4)[0, 0] == 5
    assert len(clip.pcm) == 0


@pytest.mark.usefixtures("face")
def test_its_sound_comes_along(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mkv", SECOND, tone(440, 1000))
    assert prepare_clip(source, tmp_path / "a.npz").refused is None
    assert abs(len(Clip(tmp_path / "a.npz").pcm) - 16_000) < 200
    assert read_speech(source).dtype == np.int16


def test_other_frame_rates_become_25(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "slow.mp4", [100 * i for i in range(20)])  # 10 a second, two seconds
    assert 46 <= len(list(read_pictures(source))) <= 50


def test_a_clip_without_a_face_is_refused(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", SECOND)
    result = prepare_clip(source, tmp_path / "a.npz")  # with mediapipe itself
    assert result.refused == "a face in less than 80% of its frames"
    assert not (tmp_path / "a.npz").exists()


def test_a_face_in_too_few_frames_is_refused(tmp_path: Path, face: type[SeesAFace]) -> None:
    source = write_clip(tmp_path / "a.mp4", SECOND)
    face.blind = 6
    assert prepare_clip(source, tmp_path / "a.npz").refused == "a face in less than 80% of its frames"
    face.blind = 5
    assert prepare_clip(source, tmp_path / "a.npz").refused is None


@pytest.mark.usefixtures("face")
def test_a_short_clip_is_refused(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", SECOND[:24])
    assert prepare_clip(source, tmp_path / "a.npz").refused == "shorter than 25 frames"


@pytest.mark.usefixtures("face")
@pytest.mark.parametrize("content", [b"", b"not a video at all" * 100])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "a.mp4"
    source.write_bytes(content)
    result = prepare_clip(source, tmp_path / "a.npz")
    assert result.refused is not None
    assert result.refused.startswith("not readable as video: ")
    assert "\n" not in result.refused


@pytest.mark.usefixtures("face")
def test_a_video_cut_short_is_taken_as_far_as_it_goes_or_refused(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", SECOND)
    source.write_bytes(source.read_bytes()[:-500])
    assert prepare_clip(source, tmp_path / "a.npz").refused is not None
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.usefixtures("face")
def test_a_full_disk_is_one_line_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_clip(tmp_path / "a.mp4", SECOND)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(InputError, match=r"No space left on device.*free some space"):
        prepare_clip(source, tmp_path / "a.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


def test_a_folder_without_videos_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(InputError, match="no video in"):
        find_videos([tmp_path])


def test_clips_of_one_name_in_different_folders_stay_apart(tmp_path: Path) -> None:
    for person in ("id1", "id2"):
        folder = tmp_path / person / "abc"
        folder.mkdir(parents=True)
        (folder / "00001.mp4").touch()
    single = tmp_path / "single.mp4"
    single.touch()
    found = find_videos([tmp_path])
    assert sorted(found) == ["id1__abc__00001", "id2__abc__00001", "single"]
    assert find_videos([single]) == {"single": single}


def test_preparing_goes_on_where_it_was(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    write_clip(clips / "done.mp4", SECOND[:5])
    write_clip(clips / "short.mp4", SECOND[:5])
    (clips / "broken.mp4").write_bytes(b"broken")
    out = tmp_path / "out"
    out.mkdir()
    (out / "done.npz").write_bytes(b"as it was")
    (out / "short.part").write_bytes(b"left by an interrupted run")
    results = {result.source.name: result.refused for result in prepare([clips], out, workers=1)}
    assert results.keys() == {"short.mp4", "broken.mp4"}
    assert results["short.mp4"] == "shorter than 25 frames"
    assert (out / "done.npz").read_bytes() == b"as it was"


def test_pictures_of_another_size_are_scaled(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", SECOND[:2], size_px=(320, 320))
    assert [p.shape for p in read_pictures(source)] == [(256, 256, 3)] * 2
