"""Recordings: they play, in step, however they end."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from avcall.errors import RecordingError
from avcall.types import FRAME_MS, SAMPLE_RATE_HZ, Pcm, U8Image
from receiver.record import MAX_JUMP_MS, Mp4Writer, Recorder, Timeline, whole_fragments_bytes
from tests.clips import tone

REPOSITORY = Path(__file__).parents[2]
# A call that records noise, so that the file grows fast, until something ends it.
ENDLESS_CALL = """
import sys, numpy as np
from receiver.record import Mp4Writer
writer = Mp4Writer(sys.argv[1])
noise = np.random.default_rng(0).integers(0, 256, (256, 512, 3), dtype=np.uint8)
for n in range(100_000):
    shift = n * 7 % 256
    writer.add_video(noise[:, shift:shift + 256].copy(), 40 * n)
    writer.add_audio((noise[:16, :40, 0].reshape(-1).astype(np.int16) - 128) * 20, 40 * n)
    if n == 100:
        print("recording", flush=True)
"""


def picture(level: int, size_px: tuple[int, int] = (256, 256)) -> U8Image:
    return np.full((size_px[1], size_px[0], 3), level, np.uint8)


def play(path: Path) -> tuple[list[tuple[float, float]], Pcm, float]:
    """Decode all of a file: (time in ms, mean level) of each picture, the sound, and its start in ms."""
    with av.open(str(path)) as container:
        pictures = [
            (frame.time * 1000, frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)
        ]
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return pictures, np.zeros(0, np.int16), 0.0
        blocks = [(frame.time * 1000, frame.to_ndarray().reshape(-1)) for frame in container.decode(audio=0)]
    sound = np.concatenate([block for _, block in blocks])
    return pictures, np.asarray(sound * 32767, np.int16), blocks[0][0]


def onsets_ms(pcm: Pcm, start_ms: float) -> list[float]:
    """Where sound begins after at least 200 ms of silence."""
    loud = np.flatnonzero(np.abs(pcm) > 4000)
    first = np.insert(np.diff(loud) > SAMPLE_RATE_HZ // 5, 0, True)
    return [start_ms + float(sample) / 16 for sample in loud[first]]


def test_picture_and_sound_play_in_step(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    writer = Mp4Writer(path)
    beep, quiet = tone(1000, 40, 20_000), np.zeros(640, np.int16)
    for n in range(100):
        flash = n % 25 == 10
        writer.add_video(picture(240 if flash else 40), 5000 + n * FRAME_MS)
        writer.add_audio(beep if flash else quiet, 5000 + n * FRAME_MS)
    writer.close()
    pictures, pcm, start_ms = play(path)
    assert len(pictures) == 100
    flashes = [time_ms for time_ms, level in pictures if level > 150]
    assert np.diff(flashes) == pytest.approx([1000] * 3, abs=2)
    assert np.array(onsets_ms(pcm, start_ms)) == pytest.approx(np.array(flashes), abs=5)


def test_a_gap_in_the_sound_is_silence(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    writer = Mp4Writer(path)
    for n in range(75):
        writer.add_video(picture(100), n * FRAME_MS)
        if not 20 <= n < 55:
            writer.add_audio(tone(1000, 40, 20_000), n * FRAME_MS)
    writer.close()
    _, pcm, start_ms = play(path)
    onsets = onsets_ms(pcm, start_ms)
    assert np.diff(onsets) == pytest.approx([55 * 40], abs=5)
    assert len(pcm) / 16 == pytest.approx(3000, abs=130)


def test_sound_with_jittery_pts_is_not_cut_up(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    writer = Mp4Writer(path)
    sound = tone(440, 2000)
    for n in range(50):
        writer.add_video(picture(100), n * FRAME_MS)
        writer.add_audio(sound[n * 640 : (n + 1) * 640], n * FRAME_MS + (n % 3) * 5)
    writer.close()
    _, pcm, _ = play(path)
    assert np.abs(np.diff(pcm[2000:30_000].astype(int))).max() < 1800  # a sine of 440 Hz moves 1380 a sample


def test_overlapping_sound_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    writer = Mp4Writer(path)
    writer.add_video(picture(100), 0)
    writer.add_audio(tone(440, 1000), 0)
    writer.add_audio(tone(440, 1000), 500)
    writer.add_audio(tone(440, 100), 200)
    writer.close()
    _, pcm, _ = play(path)
    assert len(pcm) / 16 == pytest.approx(1500, abs=130)


def test_a_call_without_sound_plays(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    writer = Mp4Writer(path)
    for n in range(100):
        writer.add_video(picture(100), n * FRAME_MS)
    writer.close()
    assert len(play(path)[0]) == 100


def test_without_an_audio_track(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    writer = Mp4Writer(path, width_px=512, height_px=256, with_audio=False)
    for n in range(10):
        writer.add_video(picture(100, (512, 256)), n * FRAME_MS)
    writer.add_audio(tone(440, 100), 0)
    writer.close()
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert (container.streams.video[0].width, container.streams.video[0].height) == (512, 256)


def test_pictures_keep_their_irregular_pts(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    writer = Mp4Writer(path, with_audio=False)
    for pts_ms in (0, 33, 100, 100, 90, 140, 700, 740):
        writer.add_video(picture(100), pts_ms)
    writer.close()
    assert [time_ms for time_ms, _ in play(path)[0]] == pytest.approx([0, 33, 100, 140, 700, 740], abs=1)


def test_nothing_recorded_still_closes(tmp_path: Path) -> None:
    writer = Mp4Writer(tmp_path / "call.mp4")
    writer.close()
    writer.close()


def test_one_wild_pts_does_not_write_hours_of_silence(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    writer = Mp4Writer(path)
    for n in range(50):
        leap_ms = 2**31 if n >= 25 else 0
        writer.add_video(picture(100), leap_ms + n * FRAME_MS)
        writer.add_audio(tone(440, 40), leap_ms + n * FRAME_MS)
    writer.close()
    pictures, pcm, _ = play(path)
    assert len(pictures) >= 49
    assert pictures[-1][0] < 3000
    assert len(pcm) < 3 * SAMPLE_RATE_HZ


def test_timeline_cuts_long_leaps_either_way() -> None:
    timeline = Timeline()
    assert [timeline.place(pts) for pts in (700, 740, 660)] == [0, 40, -40]
    assert timeline.place(740 + MAX_JUMP_MS) == 40 + MAX_JUMP_MS
    assert timeline.place(10**9) == 40 + MAX_JUMP_MS
    assert timeline.place(10**9 + 40) == 80 + MAX_JUMP_MS
    assert timeline.place(0) == 80 + MAX_JUMP_MS


def test_a_picture_of_another_size_is_a_mistake(tmp_path: Path) -> None:
    writer = Mp4Writer(tmp_path / "call.mp4")
    with pytest.raises(ValueError, match="64, 64"):
        writer.add_video(picture(0, (64, 64)), 0)
    writer.close()


@pytest.mark.parametrize("name", ["nowhere/call.mp4", "."])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordingError, match="cannot record to") as caught:
        Recorder(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_recording_that_is_killed_plays(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    command = [sys.executable, "-c", ENDLESS_CALL, str(path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as call:
        assert call.stdout is not None
        assert call.stdout.readline() == "recording\n"
        call.send_signal(signal.SIGKILL)
        call.wait(10)
    pictures, pcm, _ = play(path)
    assert len(pictures) >= 70  # of 100: the last second, and what was being put in order, may be missing
    assert len(pcm) > 2.5 * SAMPLE_RATE_HZ


def test_a_disk_that_fills_up_is_told_in_one_line_and_the_file_plays(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))"
    done = subprocess.run(
        [sys.executable, "-c", limit + ENDLESS_CALL, str(path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    last_line = done.stderr.strip().splitlines()[-1]
    assert last_line.startswith("avcall.errors.RecordingError: cannot record to")
    assert "File too large" in last_line
    pictures, pcm, _ = play(path)
    assert len(pictures) >= 25
    assert len(pcm) > SAMPLE_RATE_HZ // 2


def test_a_file_cut_anywhere_has_a_whole_part_that_plays(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    writer = Mp4Writer(path)
    for n in range(100):
        writer.add_video(picture(40 + n), n * FRAME_MS)
        writer.add_audio(tone(440, 40), n * FRAME_MS)
    writer.close()
    data = path.read_bytes()
    assert whole_fragments_bytes(str(path)) == len(data)
    played = []
    for cut in range(len(data), len(data) // 2, -997):
        path.write_bytes(data[:cut])
        path.write_bytes(data[: whole_fragments_bytes(str(path))])
        played.append(len(play(path)[0]))
    assert played[0] == 100
    assert played == sorted(played, reverse=True)
    assert played[-1] >= 25


def test_recorder_writes_what_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    recorder = Recorder(path)
    for n in range(50):
        recorder.add_video(picture(100), n * FRAME_MS)
        recorder.add_audio(tone(440, 40), n * FRAME_MS)
    recorder.close()
    recorder.close()
    recorder.add_video(picture(100), 10_000)
    pictures, pcm, _ = play(path)
    assert len(pictures) == 50
    assert recorder.dropped == 0
    assert len(pcm) / 16 == pytest.approx(2000, abs=130)


class BlockedWriter:
    """A disk that stands still until the test lets it go, then fails or not."""

    def __init__(self, failure: RecordingError | None = None) -> None:
        self.go = threading.Event()
        self.asked = threading.Event()
        self.written = 0
        self._failure = failure

    def add_video(self, rgb: U8Image, pts_ms: int) -> None:
        self.asked.set()
        self.go.wait()
        if self._failure:
            raise self._failure
        self.written += 1

    def close(self) -> None:
        pass


def test_a_slow_disk_costs_pieces_not_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = BlockedWriter()
    monkeypatch.setattr("receiver.record.Mp4Writer", lambda *_, **__: writer)
    recorder = Recorder(tmp_path / "call.mp4")
    for n in range(1000):
        recorder.add_video(picture(0), n * FRAME_MS)
    assert recorder.dropped > 700
    writer.go.set()
    recorder.close()
    assert writer.written + recorder.dropped == 1000


def test_recorder_raises_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = BlockedWriter(RecordingError("cannot record to call.mp4"))
    monkeypatch.setattr("receiver.record.Mp4Writer", lambda *_, **__: writer)
    recorder = Recorder(tmp_path / "call.mp4")
    recorder.add_video(picture(0), 0)
    writer.go.set()
    with pytest.raises(RecordingError, match="cannot record to"):
        recorder.close()
    recorder.add_video(picture(0), 40)
    recorder.close()
