"""Microphone from files in virtual time; the device is tested with the speaker, in tests/e2e."""

import threading
from pathlib import Path

import numpy as np
import pytest

from avcall.clock import ManualClock, SystemClock
from avcall.errors import AudioDeviceError
from sender.microphone import DeviceTimeline, FileMicrophone, NoMicrophone, open_microphone, read_audio
from tests.clips import tone, tone_level, virtual_wait, write_clip, write_wav


def joined(path: Path, frame_ms: int = 40) -> np.ndarray:
    return np.concatenate([chunk.pcm for chunk in read_audio(path, frame_ms)])


@pytest.mark.parametrize("frame_ms", [20, 40, 60])
def test_chunks_are_exact_and_the_last_is_padded(tmp_path: Path, frame_ms: int) -> None:
    sound = tone(440, 410)
    chunks = list(read_audio(write_wav(tmp_path / "voice.wav", sound), frame_ms))
    assert [chunk.pts_ms for chunk in chunks] == [n * frame_ms for n in range(len(chunks))]
    assert all(chunk.pcm.shape == (frame_ms * 16,) and chunk.pcm.dtype == np.int16 for chunk in chunks)
    whole = np.concatenate([chunk.pcm for chunk in chunks])
    assert np.array_equal(whole[: len(sound)], sound)
    assert not whole[len(sound) :].any()


def test_other_rates_and_stereo_become_16_khz_mono(tmp_path: Path) -> None:
    import wave

    t = np.arange(44_100) / 44_100
    mono = (8000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)
    path = tmp_path / "cd.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(np.stack([mono, mono], axis=1).tobytes())
    pcm = joined(path)
    assert len(pcm) == 16_000
    assert tone_level(pcm, 440) == pytest.approx(8000, rel=0.03)
    assert np.abs(pcm[:800].astype(int) - tone(440, 50)).max() < 400  # resampling adds no delay


def test_sound_that_starts_after_the_picture_is_preceded_by_silence(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", range(0, 800, 40), tone(440, 400), sound_start_ms=300)
    pcm = joined(path)
    first = int(np.flatnonzero(pcm)[0])
    assert first / 16 == pytest.approx(300, abs=2)


def test_sound_from_before_the_picture_is_cut(tmp_path: Path) -> None:
    sound = np.concatenate([tone(440, 200), np.zeros(3200, np.int16), tone(880, 200)])
    path = write_clip(tmp_path / "clip.mkv", range(200, 800, 40), sound)
    pcm = joined(path)
    assert len(pcm) == pytest.approx(400 * 16, abs=640)
    assert not pcm[: 190 * 16].any()
    assert pcm[210 * 16 : 390 * 16].any()


def test_a_file_plays_in_real_time(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "voice.wav", tone(440, 200))
    clock = ManualClock(700.0)
    microphone = FileMicrophone(path, clock, 700.0, 40, wait=virtual_wait)
    read_at = []
    while (chunk := microphone.read()) is not None:
        read_at.append((chunk.pts_ms, clock.now_ms()))
    # A device, too, can hand out a chunk only when its last sample has been recorded.
    assert read_at == [(pts, 740.0 + pts) for pts in range(0, 200, 40)]


def test_late_chunks_are_skipped(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "voice.wav", tone(440, 2000))
    clock = ManualClock(1000.0)
    microphone = FileMicrophone(path, clock, 0.0, 40, wait=virtual_wait)
    chunk = microphone.read()
    assert chunk is not None
    assert chunk.pts_ms == 760
    assert microphone.skipped_chunks == 19


@pytest.mark.parametrize(("sound_ms", "frame_ms"), [(250, 40), (700, 40), (250, 60)])
def test_loop_meets_the_video(tmp_path: Path, sound_ms: int, frame_ms: int) -> None:
    sound = tone(440, sound_ms)
    sound[0] = 30_000  # marks the start of a round
    path = write_wav(tmp_path / "voice.wav", sound)
    microphone = FileMicrophone(path, ManualClock(), 0.0, frame_ms, loop=True, loop_ms=400, wait=virtual_wait)
    chunks = [microphone.read() for _ in range(1800 // frame_ms)]
    pcm = np.concatenate([chunk.pcm for chunk in chunks if chunk])
    assert np.flatnonzero(pcm == 30_000).tolist() == [0, 6400, 12_800, 19_200, 25_600]
    if sound_ms < 400:
        assert not pcm[sound_ms * 16 : 6400].any()


def test_loop_without_a_video_repeats_its_own_length(tmp_path: Path) -> None:
    sound = tone(440, 100)
    path = write_wav(tmp_path / "voice.wav", sound)
    microphone = FileMicrophone(path, ManualClock(), 0.0, 40, loop=True, wait=virtual_wait)
    chunks = [microphone.read() for _ in range(10)]
    pcm = np.concatenate([chunk.pcm for chunk in chunks if chunk])
    assert np.array_equal(pcm, np.tile(sound, 4))


def test_close_ends_a_blocked_read(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "voice.wav", tone(440, 100))
    microphone = open_microphone(str(path), ManualClock(), 1e9, 40)
    threading.Timer(0.05, microphone.close).start()
    assert microphone.read() is None
    assert microphone.read() is None


def test_none_is_no_sound() -> None:
    microphone = open_microphone("none", SystemClock(), 0.0, 40)
    assert isinstance(microphone, NoMicrophone)
    assert microphone.read() is None


def test_a_video_without_sound_says_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "mute.mkv", [0, 40])
    with pytest.raises(AudioDeviceError, match=r"mute\.mkv holds no sound; pass --mic none"):
        open_microphone(str(path), SystemClock(), 0.0, 40)


def test_an_empty_sound_file_says_so(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "empty.wav", np.zeros(0, np.int16))
    with pytest.raises(AudioDeviceError, match=r"empty\.wav"):
        open_microphone(str(path), SystemClock(), 0.0, 40)


@pytest.mark.parametrize("spec", ["nowhere.wav", "some/folder/voice.xyz"])
def test_no_such_file_names_it(spec: str) -> None:
    with pytest.raises(AudioDeviceError, match=f"no such file: {spec}"):
        open_microphone(spec, SystemClock(), 0.0, 40)


def test_device_timeline_is_contiguous_under_jitter() -> None:
    timeline = DeviceTimeline(40)
    rng = np.random.default_rng(1)
    placed = [timeline.place(57.3 + 40 * n + rng.uniform(0, 35)) for n in range(200)]
    assert placed[0] is not None
    assert placed == [placed[0] + 40 * n for n in range(200)]


def test_device_timeline_waits_for_pts_zero() -> None:
    timeline = DeviceTimeline(40)
    assert [timeline.place(t) for t in (-50.0, -10.0, 30.0, 70.0)] == [None, None, 30, 70]


@pytest.mark.parametrize("rate", [0.99, 1.01])
def test_device_timeline_follows_a_device_that_drifts(rate: float) -> None:
    timeline = DeviceTimeline(40)
    errors = []
    last = -40
    for n in range(3000):
        captured = 40 * n * rate
        placed = timeline.place(captured)
        if placed is not None:
            assert (placed - last) % 40 == 0
            assert placed > last
            last = placed
            errors.append(abs(placed - captured))
    assert max(errors) < 100
