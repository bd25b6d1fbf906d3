from collections.abc import Iterable, Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest

from avcall.bitstream import motion
from avcall.bitstream.motion import MotionMode
from avcall.errors import NoFaceError
from avcall.types import FaceCrop, U8Image, VideoFrame
from sender.detect import Detector
from sender.encode import KeyframeEncoder
from sender.picture import PicturePath
from sender.preview import Previewer
from sender.track import FaceState
from tests.fakes import (
    FakeRuntime,
    FakeTracker,
    grey_picture,
    make_crop,
    open_eyed_landmarks,
    textured_crop,
)


def make_path(blind: Iterable[int] = (), photo_grey: int | None = None) -> PicturePath:
    detector = Detector(FakeRuntime())  # type: ignore[arg-type]
    return PicturePath(
        detector,
        FakeTracker(blind),  # type: ignore[arg-type]
        KeyframeEncoder(detector, 4000),
        None if photo_grey is None else make_crop(grey=photo_grey),
    )


def frame(number: int, grey: int = 100) -> VideoFrame:
    return VideoFrame(np.full((4, 4, 3), grey, np.uint8), number * 40)


def x_of(payload: bytes) -> float:
    return float(motion.decode(MotionMode.FP16, payload).values[:, 0].mean())


def test_the_first_face_is_a_keyframe_and_every_face_is_motion() -> None:
    path = make_path()
    first, second = path.process(frame(0)), path.process(frame(1, grey=150))
    assert first.keyframe is not None and second.keyframe is None
    assert first.motion is not None and second.motion is not None
    assert (first.motion.pts_ms, second.motion.pts_ms) == (0, 40)
    assert x_of(second.motion.payload) == pytest.approx(150 / 127.5 - 1, abs=1e-3)
    assert first.face is FaceState.TRACKED


def test_a_keyframe_is_made_when_it_is_wanted() -> None:
    path = make_path()
    path.process(frame(0))
    path.want_keyframe()
    again, after = path.process(frame(1)), path.process(frame(2))
    assert again.keyframe is not None and again.keyframe.index == 1
    assert after.keyframe is None


def test_a_keyframe_waits_for_a_face_that_is_fully_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_path()
    monkeypatch.setattr(path._tracker, "crop", lambda frame: make_crop(frame.pts_ms, found=False))
    hidden = path.process(frame(0))
    assert hidden.keyframe is None and hidden.motion is not None


def test_a_keyframe_waits_for_open_eyes_and_a_photo_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for photo_grey, taken in ((None, [False, True]), (90, [True, False])):
        path = make_path(photo_grey=photo_grey)
        openness = iter((0.05, 0.3))

        def crop(frame: VideoFrame, openness: Iterator[float] = openness) -> FaceCrop:
            made = make_crop(frame.pts_ms)
            return replace(made, priors=replace(made.priors, landmarks=open_eyed_landmarks(next(openness))))

        monkeypatch.setattr(path._tracker, "crop", crop)
        assert [path.process(frame(i)).keyframe is not None for i in range(2)] == taken


def test_a_lost_face_gives_no_motion_and_says_so() -> None:
    path = make_path(blind=[40])
    path.process(frame(0))
    lost = path.process(frame(1))
    assert (lost.face, lost.motion, lost.keyframe) == (FaceState.LOST, None, None)
    assert path.process(frame(2)).motion is not None


def test_no_face_for_ten_seconds_is_an_error() -> None:
    path = make_path(blind=range(0, 20_000, 40))
    for number in range(250):
        assert path.process(frame(number)).face is FaceState.SEARCHING
    with pytest.raises(NoFaceError, match="no face before the camera for 10 s") as error:
        path.process(frame(250))
    assert "\n" not in str(error.value)


def test_a_face_that_was_seen_may_be_away_for_long() -> None:
    path = make_path(blind=range(40, 40_000, 40))
    for number in range(500):
        path.process(frame(number))
    path.finish()


def test_a_whole_video_without_a_face_is_an_error() -> None:
    path = make_path(blind=[0, 40])
    path.process(frame(0))
    path.process(frame(1))
    with pytest.raises(NoFaceError, match="no face in the whole video"):
        path.finish()


def test_a_photo_is_the_keyframe_and_moves_as_the_driver_moves() -> None:
    path = make_path(photo_grey=64)
    first, second = path.process(frame(0, grey=100)), path.process(frame(1, grey=110))
    photo_x = x_of(first.motion.payload) if first.motion else 0.0
    assert first.keyframe is not None
    assert np.allclose(first.keyframe.keypoints.values[:, 0], photo_x, atol=2e-3)
    assert photo_x == pytest.approx(64 / 127.5 - 1, abs=0.02)
    assert second.motion is not None
    assert x_of(second.motion.payload) - photo_x == pytest.approx(10 / 127.5, abs=2e-3)


def test_closing_frees_the_tracker() -> None:
    path = make_path()
    path.close()
    assert path._tracker.closed  # type: ignore[attr-defined]


def progressive(**options: object) -> PicturePath:
    detector = Detector(FakeRuntime())  # type: ignore[arg-type]
    keyframes = KeyframeEncoder(detector, 4000, 1500)
    return PicturePath(detector, FakeTracker(), keyframes, **options)  # type: ignore[arg-type]


def test_the_first_picture_is_sent_twice_rough_and_better_and_later_ones_once() -> None:
    path = progressive()
    made = [path.process(frame(number)).keyframe for number in range(3)]
    assert [one and (one.index, one.preliminary) for one in made] == [(0, True), (1, False), None]
    path.want_keyframe(6)
    again = path.process(frame(3)).keyframe
    assert again is not None and (again.index, again.preliminary) == (6, False)


def test_what_the_first_picture_shows_is_coded_once_more_with_more_bits() -> None:
    detector, tracker = Detector(FakeRuntime()), FakeTracker()  # type: ignore[arg-type]
    encoder = KeyframeEncoder(detector, 4000, 1500, sharp_bytes=12_000)
    path = PicturePath(detector, tracker, encoder)  # type: ignore[arg-type]
    pictures = iter([textured_crop(seed) for seed in range(9)])
    tracker.crop = lambda _: next(pictures)  # type: ignore[method-assign]
    path.sharpen(3)  # there is none yet
    rough, full, nothing = (path.process(frame(number)).keyframe for number in range(3))
    assert rough is not None and rough.preliminary and full is not None and nothing is None
    path.sharpen(2)
    sharp = path.process(frame(3)).keyframe
    assert sharp is not None and (sharp.index, sharp.instead_of) == (2, full.index)
    assert 4000 < sharp.image_bytes <= 12_000
    first = textured_crop(0).rgb
    assert off(sharp.rgb, first) < off(full.rgb, first) < off(full.rgb, textured_crop(1).rgb)


def test_a_plain_picture_is_not_sent_once_more() -> None:
    detector = Detector(FakeRuntime())  # type: ignore[arg-type]
    encoder = KeyframeEncoder(detector, 4000, sharp_bytes=12_000)
    path = PicturePath(detector, FakeTracker(), encoder)  # type: ignore[arg-type]
    assert path.process(frame(0)).keyframe is not None
    path.sharpen(1)
    assert all(path.process(frame(number)).keyframe is None for number in range(1, 4))


def off(rgb: U8Image, other: U8Image) -> float:
    """The mean absolute difference."""
    return float(np.abs(rgb.astype(int) - other.astype(int)).mean())


def test_a_picture_too_busy_for_a_rough_one_is_sent_as_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    busy = FaceCrop(cv2.resize(noise, (256, 256)), make_crop().priors, 0)
    detector = Detector(FakeRuntime())  # type: ignore[arg-type]
    tracker = FakeTracker()
    monkeypatch.setattr(tracker, "crop", lambda _: busy)
    path = PicturePath(detector, tracker, KeyframeEncoder(detector, 30_000, 300))  # type: ignore[arg-type]
    made = [path.process(frame(number)).keyframe for number in range(3)]
    assert [one.index for one in made if one is not None] == [0]


def test_a_keyframe_that_was_coded_while_the_face_got_lost_still_goes_out() -> None:
    path = make_path(blind=[40])
    path._coding.submit(lambda: path._keyframes.encode(make_crop(), 9))
    first, lost = path.process(frame(0)), path.process(frame(1))
    assert first.keyframe is not None and lost.keyframe is not None
    assert (first.keyframe.index, lost.keyframe.index) == (9, 10)


def test_coding_in_a_thread_gives_the_same_keyframes() -> None:
    path = progressive(threaded=True)
    made: list[int] = []
    number = 0
    while len(made) < 2:
        keyframe = path.process(frame(number)).keyframe
        made += [keyframe.index] if keyframe is not None else []
        number += 1
    path.close()
    assert made == [0, 1]


def test_every_fifth_frame_is_compared_with_what_the_receiver_holds() -> None:
    runtime = FakeRuntime()
    path = progressive(previewer=Previewer(runtime))  # type: ignore[arg-type]
    first = path.process(frame(0)).keyframe
    assert first is not None
    found = [path.process(frame(number, grey=151), [first]).estimates for number in range(1, 11)]
    assert [len(estimates) for estimates in found] == [0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    assert found[3][0].error == pytest.approx(0.2, abs=0.02)
    assert path.process(frame(11)).estimates == ()


def test_keypoints_get_a_second_look_beside_the_reference_in_use() -> None:
    path = progressive()
    runtime: FakeRuntime = path._detector._runtime  # type: ignore[assignment]
    first = path.process(frame(0)).keyframe
    assert first is not None and not runtime.beside
    other = replace(first, held=replace(first.held, rgb=grey_picture(9)))
    path.process(frame(1), [first, other])
    assert len(runtime.beside) == 1 and runtime.beside[0] is first.held
    assert first.held.landmarks is not None


def test_a_photo_is_compared_with_nothing() -> None:
    runtime = FakeRuntime()
    detector = Detector(runtime)  # type: ignore[arg-type]
    keyframes = KeyframeEncoder(detector, 4000, 1500)
    path = PicturePath(
        detector,
        FakeTracker(),  # type: ignore[arg-type]
        keyframes,
        make_crop(grey=64),
        previewer=Previewer(runtime),  # type: ignore[arg-type]
    )
    first = path.process(frame(0))
    assert first.keyframe is not None and first.keyframe.preliminary
    held = [first.keyframe]
    assert all(path.process(frame(number), held).estimates == () for number in range(1, 12))
    assert not runtime.beside
