"""The demo's own parts; the whole of it runs in tests/e2e/test_processes.py."""

import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from avcall.demo import DemoFiles, _finish, recorded_pictures, recorded_sound, report
from avcall.errors import AvcallError
from avcall.stats import Bill
from receiver.record import Mp4Writer
from tests.clips import GREY_STEP, grey_index, tone, tone_level


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Ten pictures and 600 ms of a tone whose first moment is media time 1000."""
    path = tmp_path / "received.mp4"
    writer = Mp4Writer(path)
    writer.add_audio(tone(440, 600), 1000)
    for index in range(10):
        grey = np.full((256, 256, 3), 20 + GREY_STEP * index, np.uint8)
        writer.add_video(grey, 1080 + 40 * index)
    writer.close()
    return path


def test_recorded_pictures_come_with_the_time_since_the_start(recording: Path) -> None:
    found = [(elapsed_ms, grey_index(picture)) for elapsed_ms, picture in recorded_pictures(recording)]
    assert [index for _, index in found] == list(range(10))
    assert [elapsed_ms for elapsed_ms, _ in found] == [0, *(80 + 40 * index for index in range(1, 10))]


def test_recorded_sound_comes_back_as_16_khz_mono(recording: Path) -> None:
    blocks = list(recorded_sound(recording))
    assert blocks[0][0] == -64
    pcm = np.concatenate([block for _, block in blocks])
    assert 500 * 16 <= len(pcm) <= 800 * 16
    assert tone_level(pcm[1600:8000], 440) > 4000


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; print('first'); print('avcall: no face'); sys.exit(2)", "avcall send failed: no face"),
        ("import sys; sys.exit(3)", "avcall send failed: no output"),
        ("import time; time.sleep(60)", "did not end within 1 s"),
    ],
)
def test_an_end_that_fails_is_quoted(code: str, words: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with pytest.raises(AvcallError, match=words):
        _finish(process, "send", 1.0 if "sleep" in code else 30.0)
    process.communicate()


def test_files_lie_in_the_folder(tmp_path: Path) -> None:
    assert DemoFiles(tmp_path)["call.mp4"] == tmp_path / "call.mp4"


def test_the_report_says_how_many_pictures_had_no_motion_of_their_own(tmp_path: Path) -> None:
    bill = dataclasses.asdict(Bill(**{field.name: 1000 for field in dataclasses.fields(Bill)}))
    playout = {"concealed_frames": 9, "jitter": {"playout_delay_ms": 104.2}}
    pictures = {"shown": 283, "skew_ms": 2.0, "worst_skew_ms": -19.0, "draw_ms": 21.4}
    received = {"fps": 25.0, "provider": "CPU", "snapshot": {"pictures": pictures, "playout": playout}}
    written = io.StringIO()
    console = Console(file=written, width=80)
    report(
        console,
        DemoFiles(tmp_path),
        {"sender": {"bill": bill | {"headers_bytes": 0}}, "receiver": received},
    )
    said = " ".join(written.getvalue().split())
    assert "received 25.0 pictures a second, 9 of 283 without motion of their own" in said
    assert "playout delay 104 ms; A/V skew +2 ms (worst -19 ms)" in said
    assert max(len(line) for line in written.getvalue().splitlines() if "/" not in line) <= 80
