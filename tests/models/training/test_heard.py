"""Whether the ear hears what is there to be heard, and nothing else."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from avcall.errors import InputError
from models.metrics.picture import LIPS
from models.training import heard
from models.training.data import Clip
from models.training.heard import Frames, Observer, ask, gather, main, table
from tests.models.tiny import FaceEverywhere, write_prepared


def spoken(seed: int, clips: int, loudness: float, frames: int = 40) -> Frames:
    """What is missed is noise, and hangs on the loudness as well."""
    random = torch.Generator().manual_seed(seed)
    mel = torch.rand(clips * frames, 1, 1, generator=random) * torch.ones(1, 80, 64)
    lips = torch.ones(1, len(LIPS), 2) * (mel.mean((1, 2)) - 0.5)[:, None, None]
    noise = torch.randn(clips * frames, len(LIPS), 2, generator=random)
    return Frames(mel, loudness * lips + 0.02 * noise, torch.arange(clips).repeat_interleave(frames))


def test_what_speech_tells_is_heard_and_noise_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heard, "STEPS", 150)
    monkeypatch.setattr(heard, "BATCH", 32)
    told, noise = (ask(spoken(1, 10, loudness), spoken(2, 3, loudness), 0) for loudness in (1.0, 0.0))
    assert told.explained > 0.8 and abs(noise.explained) < 0.05
    assert told.nearer.shape == (3,) and (told.nearer > 0.1).all()
    assert told.nearer_by_other.mean() < 0
    lines = table([told, noise], 120).rows
    assert [line[0] for line in lines] == ["0", "1"] and float(lines[0][1]) > 80


def test_frames_of_all_clips_with_sound_are_gathered(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in "ab":
        write_prepared(folder / f"{name}.npz", seed=ord(name))
    observer = Observer(weights, 1)
    observer._judge = FaceEverywhere()  # type: ignore[assignment]
    frames = gather(folder, observer)
    clip = Clip(folder / "a.npz")
    assert len(frames) == 2 * (len(clip) - 1) and frames.mel.shape[1:] == (80, 64)
    assert np.array_equal(frames.mel[3, :, 32:48], clip.mel(4))
    assert not frames.missed.any()
    (folder / "b.npz").unlink()
    with pytest.raises(InputError, match="fewer than two clips"):
        gather(folder, observer)


def test_the_command_prints_a_row_for_each_seed(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        write_prepared(tmp_path / f"{name}.npz", seed=ord(name))
    monkeypatch.setattr(heard, "STEPS", 50)
    monkeypatch.setattr(heard, "BATCH", 8)
    monkeypatch.setattr(heard, "FrameJudge", lambda **_: FaceEverywhere())
    argv = ["heard", str(tmp_path), str(tmp_path), "--weights", str(weights), "--every", "1", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", argv)
    main()
    printed = capsys.readouterr().out
    assert "heard, %" in printed and "10 frames" in printed
