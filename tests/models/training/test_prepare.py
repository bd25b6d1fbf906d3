"""Preparing videos: what is taken, what is refused and why, and going on after an interruption."""

import csv
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from avcall.cli import app
from avcall.errors import InputError
from avcall.sample import source_clip
from avcall.types import Priors, U8Image
from models.training import prepare as module
from models.training.data import Clip
from models.training.manifest import VideoResult
from models.training.prepare import Preparation, find_videos, prepare_video
from tests.clips import tone, write_clip
from tests.models.tiny import landmarks

SECOND = [40 * i for i in range(25)]
CROPPED = (256, 256)


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


def reasons(result: VideoResult) -> list[str]:
    return [row.reason for row in result.refused]


@pytest.mark.usefixtures("face")
def test_a_face_crop_is_taken_as_it_is(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", SECOND, size_px=CROPPED)
    result = prepare_video("a", source, tmp_path)
    assert reasons(result) == []
    (row,) = result.clips
    assert (row.clip, row.frames, row.seconds, row.sound) == ("a", 25, 1.0, "no")
    assert (row.left_px, row.top_px, row.side_px) == (0, 0, 256)
    clip = Clip(tmp_path / "a.npz")
    assert len(clip) == 25
    assert clip.picture(3).shape == (256, 256, 3)
    assert abs(clip.picture(3).mean() - 35) < 3
    np.testing.assert_allclose(clip.landmarks(24), landmarks(), atol=1 / 128)
    assert clip.mask(4)[0, 0] == 5
    assert len(clip.pcm) == 0


@pytest.mark.usefixtures("face")
def test_its_sound_comes_along(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mkv", SECOND, tone(440, 1000), size_px=CROPPED)
    result = prepare_video("a", source, tmp_path)
    assert [row.sound for row in result.clips] == ["yes"]
    assert abs(len(Clip(tmp_path / "a.npz").pcm) - 16_000) < 200


def test_a_clip_without_a_face_is_refused(tmp_path: Path) -> None:
    for name, size in (("a", CROPPED), ("b", (128, 96))):  # with mediapipe itself
        source = write_clip(tmp_path / f"{name}.mp4", SECOND, size_px=size)
        assert reasons(prepare_video(name, source, tmp_path)) == ["no face"]
    assert not list(tmp_path.glob("*.npz"))


def test_a_face_in_too_few_frames_is_refused(tmp_path: Path, face: type[SeesAFace]) -> None:
    source = write_clip(tmp_path / "a.mp4", SECOND, size_px=CROPPED)
    face.blind = 6
    assert reasons(prepare_video("a", source, tmp_path)) == ["a face in less than 80% of its frames"]
    face.blind = 5
    assert reasons(prepare_video("a", source, tmp_path)) == []


@pytest.mark.usefixtures("face")
def test_a_short_clip_is_refused(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", SECOND[:24], size_px=CROPPED)
    assert reasons(prepare_video("a", source, tmp_path)) == ["shorter than 25 frames"]


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    source.write_bytes(b"not a video at all" * 100)
    result = prepare_video("a", source, tmp_path)
    assert reasons(result) == ["not readable as video"]
    assert result.refused[0].detail


def test_a_video_cut_short_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", SECOND, size_px=CROPPED)
    source.write_bytes(source.read_bytes()[:-500])
    assert reasons(prepare_video("a", source, tmp_path)) == ["not readable as video"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


@pytest.mark.usefixtures("face")
def test_a_full_disk_is_one_line_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_clip(tmp_path / "a.mp4", SECOND, size_px=CROPPED)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(InputError, match=r"No space left on device.*free some space"):
        prepare_video("a", source, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


def write_film(path: Path) -> Path:
    """640x360: 30 frames of a real face at the left, a cut, 40 frames of it at the right, with sound."""
    with av.open(str(source_clip())) as container:
        shots = [
            cv2.resize(frame.to_ndarray(format="rgb24"), (330, 270), interpolation=cv2.INTER_CUBIC)
            for frame, _ in zip(container.decode(video=0), range(70), strict=False)
        ]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "10", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for index, shot in enumerate(shots):
            left, colour = (0, (30, 60, 110)) if index < 30 else (310, (160, 120, 40))
            picture = np.full((360, 640, 3), colour, np.uint8)
            picture[90:, left : left + 330] = shot
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = np.concatenate([tone(440, 1200), tone(1000, 1600)]).reshape(1, -1)
        block = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
        block.sample_rate, block.pts, block.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path


def test_a_film_becomes_one_clip_a_shot_around_its_face(tmp_path: Path) -> None:
    result = prepare_video("film", write_film(tmp_path / "film.mkv"), tmp_path)
    assert reasons(result) == []
    assert [(row.clip, row.track, row.start_s, row.frames) for row in result.clips] == [
        ("film__t0", 0, 0.0, 30),
        ("film__t1", 1, 1.2, 40),
    ]
    first, second = (Clip(tmp_path / f"{row.clip}.npz") for row in result.clips)
    assert result.clips[1].left_px > result.clips[0].left_px + 200
    for clip in (first, second):
        points = np.stack([clip.landmarks(i) for i in range(len(clip))])
        middle = (points.min((0, 1)) + points.max((0, 1))) / 2
        assert np.abs(middle - 128).max() < 40
        height = np.median(np.ptp(points[..., 1], axis=1))
        assert 256 / 1.85 * 0.9 < height < 256 / 1.25
    spectrum = np.abs(np.fft.rfft(second.pcm[:16_000]))
    assert np.argmax(spectrum) * 16_000 / len(second.pcm[:16_000]) == pytest.approx(1000, abs=3)


def test_a_folder_without_videos_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(InputError, match="no video in"):
        find_videos([tmp_path])
    with pytest.raises(InputError, match="no such file or folder"):
        find_videos([tmp_path / "missing"])


def test_videos_of_one_name_in_different_folders_stay_apart(tmp_path: Path) -> None:
    for person in ("id1", "id2"):
        folder = tmp_path / person / "abc"
        folder.mkdir(parents=True)
        (folder / "00001.mp4").touch()
    single = tmp_path / "single.mp4"
    single.touch()
    found = find_videos([tmp_path, single])
    assert sorted(found) == ["id1__abc__00001", "id2__abc__00001", "single"]
    assert find_videos([single]) == {"single": single}


def test_two_videos_that_would_get_one_name_are_named(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"a\.mkv and .*a\.mp4 would get one name, a; rename one"):
        find_videos([tmp_path])


def test_preparing_goes_on_where_it_was(tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    write_clip(videos / "short.mp4", SECOND[:5], size_px=CROPPED)
    first = Preparation([videos], out)
    assert {r.video: reasons(r) for r in first.run(1)} == {"short": ["shorter than 25 frames"]}
    (videos / "broken.mp4").write_bytes(b"broken")
    (out / "broken.part").write_bytes(b"left by an interrupted run")
    second = Preparation([videos], out)
    assert (second.done, second.todo) == (1, {"broken": videos / "broken.mp4"})
    assert {r.video: reasons(r) for r in second.run(1)} == {"broken": ["not readable as video"]}
    with (out / "refused.tsv").open() as file:
        assert [row["video"] for row in csv.DictReader(file, delimiter="\t")] == ["short", "broken"]
    assert Preparation([videos], out).todo == {}


def test_the_command_sums_up_what_was_refused_and_says_when_nothing_is_left(tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    for name in ("a", "b"):
        (videos / f"{name}.mp4").write_bytes(b"broken")
    result = CliRunner().invoke(app, ["prepare", str(videos), "--out", str(out), "--workers", "1"])
    assert "0 clips from 2 videos" in result.output
    assert "refused 2: not readable as video" in result.output
    assert isinstance(result.exception, InputError)
    assert "none of the videos gave a clip" in str(result.exception)
    again = CliRunner().invoke(app, ["prepare", str(videos), "--out", str(out)])
    assert "2 videos were done before" in again.output
