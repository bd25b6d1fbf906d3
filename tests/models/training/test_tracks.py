"""Tracks: where one ends and the next begins, what is refused, and where the square lies."""

import numpy as np
import pytest

from models.training.tracks import (
    FACE_HEIGHTS,
    MAX_FRAMES,
    FaceBox,
    Reason,
    ShotDetector,
    Square,
    Track,
    TrackBuilder,
    place,
)


def face(x: float = 320, y: float = 180, height: float = 100) -> FaceBox:
    return FaceBox(x - 0.4 * height, y - height / 2, x + 0.4 * height, y + height / 2)


def build(
    frames: list[list[FaceBox]], cuts: tuple[int, ...] = (), size: tuple[int, int] = (640, 360)
) -> list[Track]:
    builder = TrackBuilder(*size)
    tracks = [
        track for index, faces in enumerate(frames) for track in builder.push(faces, new_shot=index in cuts)
    ]
    return tracks + builder.finish()


def spans(tracks: list[Track]) -> list[tuple[int, int, Reason | None]]:
    return [(track.first, track.last, track.refused) for track in tracks]


def test_one_face_is_one_track_and_its_square_stays() -> None:
    tracks = build([[face(320 + i % 5)] for i in range(40)])
    assert spans(tracks) == [(0, 40, None)]
    assert tracks[0].square.side == round(100 * FACE_HEIGHTS)
    assert abs(tracks[0].square.left + tracks[0].square.side / 2 - 322) <= 1


@pytest.mark.parametrize(
    ("second", "cut"),
    [(face(320), True), (face(420), False), (face(320, height=170), False)],
    ids=["another shot", "a jump", "another size"],
)
def test_a_cut_ends_a_track(second: FaceBox, cut: bool) -> None:
    frames = [[face()]] * 30 + [[second]] * 40
    assert spans(build(frames, (30,) if cut else ())) == [(0, 30, None), (30, 70, None)]


def test_a_head_that_one_square_cannot_hold_gives_several() -> None:
    tracks = build([[face(100 + 3 * i)] for i in range(100)])
    assert len(tracks) > 1
    assert [t.first for t in tracks[1:]] == [t.last for t in tracks[:-1]]
    for track in tracks:
        for index in range(track.first, track.last):
            box = face(100 + 3 * index)
            assert track.square.left <= box.left and box.right <= track.square.left + track.square.side


def test_a_short_look_away_is_bridged_and_a_long_one_ends_the_track() -> None:
    away: list[list[FaceBox]] = [[]]
    assert spans(build([[face()]] * 30 + away * 10 + [[face()]] * 30)) == [(0, 70, None)]
    long = build(away * 7 + [[face()]] * 30 + away * 40 + [[face()]] * 30 + away * 3)
    assert spans(long) == [(7, 37, None), (77, 107, None)]


def test_long_tracks_are_divided() -> None:
    assert spans(build([[face()]] * (MAX_FRAMES + 30))) == [
        (0, MAX_FRAMES, None),
        (MAX_FRAMES, MAX_FRAMES + 30, None),
    ]


@pytest.mark.parametrize(
    ("frame", "count", "reason"),
    [
        ([face()], 24, Reason.SHORT),
        ([face(200), face(440, height=60)], 40, Reason.SECOND_FACE),
        ([face(200), face(440, height=40)], 40, None),  # somebody far behind
        ([face(height=60)], 40, Reason.TOO_SMALL),
        ([face(height=300)], 40, Reason.TOO_NEAR),
    ],
)
def test_what_is_refused(frame: list[FaceBox], count: int, reason: Reason | None) -> None:
    assert [track.refused for track in build([frame] * count)] == [reason]


def test_a_second_face_for_a_moment_is_borne() -> None:
    frames = [[face(200)]] * 38 + [[face(200), face(440)]] * 2
    assert spans(build(frames)) == [(0, 40, None)]


def test_the_face_that_was_followed_stays_the_face() -> None:
    frames = [[face(200)]] * 30 + [[face(460, height=120), face(201)]] * 3 + [[face(202)]] * 30
    assert spans(build(frames)) == [(0, 63, None)]


def test_a_cropped_video_is_divided_by_cuts_alone() -> None:
    frames: list[list[FaceBox]] = [[]] * 60
    tracks = build(frames, (30,), (256, 256))
    assert spans(tracks) == [(0, 30, None), (30, 60, None)]
    assert {track.square for track in tracks} == {Square(0, 0, 256)}


def test_no_face_is_no_track() -> None:
    assert build([[]] * 60) == []


@pytest.mark.parametrize("at", [(30, 30), (610, 340), (320, 180)])
def test_the_square_lies_in_the_frame_and_holds_every_face_in_it(at: tuple[int, int]) -> None:
    boxes = [face(np.clip(at[0] + dx, 40, 600), np.clip(at[1], 50, 310)) for dx in (0, 0, 0, 0, 60, -20)]
    square = place(boxes, 640, 360)
    assert 0 <= square.left <= 640 - square.side
    assert 0 <= square.top <= 360 - square.side
    for box in boxes:
        assert square.left <= box.left + 1 and box.right - 1 <= square.left + square.side


def test_a_square_is_cut_and_scaled() -> None:
    rgb = np.zeros((360, 640, 3), np.uint8)
    rgb[100:200, 300:400] = 255
    assert Square(300, 100, 100).cut(rgb).min() == 255
    assert Square(200, 0, 300).cut(rgb).shape == (256, 256, 3)
    assert np.array_equal(Square(10, 20, 256).cut(rgb), rgb[20:276, 10:266])


def test_colours_that_change_at_once_are_a_cut_and_movement_is_none() -> None:
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(0, 255, (9, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    other = np.kron(rng.integers(0, 255, (9, 16, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    shots = ShotDetector()
    moves = [np.roll(scene, 3 * i, axis=1) for i in range(4)]
    assert [shots.begins(rgb) for rgb in (*moves, other, other)] == [False] * 4 + [True, False]


def test_light_that_flickers_a_little_is_no_cut() -> None:
    scene = np.random.default_rng(0).integers(60, 160, (180, 320, 3)).astype(np.uint8)
    shots = ShotDetector()
    lit = [np.clip(scene * gain, 0, 255).astype(np.uint8) for gain in (1.0, 1.1, 1.0, 1.1)]
    assert not any(shots.begins(rgb) for rgb in lit)
