"""Whose speech is heard in which row, what the table makes of it, and what is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest

from avcall.errors import InputError
from avcall.types import F32Array, U8Image
from models.training.data import Clip
from models.training.drawing import Puppet
from models.training.speech_gain import ANOTHERS, MEASURES, NONE, OWN, Rows, SpeechTest, main, means, table
from tests.models.tiny import FaceEverywhere, write_prepared


def speech_test(weights: Path) -> SpeechTest:
    test = SpeechTest(weights, 2, None)
    test._judge = FaceEverywhere()  # type: ignore[assignment]
    return test


def test_each_row_hears_what_its_name_says(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, other = (Clip(write_prepared(tmp_path / f"{name}.npz", seed=ord(name))) for name in "ab")
    other.pcm = other.pcm // 2
    heard: list[tuple[F32Array, bool]] = []

    def draw(self: Puppet, pose: object, mel: F32Array, *, speech: bool) -> U8Image:
        heard.append((mel, speech))
        return clip.picture(0)

    monkeypatch.setattr(Puppet, "draw", draw)
    rows = speech_test(weights).clip(clip, other)
    assert rows is not None and list(rows) == [OWN, ANOTHERS, NONE]
    assert [speech for _, speech in heard] == [True, True, False] * 2  # frames 2 and 4 of 6
    assert np.array_equal(heard[0][0], clip.mel(2)) and np.array_equal(heard[1][0], other.mel(2))
    assert not np.array_equal(heard[0][0], heard[1][0])
    assert rows[OWN]["lmd_lips"] == 0 and rows[OWN]["mouth_psnr"] == rows[NONE]["mouth_psnr"] > 0


def test_a_clip_without_a_face_has_no_rows(weights: Path, tmp_path: Path) -> None:
    clip = Clip(write_prepared(tmp_path / "a.npz"))
    clip._landmarks[:] = 0
    assert speech_test(weights).clip(clip, clip) is None


def test_a_lost_face_leaves_its_measures_out() -> None:
    found = means([{"lmd": 1.0, "lmd_lips": 2.0, "mouth_psnr": 20.0}, {"mouth_psnr": 22.0}])
    assert found == {"lmd": 1.0, "lmd_lips": 2.0, "mouth_psnr": 21.0}


def test_the_table_tells_how_sure_a_difference_is() -> None:
    def rows(own: float, none: float) -> Rows:
        return {
            row: dict.fromkeys(MEASURES, value) for row, value in ((OWN, own), (ANOTHERS, 1.0), (NONE, none))
        }

    found = table([rows(1.0, 1.5), rows(2.0, 2.3)])
    assert found.title == "Speech, 2 clips"
    assert [line[1] for line in found.rows] == ["1.500", "1.000", "1.900", "+0.500 ± 0.500", "-0.400 ± 0.100"]


def test_one_clip_with_sound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_prepared(tmp_path / "a.npz")
    monkeypatch.setattr(sys, "argv", ["speech_gain", str(tmp_path)])
    with pytest.raises(InputError, match="fewer than two clips with sound"):
        main()
