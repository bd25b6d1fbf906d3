"""A keyframe that is moved by a clip: which frame it is, which priors, whose motion."""

from pathlib import Path

import numpy as np
import pytest

from avcall.bitstream.keyframe import StillCodec, decode_still, encode_still
from avcall.bitstream.motion_coded import MotionCoder
from avcall.types import F32Array, HeldKeyframe, Keypoints, Priors, U8Image
from models.retarget import Retarget
from models.sight import SecondLook
from models.training.data import Clip
from models.training.drawing import Puppet, Still, first_face, followed, held_frame, priors_of, still_of
from tests.fakes import unrefined
from tests.models.tiny import write_prepared
from tests.tables import make_tables
from tests.units import make_keypoints


class FakeRuntime:
    """Remembers what it was asked; every detection is another set of keypoints."""

    def __init__(self) -> None:
        self.keyframe: U8Image | None = None
        self.detected: list[Priors] = []
        self.posed: list[Keypoints] = []
        self.last: list[SecondLook | None] = []

    def detect(self, rgb: U8Image, priors: Priors) -> Keypoints:
        self.detected.append(priors)
        return make_keypoints(len(self.detected))

    def hold(self, rgb: U8Image, keypoints: Keypoints, landmarks: F32Array | None) -> HeldKeyframe:
        return HeldKeyframe(rgb, keypoints, landmarks)

    def refine(
        self,
        driving: Keypoints,
        rgb: U8Image,
        landmarks: F32Array | None,
        keyframe: HeldKeyframe,
        last: SecondLook | None = None,
    ) -> SecondLook:
        assert keyframe.rgb is self.keyframe
        self.last.append(last)
        return unrefined(Keypoints(driving.values + 0.01, driving.jacobians))

    def set_keyframe(self, index: int, rgb: U8Image, keypoints: Keypoints) -> None:
        self.keyframe = rgb

    def synthesize(self, index: int, keypoints: Keypoints, mel: F32Array, *, speech: bool) -> U8Image:
        self.posed.append(keypoints)
        return np.full((256, 256, 3), 100 if speech else 50, np.uint8)


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """Six frames, the first of which shows no face."""
    write_prepared(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    arrays["landmarks"][0] = 0
    np.savez(tmp_path / "a.npz", **arrays)
    return Clip(tmp_path / "a.npz")


def test_the_first_frame_with_a_face_is_the_still(clip: Clip) -> None:
    runtime = FakeRuntime()
    still = still_of(runtime, clip)  # type: ignore[arg-type]
    assert still is not None
    assert (first_face(clip), still.name) == (1, "a")
    assert np.array_equal(still.rgb, clip.picture(1))
    assert runtime.detected[0].mesh.any() and runtime.detected[0].mask.all()


def test_a_still_may_be_coded_as_a_calls_keyframe_is(clip: Clip) -> None:
    runtime = FakeRuntime()
    still = still_of(runtime, clip, 600)  # type: ignore[arg-type]
    assert still is not None
    coded = decode_still(StillCodec.AVIF, encode_still(clip.picture(1), 600))
    assert np.array_equal(still.rgb, coded) and not np.array_equal(coded, clip.picture(1))


def test_a_frame_without_a_face_has_no_mesh(clip: Clip) -> None:
    priors = priors_of(clip, 0)
    assert priors.landmarks is None
    assert not priors.mesh.any() and priors.mask.all()


def test_ones_own_still_takes_the_pose_as_it_is_and_anothers_the_motion(clip: Clip) -> None:
    runtime = FakeRuntime()
    still = Still("b", HeldKeyframe(clip.picture(3), make_keypoints(9), None))
    frames = [(clip.picture(i), priors_of(clip, i)) for i in (1, 2)]
    own = Puppet(runtime, still, other_person=False)  # type: ignore[arg-type]
    assert runtime.keyframe is still.rgb
    refined = own.pose(*frames[0])
    assert np.allclose(refined.values, make_keypoints(1).values + 0.01)
    runtime.detected.clear()
    other = Puppet(runtime, still, other_person=True)  # type: ignore[arg-type]
    assert np.allclose(other.pose(*frames[0]).values, still.keypoints.values, atol=1e-6)
    retarget = Retarget(still.keypoints)
    retarget.apply(make_keypoints(1))
    later = other.pose(*frames[1])
    assert np.array_equal(later.values, retarget.apply(make_keypoints(2)).values)
    assert other.draw(later, clip.mel(2), speech=True).max() == 100
    assert runtime.posed == [later]


def test_motion_is_drawn_as_a_receiver_has_it(clip: Clip) -> None:
    runtime = FakeRuntime()
    runtime.motion_coder = lambda: MotionCoder(make_tables())  # type: ignore[attr-defined]
    still = Still("b", HeldKeyframe(clip.picture(3), make_keypoints(9), None))
    exact = Puppet(runtime, still, other_person=False)  # type: ignore[arg-type]
    frame = (clip.picture(1), priors_of(clip, 1))
    found = exact.pose(*frame)
    errors = []
    for step in (0, 4):
        runtime.detected.clear()
        coded = Puppet(runtime, still, other_person=False, motion_step=step).pose(*frame)  # type: ignore[arg-type]
        errors.append(np.abs(coded.values - found.values).max())
    assert 0 < errors[0] < errors[1] < 0.1


def test_every_frame_is_looked_at_beside_the_still_and_from_the_frame_before(clip: Clip) -> None:
    runtime = FakeRuntime()
    held = held_frame(runtime, clip, 1)  # type: ignore[arg-type]
    runtime.keyframe = held.rgb
    runtime.detected.clear()
    found = followed(runtime, clip, held)  # type: ignore[arg-type]
    assert len(found) == len(clip) == len(runtime.last)
    for number, keypoints in enumerate(found):
        assert np.allclose(keypoints.values, make_keypoints(number + 1).values + 0.01)
    assert runtime.last[0] is None
    assert [last.keypoints for last in runtime.last[1:] if last] == found[:-1]
