"""Cutting clips: a real face, and files that cannot be used."""

from pathlib import Path

import numpy as np
import pytest

from avcall.bench import clip as module
from avcall.bench.clip import Clip, ReadyCrops, load_clip, video_frames
from avcall.bench.speech import chunks, coded_speech
from avcall.errors import CameraError, InputError
from avcall.types import FRAME_MS, MediaKind
from tests.bench_fakes import make_clip
from tests.clips import tone, write_clip
from tests.fakes import FakeTracker


def test_a_real_clip_is_cut_to_the_face(sample_clip: Clip) -> None:
    assert sample_clip.frames.shape == (25, 256, 256, 3)
    assert [crop.pts_ms for crop in sample_clip.crops] == [i * FRAME_MS for i in range(25)]
    assert all(crop.priors.landmarks is not None for crop in sample_clip.crops)
    assert len(sample_clip.pcm) == 16_000
    assert sample_clip.duration_ms == 1000


def test_the_same_file_gives_the_same_digest(sample_path: Path, sample_clip: Clip) -> None:
    assert load_clip(sample_path, 1.0).digest == sample_clip.digest
    assert load_clip(sample_path, 1.2).digest != sample_clip.digest


def test_a_clip_without_a_face_is_refused_by_name(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "grey.mkv", range(0, 1200, 40))
    with pytest.raises(InputError, match=r"grey\.mkv: no face is seen"):
        load_clip(path)


def test_an_unreadable_clip_is_refused_by_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a film")
    with pytest.raises(CameraError, match=r"broken\.mp4 cannot be read"):
        load_clip(broken)
    with pytest.raises(CameraError, match=r"no such file: .*gone\.mp4"):
        load_clip(tmp_path / "gone.mp4")


def test_less_than_a_second_is_refused(sample_path: Path) -> None:
    with pytest.raises(InputError, match=r"only 0\.8 s with a face"):
        load_clip(sample_path, 0.8)


def test_a_clip_ends_where_the_face_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = [FRAME_MS * i for i in (0, 1, 2, *range(30, 40))]
    monkeypatch.setattr(module, "FaceTracker", lambda: FakeTracker(blind))
    path = write_clip(tmp_path / "grey.mkv", range(0, 1600, 40), tone(440, 1600))
    clip = load_clip(path)
    assert len(clip.crops) == 27
    assert clip.remark == "the face is lost after 1.1 s; the rest is left out"
    assert len(clip.pcm) == 27 * 640  # of the moments of the crops
    whole = tone(440, 1600)
    assert np.abs(clip.pcm[1600:3200] - whole[3 * 640 + 1600 : 3 * 640 + 3200].astype(int)).max() < 100


def test_a_clip_without_sound_is_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FaceTracker", FakeTracker)
    clip = load_clip(write_clip(tmp_path / "mute.mkv", range(0, 1200, 40)))
    assert len(clip.pcm) == 0
    assert coded_speech(clip, 80) == []


def test_ready_crops_are_a_tracker_that_has_done_its_work() -> None:
    clip = make_clip(25)
    tracker = ReadyCrops(clip)
    got = [tracker.crop(frame) for frame in video_frames(clip)]
    assert got == list(clip.crops)


def test_speech_is_cut_into_whole_chunks_and_coded() -> None:
    clip = make_clip(26)  # 1040 ms
    cut = list(chunks(clip, 60))
    assert [len(chunk.pcm) for chunk in cut] == [960] * 18
    assert [chunk.pts_ms for chunk in cut] == [60 * i for i in range(18)]
    assert not cut[-1].pcm[320:].any()
    units, long_units = coded_speech(clip, 80), coded_speech(clip, 120)
    assert all(unit.kind is MediaKind.AUDIO for unit in units)
    assert {unit.duration_ms for unit in units} == {40} and len(units) >= 24
    assert {unit.duration_ms for unit in long_units} == {60}  # as a call with that tick codes it
