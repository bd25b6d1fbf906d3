"""Cheap stand-ins for what a call needs: networks, tracker, camera, microphone, speaker and display."""

import threading
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from avcall.bitstream.live import LiveKeyframes
from avcall.clock import Clock, wait_until
from avcall.types import (
    FRAME_MS,
    FRAME_SIZE_PX,
    NUM_KEYPOINTS,
    SAMPLE_RATE_HZ,
    AudioChunk,
    F32Array,
    FaceCrop,
    HeldKeyframe,
    Keypoints,
    Pcm,
    Priors,
    U8Image,
    VideoFrame,
)
from models.expressions import EYES
from models.priors import NUM_LANDMARKS
from models.sight import SecondLook
from receiver.speaker import Pull
from sender.track import FaceState


def still_keypoints(x: float = 0.0) -> Keypoints:
    """Keypoints with identity jacobians, all at (x, 0)."""
    values = np.zeros((NUM_KEYPOINTS, 2), np.float32)
    values[:, 0] = x
    return Keypoints(values, np.tile(np.eye(2, dtype=np.float32), (NUM_KEYPOINTS, 1, 1)))


def open_eyed_landmarks(openness: float = 0.3) -> F32Array:
    """(478, 2) landmarks in the middle of the picture; eyes 20 wide, `openness` times that high."""
    points = np.full((NUM_LANDMARKS, 2), 128, np.float32)
    for (upper, lower), (left, right) in EYES:
        points[[upper, lower], 1] += np.float32(10 * openness) * np.array([-1, 1], np.float32)
        points[[left, right], 0] += np.array([-10, 10], np.float32)
    return points


def make_crop(pts_ms: int = 0, grey: int = 100, *, found: bool = True) -> FaceCrop:
    """A plain crop, with landmarks if a face was `found`: all in the middle, but eyes that are open."""
    prior = np.zeros((64, 64), np.uint8)
    landmarks = open_eyed_landmarks() if found else None
    return FaceCrop(grey_picture(grey), Priors(prior, prior, landmarks), pts_ms)


def textured_crop(seed: int = 0) -> FaceCrop:
    """A picture that fills whatever size a keyframe may take."""
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)
    return FaceCrop(cv2.resize(coarse, (FRAME_SIZE_PX, FRAME_SIZE_PX)), make_crop().priors, 0)


def grey_picture(grey: int) -> U8Image:
    """(256, 256, 3) of one grey."""
    return np.full((FRAME_SIZE_PX, FRAME_SIZE_PX, 3), grey, np.uint8)


def unrefined(keypoints: Keypoints) -> SecondLook:
    """A second look that leaves them as they are."""
    return SecondLook(keypoints, np.zeros(0, np.float32), np.zeros(0, np.float32), 0.0)


class FakeRuntime:
    """The networks: `detect` measures the grey of a crop, `synthesize` paints it back."""

    provider = "fake"
    has_preview = False

    def __init__(self) -> None:
        self.keyframes: LiveKeyframes[U8Image] = LiveKeyframes()
        self.windows: list[tuple[F32Array, bool]] = []
        self.fails_with: Exception | None = None
        self.beside: list[HeldKeyframe] = []  # the keyframes that a second look was taken with
        self.went_on_from: list[SecondLook | None] = []

    def warm_up(self) -> None:
        """It is warm."""

    def motion_coder(self) -> "FakeCoder":
        """For calls whose motion is in half floats."""
        return FakeCoder()

    def detect(self, rgb: U8Image, priors: Priors) -> Keypoints:
        """Keypoints whose x is the grey of the crop, 0..255 as -1..1."""
        return still_keypoints(float(rgb.mean()) / 127.5 - 1)

    def refine(
        self,
        driving: Keypoints,
        rgb: U8Image,
        landmarks: F32Array | None,
        keyframe: HeldKeyframe,
        last: SecondLook | None = None,
    ) -> SecondLook:
        """As they are: the grey was measured well."""
        self.beside.append(keyframe)
        self.went_on_from.append(last)
        return unrefined(driving)

    def hold(self, rgb: U8Image, keypoints: Keypoints, landmarks: F32Array | None) -> HeldKeyframe:
        """A keyframe without part maps."""
        return HeldKeyframe(rgb, keypoints, landmarks)

    def preview(self, keyframe: HeldKeyframe, driving: Keypoints, rgb: U8Image) -> tuple[U8Image, float]:
        """A corner of the keyframe as it is, and how far its grey is from the camera's."""
        return keyframe.rgb[:64, :64], abs(float(keyframe.rgb.mean()) - float(rgb.mean())) / 255

    def set_keyframe(self, index: int, rgb: U8Image, keypoints: Keypoints) -> None:
        """Keep it."""
        self.keyframes.put(index, rgb)

    def has_keyframe(self, index: int) -> bool:
        """Whether it was set."""
        return index in self.keyframes

    def synthesize(self, index: int, keypoints: Keypoints, mel: F32Array, *, speech: bool = True) -> U8Image:
        """A grey picture that says what motion it was drawn from."""
        if self.fails_with is not None:
            raise self.fails_with
        assert index in self.keyframes
        self.windows.append((mel, speech))
        return grey_picture(round((float(keypoints.values[:, 0].mean()) + 1) * 127.5))


class FakeCoder:
    """A motion coder that is never asked to code."""

    digest = ""


class FakeTracker:
    """A tracker that sees a face in every frame but those that `blind` names by pts."""

    def __init__(self, blind: Iterable[int] = ()) -> None:
        self.state = FaceState.SEARCHING
        self.closed = False
        self._blind = frozenset(blind)

    def crop(self, frame: VideoFrame) -> FaceCrop | None:
        """The frame's grey as a crop."""
        if frame.pts_ms in self._blind:
            self.state = FaceState.LOST if self.state is not FaceState.SEARCHING else self.state
            return None
        self.state = FaceState.TRACKED
        return make_crop(frame.pts_ms, int(frame.rgb.flat[0]))

    def close(self) -> None:
        """Remember it."""
        self.closed = True


class FakeCamera:
    """Grey pictures in real time; picture k has the grey k modulo 200. Ends, or fails, after `frames`."""

    frame_rate = 25.0
    description = "fake camera"

    def __init__(self, clock: Clock, frames: int = 10_000, error: Exception | None = None) -> None:
        self._clock = clock
        self._origin_ms = clock.now_ms()
        self._numbers = iter(range(frames))
        self._error = error
        self._stop = threading.Event()
        self.closed = False

    def read(self) -> VideoFrame | None:
        """The next picture when it is due."""
        number = next(self._numbers, None)
        if number is None:
            if self._error is not None:
                raise self._error
            return None
        if not wait_until(self._clock, self._origin_ms + number * FRAME_MS, self._stop):
            return None
        return VideoFrame(np.full((2, 2, 3), number % 200, np.uint8), number * FRAME_MS)

    def close(self) -> None:
        """Make `read` return."""
        self.closed = True
        self._stop.set()


class FakeMicrophone:
    """A tone in real time, in chunks of 40 ms; fails after `chunks` if there is an `error`."""

    description = "fake microphone"

    def __init__(self, clock: Clock, chunks: int = 10_000, error: Exception | None = None) -> None:
        self._clock = clock
        self._origin_ms = clock.now_ms()
        self._chunks = tone_chunks(chunks)
        self._error = error
        self._stop = threading.Event()
        self.closed = False

    def read(self) -> AudioChunk | None:
        """The next chunk when it is complete."""
        chunk = next(self._chunks, None)
        if chunk is None and self._error is not None:
            raise self._error
        if chunk is None:
            return None
        due_ms = self._origin_ms + chunk.pts_ms + 40
        return chunk if wait_until(self._clock, due_ms, self._stop) else None

    def close(self) -> None:
        """Make `read` return."""
        self.closed = True
        self._stop.set()


def tone_chunks(count: int, hz: float = 440.0) -> Iterator[AudioChunk]:
    """`count` chunks of 40 ms of a continuous tone."""
    samples = 40 * SAMPLE_RATE_HZ // 1000
    for number in range(count):
        t = (np.arange(samples) + number * samples) / SAMPLE_RATE_HZ
        yield AudioChunk((8000 * np.sin(2 * np.pi * hz * t)).astype(np.int16), number * 40)


class FakeSpeaker:
    """Pulls 20 ms every 20 ms, and keeps what it got. `start_error` and `close_error` are raised there."""

    description = "fake speaker"
    latency_ms = 0.0
    underruns = 0

    def __init__(
        self,
        clock: Clock,
        start_error: Exception | None = None,
        close_error: Exception | None = None,
    ) -> None:
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._start_error, self._close_error = start_error, close_error
        self.heard: list[Pcm] = []
        self.closed = False

    def start(self, pull: Pull) -> None:
        """Begin to pull, in a thread."""
        if self._start_error is not None:
            raise self._start_error
        self._thread = threading.Thread(target=self._run, args=(pull,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop pulling."""
        self.closed = True
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
        if self._close_error is not None:
            raise self._close_error

    def _run(self, pull: Pull) -> None:
        due_ms = self._clock.now_ms()
        while wait_until(self._clock, due_ms, self._stop):
            try:
                self.heard.append(pull(320))
            except Exception:  # as the real ones do
                self.heard.append(np.zeros(320, np.int16))
            due_ms += 20


class FakeDisplay:
    """Keeps what it was shown. `close_by_user` makes `poll` say so."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, U8Image]] = []
        self.stills: list[U8Image] = []
        self.close_by_user = False
        self.closed = False

    def show(self, rgb: U8Image, pts_ms: int) -> None:
        """Keep it."""
        self.shown.append((pts_ms, rgb))

    def show_still(self, rgb: U8Image) -> None:
        """Keep it."""
        self.stills.append(rgb)

    def poll(self) -> bool:
        """False once `close_by_user`."""
        return not self.close_by_user

    def close(self) -> None:
        """Remember it."""
        self.closed = True
