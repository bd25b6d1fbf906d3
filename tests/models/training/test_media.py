"""Reading videos: 25 pictures a second, speech that belongs to the first picture, and what is refused."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from models.training.media import MediaError, Speech, read_frames, read_pictures
from tests.clips import grey_index, tone, tone_level, write_clip

SECOND = [40 * i for i in range(25)]


@pytest.mark.parametrize(("step_ms", "count"), [(40, 25), (25, 25), (100, 25)])
def test_other_frame_rates_become_25(tmp_path: Path, step_ms: int, count: int) -> None:
    source = write_clip(tmp_path / "a.mp4", [step_ms * i for i in range(1000 // step_ms)])
    frames = list(read_frames(source))
    assert abs(len(frames) - count) <= 2
    for index, rgb in enumerate(frames):
        assert abs(grey_index(rgb) * step_ms - index * 40) <= max(step_ms, 40) / 2 + 10


def test_a_video_that_begins_late_is_read_from_its_first_picture(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mkv", [pts + 700 for pts in SECOND])
    assert [grey_index(rgb) for rgb in read_frames(source)] == list(range(25))


def test_time_stamps_that_leap_are_refused(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mkv", [0, 40, 60_000])
    with pytest.raises(MediaError, match="time stamps leap by 60 s"):
        list(read_frames(source))


def test_pixels_are_square_and_a_256_crop_is_taken_as_it_is(tmp_path: Path) -> None:
    def squeezed(path: Path, side: int) -> Path:
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=25)
            video.width = video.height = side
            video.pix_fmt = "yuv420p"
            video.codec_context.sample_aspect_ratio = Fraction(3, 2)
            frame = av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8), format="rgb24")
            container.mux(video.encode(frame))
            container.mux(video.encode(None))
        return path

    assert next(read_frames(squeezed(tmp_path / "a.mp4", 128))).shape == (128, 192, 3)
    assert next(read_frames(squeezed(tmp_path / "b.mp4", 256))).shape == (256, 256, 3)


def test_pictures_of_another_size_are_scaled(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", SECOND[:2], size_px=(320, 320))
    assert [rgb.shape for rgb in read_pictures(source)] == [(256, 256, 3)] * 2


@pytest.mark.parametrize(("start_ms", "silent_ms"), [(0, 0), (400, 400)])
def test_speech_begins_with_the_first_picture(tmp_path: Path, start_ms: int, silent_ms: int) -> None:
    source = write_clip(tmp_path / "a.mkv", SECOND, tone(440, 600), sound_start_ms=start_ms)
    with Speech(source) as speech:
        pcm = speech.take(0, 16_000)
    assert abs(len(pcm) - 16 * (600 + start_ms)) < 50
    assert not pcm[: max(silent_ms * 16 - 50, 0)].any()
    assert tone_level(pcm[silent_ms * 16 + 50 :], 440) == pytest.approx(8000, rel=0.05)


def test_sound_from_before_the_first_picture_is_left_out(tmp_path: Path) -> None:
    sound = np.concatenate([tone(440, 400), tone(1000, 600)])
    source = write_clip(tmp_path / "a.mkv", [pts + 400 for pts in SECOND], sound)
    with Speech(source) as speech:
        pcm = speech.take(0, 16_000)
    assert abs(len(pcm) - 9600) < 50
    assert tone_level(pcm, 1000) > 7000
    assert tone_level(pcm, 440) < 200


def test_pieces_of_speech_are_the_parts_of_the_whole(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mkv", SECOND, tone(440, 1000))
    with Speech(source) as speech:
        whole = speech.take(0, 16_000)
    with Speech(source) as speech:
        pieces = [speech.take(first, last) for first, last in ((100, 900), (700, 5000), (9000, 99_000))]
    for piece, (first, last) in zip(pieces, ((100, 900), (700, 5000), (9000, 99_000)), strict=True):
        np.testing.assert_array_equal(piece, whole[first:last])


def test_a_video_without_sound_says_so(tmp_path: Path) -> None:
    with Speech(write_clip(tmp_path / "a.mp4", SECOND[:2])) as speech:
        assert not speech.present
        assert len(speech.take(0, 100)) == 0


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 100])
def test_what_is_no_video_is_one_short_reason(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "a.mp4"
    source.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        list(read_frames(source))
    assert "\n" not in str(caught.value)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        block = av.AudioFrame.from_ndarray(tone(440, 100).reshape(1, -1), format="s16", layout="mono")
        block.sample_rate = 16_000
        container.mux(audio.encode(block))
    with pytest.raises(MediaError, match="no video inside"):
        list(read_frames(path))
