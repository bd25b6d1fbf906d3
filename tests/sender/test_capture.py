"""Capture from files in virtual time, and from a camera that a fake stands in for."""

import struct
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from avcall.clock import ManualClock, SystemClock
from avcall.errors import CameraError
from avcall.types import U8Image
from sender.capture import FileCamera, LiveCamera, open_camera, read_video
from sender.media_file import MAX_SIDE_PX, probe_video
from tests.clips import grey_index, tone, virtual_wait, write_clip, write_wav


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten pictures at 25 fps, with sound."""
    return write_clip(tmp_path / "clip.mkv", range(0, 400, 40), tone(440, 400))


def test_read_video_gives_every_picture_at_25_fps(clip: Path) -> None:
    frames = list(read_video(clip))
    assert [frame.pts_ms for frame in frames] == list(range(0, 400, 40))
    assert [grey_index(frame.rgb) for frame in frames] == list(range(10))
    assert frames[0].rgb.shape == (48, 64, 3)
    assert frames[0].rgb.dtype == np.uint8


def test_50_fps_is_thinned_by_time(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "fast.mkv", range(0, 400, 20))
    frames = list(read_video(path))
    assert [frame.pts_ms for frame in frames] == list(range(0, 401, 40))
    assert all(abs(2 * n - grey_index(frame.rgb)) <= 1 for n, frame in enumerate(frames))


def test_a_gap_in_the_file_holds_the_last_picture(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "gap.mkv", [0, 40, 200, 240])
    frames = list(read_video(path))
    assert [frame.pts_ms for frame in frames] == list(range(0, 280, 40))
    assert [grey_index(frame.rgb) for frame in frames] == [0, 1, 1, 1, 1, 2, 3]


def test_pts_start_at_zero_where_the_file_does_not(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "late.mkv", [1000, 1040, 1080])
    assert [frame.pts_ms for frame in read_video(path)] == [0, 40, 80]


def set_rotation(path: Path, cosine: int, sine: int) -> None:
    """Write a clockwise turn into a track header (ISO/IEC 14496-12 section 8.3.2)."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # the fields before it in a version 0 box
    one = 1 << 16
    values = (cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, matrix, *values)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("cosine", "sine", "clockwise_turns"), [(1, 0, 0), (0, 1, 1), (-1, 0, 2), (0, -1, 3)]
)
def test_rotation_is_honoured(tmp_path: Path, cosine: int, sine: int, clockwise_turns: int) -> None:
    path = tmp_path / "phone.mp4"
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 255  # the upper left quarter
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    set_rotation(path, cosine, sine)
    rgb = next(iter(read_video(path))).rgb
    expected = np.rot90(picture, -clockwise_turns)
    assert rgb.shape == expected.shape
    assert np.abs(rgb.astype(int) - expected).mean() < 10


def test_a_file_plays_in_real_time(clip: Path) -> None:
    clock = ManualClock(5000.0)
    camera = FileCamera(clip, clock, origin_ms=5000.0, wait=virtual_wait)
    read_at = []
    while (frame := camera.read()) is not None:
        read_at.append((frame.pts_ms, clock.now_ms()))
    assert read_at == [(pts, 5000.0 + pts) for pts in range(0, 400, 40)]
    assert camera.read() is None


def test_late_pictures_are_skipped(clip: Path) -> None:
    clock = ManualClock()
    camera = FileCamera(clip, clock, origin_ms=0.0, wait=virtual_wait)
    assert camera.read() is not None
    clock.advance(165.0)
    frame = camera.read()
    assert frame is not None
    assert (frame.pts_ms, grey_index(frame.rgb)) == (160, 4)
    assert camera.skipped_frames == 3


def test_a_decoder_that_is_too_slow_still_delivers(tmp_path: Path) -> None:
    class SlowMachine(ManualClock):
        """Each look at the clock costs 60 ms: more than a picture lasts."""

        def now_ms(self) -> float:
            self.advance(60.0)
            return super().now_ms()

    path = write_clip(tmp_path / "long.mkv", range(0, 1600, 40))
    camera = FileCamera(path, SlowMachine(), origin_ms=0.0, wait=lambda *_: True)
    assert camera.read() is not None


def test_loop_starts_over_at_a_multiple_of_the_length(clip: Path) -> None:
    camera = FileCamera(clip, ManualClock(), origin_ms=0.0, loop=True, wait=virtual_wait)
    frames = [camera.read() for _ in range(25)]
    assert [frame.pts_ms for frame in frames if frame] == list(range(0, 1000, 40))
    assert [grey_index(frame.rgb) for frame in frames if frame] == [n % 10 for n in range(25)]
    assert camera.duration_ms == 400


def test_close_ends_a_blocked_read(clip: Path) -> None:
    clock = ManualClock()
    camera = open_camera(str(clip), clock, origin_ms=1e9)
    threading.Timer(0.05, camera.close).start()
    assert camera.read() is None
    assert camera.read() is None


def test_probe_tells_size_length_and_sound(clip: Path, tmp_path: Path) -> None:
    info = probe_video(clip)
    assert (info.width_px, info.height_px, info.duration_ms, info.has_audio) == (64, 48, 400, True)
    assert not probe_video(write_clip(tmp_path / "mute.mkv", [0, 40])).has_audio


def test_no_such_file_names_it() -> None:
    with pytest.raises(CameraError, match=r"no such camera or file: nowhere\.mp4"):
        open_camera("nowhere.mp4", SystemClock(), 0.0)


@pytest.mark.parametrize("spec", ["97", "/dev/video97"])
def test_no_such_camera_lists_what_there_is(spec: str) -> None:
    with pytest.raises(CameraError, match=f"no camera {spec}.*this machine has"):
        open_camera(spec, SystemClock(), 0.0)


def test_a_sound_file_is_no_camera(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "voice.wav", tone(440, 100))
    with pytest.raises(CameraError, match=r"voice\.wav holds no video"):
        open_camera(str(path), SystemClock(), 0.0)


@pytest.mark.parametrize("content", [b"", b"not a video", bytes(range(256)) * 40])
def test_garbage_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage.mp4"
    path.write_bytes(content)
    with pytest.raises(CameraError, match=r"garbage\.mp4") as caught:
        open_camera(str(path), SystemClock(), 0.0)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_plays_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "whole.mkv", range(0, 1600, 40))
    short = tmp_path / "short.mkv"
    short.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert 5 < len(list(read_video(short))) < 40


def test_a_picture_over_the_limit_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "huge.mkv", [0], size_px=(MAX_SIDE_PX + 16, 16))
    with pytest.raises(CameraError, match=f"{MAX_SIDE_PX} pixels a side"):
        open_camera(str(path), SystemClock(), 0.0)


class FakeCapture:
    """A camera whose pictures come when the test says so. The blue channel counts them."""

    def __init__(self, clock: ManualClock, step_ms: float, total: int) -> None:
        self._clock = clock
        self._step_ms = step_ms
        self._left = total
        self._count = 0
        self.go = threading.Semaphore(0)
        self.released = threading.Event()

    def read(self) -> tuple[bool, U8Image | None]:
        self.go.acquire(timeout=5)
        if self._count == self._left:
            return False, None
        self._clock.advance(self._step_ms)
        bgr = np.zeros((4, 4, 3), np.uint8)
        bgr[..., 0] = self._count
        self._count += 1
        return True, bgr

    def release(self) -> None:
        self.released.set()


def test_live_camera_gives_rgb_with_the_time_of_the_grab() -> None:
    clock = ManualClock(100.0)
    capture = FakeCapture(clock, step_ms=40.0, total=10)
    camera = LiveCamera(capture, "camera 0", clock, origin_ms=100.0)
    for count in range(3):
        capture.go.release()
        frame = camera.read()
        assert frame is not None
        assert frame.pts_ms == 40 * (count + 1)
        assert frame.rgb[0, 0].tolist() == [0, 0, count]
    capture.go.release(10)
    camera.close()
    assert capture.released.is_set()
    assert camera.read() is None


def test_live_camera_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sender.capture.GRAB_RETRY_S", 0.001)
    clock = ManualClock()
    capture = FakeCapture(clock, step_ms=40.0, total=0)
    capture.go.release(1000)
    camera = LiveCamera(capture, "camera 0", clock, origin_ms=0.0)
    with pytest.raises(CameraError, match="camera 0 delivers no pictures"):
        camera.read()
    assert capture.released.wait(5)


def test_live_camera_of_60_fps_is_thinned_to_one_picture_a_tick() -> None:
    clock = ManualClock()
    capture = FakeCapture(clock, step_ms=1000 / 60, total=60)
    camera = LiveCamera(capture, "camera 0", clock, origin_ms=0.0)
    ticks = []

    def pump() -> None:
        while (frame := camera.read()) is not None:
            ticks.append(frame.pts_ms // 40)

    reader = threading.Thread(target=pump)
    reader.start()
    for _ in range(59):
        capture.go.release()
    while capture._count < 59:
        capture.released.wait(0.005)
    capture.go.release()
    camera.close()
    reader.join(5)
    assert ticks
    assert sorted(set(ticks)) == ticks
