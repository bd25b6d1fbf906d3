"""From videos of faces to training data: one file a clip, with pictures, landmarks, masks and speech.

A prepared clip is an uncompressed npz: `jpeg` (bytes of all frames), `offset` (frames + 1), `landmarks`
(frames, 478, 2) uint16 in 1/128 pixel (all zero where no face was found), `mask` (frames, 64, 64) uint8 and
`pcm` (samples,) int16 at 16 kHz, empty without sound.

A video is read twice: once to find the tracks of faces in it, once to cut them out. So a video of any length
needs the memory of one clip.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from avcall.errors import InputError
from avcall.types import FRAME_RATE, FRAME_SIZE_PX, SAMPLE_RATE_HZ, F32Array, Pcm, U8Image
from models.priors import NUM_LANDMARKS, PriorExtractor
from models.training.faces import FaceFinder
from models.training.manifest import ClipRow, Manifest, RefusedRow, VideoResult
from models.training.media import MediaError, Speech, read_frames
from models.training.tracks import (
    MIN_FACE_SHARE_OF_CROP,
    FaceBox,
    Reason,
    ShotDetector,
    Track,
    TrackBuilder,
)

LANDMARK_SCALE = 128  # landmarks are kept in 1/128 pixel, which uint16 holds up to 512 pixels
JPEG_QUALITY = 95
MIN_FACE_SHARE = 0.8  # of the frames of a clip
NAME_JOINT = "__"
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"}
)
SAMPLES_A_FRAME = SAMPLE_RATE_HZ // FRAME_RATE
SOUND_AFTER_SAMPLES = SAMPLE_RATE_HZ // 5  # the last frames' mel windows look ahead


def find_videos(sources: list[Path]) -> dict[str, Path]:
    """Every video under `sources`, by its name; InputError when there is none, or two of one name.

    A video in sub-folders is named by all of them (VoxCeleb's person/video/clip), so that none hides another.
    """
    found: dict[str, Path] = {}
    for source in sources:
        if not source.exists():
            raise InputError(f"no such file or folder: {source}; check the path")
        videos = [source] if source.is_file() else sorted(source.rglob("*"))
        for video in videos:
            if source.is_dir() and (video.suffix.lower() not in VIDEO_SUFFIXES or not video.is_file()):
                continue
            inside = Path(video.name) if source.is_file() else video.relative_to(source)
            name = NAME_JOINT.join(inside.with_suffix("").parts)
            other = found.setdefault(name, video)
            if other.resolve() != video.resolve():
                raise InputError(f"{other} and {video} would get one name, {name}; rename one of them")
    if not found:
        raise InputError(
            f"no video in {', '.join(map(str, sources))}; give a folder that holds videos of faces"
        )
    return found


def find_tracks(path: Path) -> tuple[list[Track], int]:
    """The tracks of a video, and how many frames it has. Raises MediaError."""
    tracks: list[Track] = []
    builder: TrackBuilder | None = None
    shots, count = ShotDetector(), 0
    with FaceFinder() as finder:
        for rgb in read_frames(path):
            if builder is None:
                size = rgb.shape[:2]
                builder = TrackBuilder(size[1], size[0])
            elif rgb.shape[:2] != size:
                raise MediaError("its pictures change their size")
            begins = shots.begins(rgb)
            if begins:
                finder.forget()
            tracks += builder.push([] if builder.cropped else finder.faces(rgb), begins)
            count += 1
    if builder is None:
        raise MediaError("no picture can be decoded")
    return tracks + builder.finish(), count


class _Cut:
    """One clip while it is cut out of its video."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self._jpegs: list[bytes] = []
        self._landmarks: list[F32Array] = []
        self._masks: list[U8Image] = []

    def look(self, rgb: U8Image, extractor: PriorExtractor) -> None:
        """Take the next frame of the video."""
        crop = self._track.square.cut(rgb)
        priors = extractor.extract(crop)
        found = priors.landmarks
        self._landmarks.append(np.zeros((NUM_LANDMARKS, 2), np.float32) if found is None else found)
        self._masks.append(priors.mask)
        bgr = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
        self._jpegs.append(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())

    def refused(self) -> Reason | None:
        """Why it is no clip to train on, or None."""
        seen = [points for points in self._landmarks if points.any()]
        if not seen:
            return Reason.NO_FACE
        if len(seen) < MIN_FACE_SHARE * len(self._landmarks):
            return Reason.FACE_LOST
        height = float(np.median([FaceBox.around(points).height for points in seen]))
        return Reason.TOO_SMALL if height < MIN_FACE_SHARE_OF_CROP * FRAME_SIZE_PX else None

    def arrays(self, pcm: Pcm) -> dict[str, NDArray[Any]]:
        """What is written."""
        scaled = np.stack(self._landmarks) * LANDMARK_SCALE + 0.5
        return {
            "jpeg": np.frombuffer(b"".join(self._jpegs), np.uint8),
            "offset": np.cumsum([0, *map(len, self._jpegs)]).astype(np.int64),
            "landmarks": np.clip(scaled, 0, 65535).astype(np.uint16),
            "mask": np.stack(self._masks),
            "pcm": pcm,
        }


def _write(target: Path, arrays: dict[str, NDArray[Any]]) -> None:
    partial = target.with_suffix(".part")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"{target} cannot be written ({error.strerror}); free some space and prepare again: "
            "what is done is kept"
        ) from None


def _cut_out(path: Path, tracks: list[Track]) -> Iterator[tuple[Track, _Cut, Pcm]]:
    """Each of `tracks` with its pictures and its speech, one after the other. Raises MediaError."""
    frames = enumerate(read_frames(path))
    with Speech(path) as speech:
        for track in tracks:
            cut = _Cut(track)
            with PriorExtractor() as extractor:
                for index, rgb in frames:
                    if index >= track.first:
                        cut.look(rgb, extractor)
                    if index == track.last - 1:
                        break
            last = track.last * SAMPLES_A_FRAME + SOUND_AFTER_SAMPLES
            yield track, cut, speech.take(track.first * SAMPLES_A_FRAME, last)


def _refused(
    name: str, path: Path, reason: Reason, first: int = 0, last: int = 0, *, detail: str = ""
) -> RefusedRow:
    return RefusedRow(name, str(path), first / FRAME_RATE, (last - first) / FRAME_RATE, reason.value, detail)


def _clip_row(clip: str, name: str, path: Path, track: Track, *, index: int, sound: bool) -> ClipRow:
    frames, square = track.last - track.first, track.square
    return ClipRow(
        clip,
        name,
        str(path),
        index,
        track.first / FRAME_RATE,
        frames,
        frames / FRAME_RATE,
        "yes" if sound else "no",
        square.left,
        square.top,
        square.side,
    )


def prepare_video(name: str, path: Path, out: Path) -> VideoResult:
    """Turn one video into clips in `out`: `name`.npz, or `name`__t0.npz and so on where it holds several.

    Each is written whole or not at all. Raises InputError on a full disk.
    """
    cv2.setNumThreads(1)
    clips: list[ClipRow] = []
    refused: list[RefusedRow] = []
    try:
        tracks, count = find_tracks(path)
        if not tracks:
            refused.append(_refused(name, path, Reason.NO_FACE, 0, count))
        refused += [_refused(name, path, t.refused, t.first, t.last) for t in tracks if t.refused is not None]
        good = [track for track in tracks if track.refused is None]
        for index, (track, cut, pcm) in enumerate(_cut_out(path, good)):
            reason = cut.refused()
            if reason is not None:
                refused.append(_refused(name, path, reason, track.first, track.last))
                continue
            clip = name if len(tracks) == 1 else f"{name}{NAME_JOINT}t{index}"
            _write(out / f"{clip}.npz", cut.arrays(pcm))
            clips.append(_clip_row(clip, name, path, track, index=index, sound=len(pcm) > 0))
    except MediaError as error:
        refused.append(_refused(name, path, Reason.UNREADABLE, detail=str(error)))
    return VideoResult(name, tuple(clips), tuple(refused))


class Preparation:
    """The work of one `avcall prepare`: `todo` are the videos that are left, by name.

    Raises InputError when there is no video, or when `out` cannot be used.
    """

    def __init__(self, sources: list[Path], out: Path) -> None:
        videos = find_videos(sources)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--out {out} cannot be made ({error.strerror}); choose another folder"
            ) from None
        self.out, self.manifest = out, Manifest(out)
        self.todo = {name: path for name, path in videos.items() if not self.manifest.done(name)}
        self.done = len(videos) - len(self.todo)

    def run(self, workers: int) -> Iterator[VideoResult]:
        """Prepare what is left; yields each video once it is recorded. Raises InputError on a full disk."""
        with ProcessPoolExecutor(
            workers,
            # Forked workers would inherit locks of threads that are not there.
            mp_context=multiprocessing.get_context("spawn"),
            # On Ctrl-C a worker ends at once and without a traceback: its video is not recorded yet.
            initializer=signal.signal,
            initargs=(signal.SIGINT, signal.SIG_DFL),
        ) as pool:
            jobs = [pool.submit(prepare_video, name, path, self.out) for name, path in self.todo.items()]
            try:
                for job in as_completed(jobs):
                    result = job.result()
                    self.manifest.add(result)
                    yield result
            except BrokenProcessPool:
                raise InputError(
                    "a worker was ended from outside (for example, for want of memory); "
                    "prepare again with fewer --workers: what is done is kept"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)
