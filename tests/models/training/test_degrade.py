"""What is made amiss, what is measured of it, and one run of tiny weights through all of it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from avcall.errors import InputError
from avcall.types import Keypoints, Priors, U8Image
from models.dense_motion import MAX_FLOW
from models.metrics.picture import FACE_SIDES
from models.training.data import Clip
from models.training.degrade import (
    COVERED_FROM,
    COVERS,
    Input,
    Numbers,
    Proving,
    Run,
    conditions,
    main,
    measure,
    moments,
    strip,
    table,
    turned,
    with_glasses,
    with_hand,
)
from models.training.drawing import still_of
from tests.models.tiny import landmarks, write_prepared
from tests.units import make_keypoints

ONES = np.ones((64, 64), np.uint8)


class FakeExtractor:
    """Sees another mesh than the prepared one."""

    def extract(self, rgb: U8Image) -> Priors:
        return Priors(ONES * 3, ONES, landmarks())


def given() -> Input:
    return Input(np.full((256, 256, 3), 100, np.uint8), Priors(ONES, ONES * 2, landmarks()))


def test_each_condition_takes_away_what_its_name_says() -> None:
    spoils = conditions(FakeExtractor())  # type: ignore[arg-type]
    found = {name: spoil(given(), COVERED_FROM + 1) for name, spoil in spoils.items()}
    assert next(iter(spoils)) == "as it is"
    assert found["as it is"].priors.mesh.all() and found["as it is"].speech
    assert not found["no speech"].speech
    assert not found["no mesh"].priors.mesh.any() and found["no mesh"].priors.mask.all()
    assert not found["no mask"].priors.mask.any() and found["no mask"].priors.mesh.all()
    for name, prior in (("mesh on and off", "mesh"), ("mask on and off", "mask")):
        seen = [bool(getattr(spoils[name](given(), number).priors, prior).any()) for number in range(4)]
        assert seen == [True, False, True, False]
    hand = found["hand"]
    assert hand.priors.mesh.max() == 3  # looked for again
    for name in COVERS:
        assert np.array_equal(spoils[name](given(), COVERED_FROM - 1).rgb, given().rgb)
    # A hand of the cheeks' colour would not show on this picture.
    assert not np.array_equal(found["glasses"].rgb, given().rgb)


def test_a_held_mesh_is_the_first_one() -> None:
    spoil = conditions(FakeExtractor())["mesh held"]  # type: ignore[arg-type]
    spoil(given(), 0)
    later = spoil(Input(given().rgb, Priors(ONES * 9, ONES * 2, None)), 1)
    assert (later.priors.mesh.max(), later.priors.mask.max()) == (1, 2)


def test_a_hand_has_the_colour_of_the_cheeks_and_hides_the_mouth() -> None:
    points = landmarks()
    points[list(FACE_SIDES)] = (60, 128), (190, 128)
    points[[50, 280]] = (80, 150), (170, 150)
    rgb = np.zeros((256, 256, 3), np.uint8)
    rgb[140:160, 70:180] = (200, 150, 120)
    shown = with_hand(rgb, points)
    middle = points[[13, 14]].mean(0).astype(int)
    assert shown[middle[1], middle[0]].tolist() == [200, 150, 120]
    assert not np.array_equal(shown, rgb) and not rgb[:140].any()


def test_glasses_go_around_the_eyes_and_leave_them_free() -> None:
    points = landmarks()
    points[list(FACE_SIDES)] = (60, 110), (190, 110)
    points[[33, 133, 362, 263]] = (85, 112), (105, 108), (145, 108), (165, 112)
    rgb = np.full((256, 256, 3), 200, np.uint8)
    shown = with_glasses(rgb, points)
    assert (shown[110, [95, 155]] == 200).all()
    assert (shown[110, [125, 65, 185]] < 100).all()  # bridge and temples
    assert (shown[110 + 20, [95, 155]] < 100).all() and (shown[160:] == 200).all()


def test_numbers_are_in_multiples_of_the_cameras() -> None:
    camera = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 10, 20)])
    drawn = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 10, 40)])
    flat = Keypoints(make_keypoints(1).values, np.tile(np.diag([2.0, -0.5]).astype(np.float32), (10, 1, 1)))
    found = measure(camera, drawn, list(camera), [flat, flat], 1.5)
    assert (found.change, found.step) == (pytest.approx(2.0), pytest.approx(3.0))
    assert found.flicker == pytest.approx((0 + 20) / 2 / 255)
    assert (found.flow, found.determinant) == (1.5, (pytest.approx(1.0), pytest.approx(1.0)))
    assert measure(camera, drawn, None, [flat], 1.5).psnr is None
    assert np.isfinite(
        measure(camera[:1].repeat(2, 0), drawn[:2], None, [flat], 0.0).change
    )  # a still camera


def test_a_head_from_the_front_is_not_turned() -> None:
    points = landmarks()
    points[list(FACE_SIDES)] = (60, 128), (190, 128)
    points[1] = 125, 128
    assert turned(points) == pytest.approx(0)
    points[1] = 190, 128
    assert turned(points) == pytest.approx(1)


def test_the_strip_leaves_out_what_a_still_picture_does_not_show() -> None:
    frames = np.zeros((3, 256, 256, 3), np.uint8)
    numbers = Numbers(20.0, 1.0, 1.0, 0.0, 1.0, (1.0, 2.0))
    runs = [Run(name, frames, frames, numbers) for name in ("as it is", "mesh on and off", "hand")]
    assert strip(runs, [0, 2]).shape == (20 + 2 * 128, 4 * 128, 3)  # camera, as it is, camera with hand, hand


def test_the_table_has_the_worst_of_what_must_not_explode() -> None:
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    mild = Run("other face", frames, frames, Numbers(None, 1.0, 1.0, 0.0, 0.9, (1.0, 2.0)))
    wild = Run("other face", frames, frames, Numbers(None, 2.0, 3.0, 0.0, 1.9, (0.5, 9.0)))
    assert table([[mild], [wild]]).rows == (
        ("other face", "-", "1.50", "3.00", "0.0000", "1.90", "0.50-9.00"),
    )


def test_a_run_goes_from_the_keyframe_on(weights: Path, tmp_path: Path) -> None:
    clip = Clip(write_prepared(tmp_path / "a.npz", frames=8))
    tester = Proving(weights, frames=5)
    still = still_of(tester.runtime, clip)
    assert still is not None
    run = tester.run("as it is", clip, still, lambda one, _: one)
    assert np.array_equal(run.camera[0], clip.picture(0))
    assert len(run.drawn) == 5
    assert run.numbers.psnr is not None
    assert 0 < run.numbers.flow <= MAX_FLOW
    assert all(number < 4 for number in moments(clip, 0, 4))
    with pytest.raises(InputError, match="no face"):
        clip._landmarks[:] = 0
        tester.run("as it is", clip, still, lambda one, _: one)


def test_the_command_writes_a_strip_a_clip_and_the_numbers(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [str(write_prepared(tmp_path / f"{name}.npz", seed=ord(name))) for name in "ab"]
    arguments = [
        "degrade",
        *clips,
        "--out",
        str(tmp_path / "out"),
        "--weights",
        str(weights),
        "--frames",
        "3",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "b.png", "degrade.json"}
    stored = json.loads((tmp_path / "out" / "degrade.json").read_text())
    assert stored["a"]["other face"]["psnr"] is None
    assert stored["a"]["no mesh"]["flow"] <= MAX_FLOW
    assert "other face" in capsys.readouterr().out
