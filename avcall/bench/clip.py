"""A clip as every codec gets it: the face as the sender's own tracker cuts it, and the speech."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avcall.errors import AudioDeviceError, InputError
from avcall.types import FRAME_MS, SAMPLE_RATE_HZ, FaceCrop, Pcm, U8Image, VideoFrame
from sender.capture import read_video
from sender.microphone import read_audio
from sender.track import FaceState, FaceTracker

MIN_FRAMES = 25  # a second: anything shorter is mostly keyframe
SEARCH_FRAMES = 250  # so long may it take until the first face is seen
READ_MS = 20  # of sound at a time
SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000


@dataclass(frozen=True, slots=True)
class Clip:
    """Consecutive crops at 25 frames a second, and the speech of the same moments.

    `pcm` (samples,) int16 is empty for a clip without sound, and ends with the sound or with the last crop.
    `remark` says what was left out of the file, if anything was; `digest` names the content.
    """

    name: str
    crops: tuple[FaceCrop, ...]
    pcm: Pcm
    digest: str
    remark: str = ""

    @property
    def frames(self) -> U8Image:
        """(frames, 256, 256, 3) uint8."""
        return np.stack([crop.rgb for crop in self.crops])

    @property
    def duration_ms(self) -> int:
        """Length in media time."""
        return len(self.crops) * FRAME_MS


def load_clip(path: Path, seconds: float | None = None, name: str | None = None) -> Clip:
    """Cut the face out of a video file, at most `seconds` of it from the first face on.

    Raises CameraError when the file is unreadable, InputError when it shows no face or less than a second of
    one, each in one line.
    """
    limit = None if seconds is None else max(1, round(seconds * 1000 / FRAME_MS))
    start_ms, crops, remark = _cut(path, limit)
    if not crops:
        raise InputError(f"{path}: no face is seen; give a clip of one face, seen from the front")
    if len(crops) < MIN_FRAMES:
        have_s = len(crops) * FRAME_MS / 1000
        raise InputError(f"{path}: only {have_s:.1f} s with a face; a clip needs at least one second")
    pcm = _speech(path, start_ms, len(crops) * FRAME_MS)
    return Clip(name or path.stem, crops, pcm, _digest(crops, pcm), remark)


def _cut(path: Path, limit: int | None) -> tuple[int, tuple[FaceCrop, ...], str]:
    """The pts of the first crop, and the crops without a break, renumbered from 0."""
    tracker = FaceTracker()
    crops: list[FaceCrop] = []
    start_ms = 0
    remark = ""
    try:
        for number, frame in enumerate(read_video(path)):
            crop = tracker.crop(frame)
            if crop is None and crops:
                remark = f"the face is lost after {len(crops) * FRAME_MS / 1000:.1f} s; the rest is left out"
                break
            if crop is not None:
                start_ms = start_ms if crops else frame.pts_ms
                crops.append(FaceCrop(crop.rgb, crop.priors, len(crops) * FRAME_MS))
            if len(crops) == limit or (not crops and number >= SEARCH_FRAMES):
                break
    finally:
        tracker.close()
    return start_ms, tuple(crops), remark


def _speech(path: Path, start_ms: int, duration_ms: int) -> Pcm:
    """The sound from `start_ms` on, for as long as the crops last."""
    blocks: list[Pcm] = [np.zeros(0, np.int16)]
    try:
        for chunk in read_audio(path, READ_MS):
            blocks.append(chunk.pcm)
            if chunk.pts_ms >= start_ms + duration_ms:
                break
    except AudioDeviceError:  # a clip without sound is compared without sound
        return blocks[0]
    start = start_ms * SAMPLES_PER_MS
    return np.concatenate(blocks)[start : start + duration_ms * SAMPLES_PER_MS]


def _digest(crops: tuple[FaceCrop, ...], pcm: Pcm) -> str:
    content = hashlib.sha256(pcm.tobytes())
    for crop in crops:
        content.update(np.ascontiguousarray(crop.rgb).tobytes())
    return content.hexdigest()[:16]


class ReadyCrops(FaceTracker):
    """A tracker whose work was done before: it hands out the crops of a clip by their pts."""

    def __init__(self, clip: Clip) -> None:
        self.state = FaceState.TRACKED
        self._crops = {crop.pts_ms: crop for crop in clip.crops}

    def crop(self, frame: VideoFrame) -> FaceCrop | None:
        """The crop that was cut at this pts."""
        return self._crops.get(frame.pts_ms)

    def close(self) -> None:
        """Nothing was opened."""


def video_frames(clip: Clip) -> Iterator[VideoFrame]:
    """The crops as the camera's pictures."""
    return (VideoFrame(crop.rgb, crop.pts_ms) for crop in clip.crops)
