import numpy as np
import pytest

from avcall.types import Keyframe, MotionFrame
from receiver.mel import MelWindows
from receiver.synthesize import Synthesizer
from tests.clips import tone
from tests.fakes import FakeRuntime, grey_picture, still_keypoints


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


def test_motion_of_an_unknown_keyframe_cannot_be_drawn(runtime: FakeRuntime) -> None:
    synthesizer = Synthesizer(runtime, MelWindows())  # type: ignore[arg-type]
    motion = MotionFrame(still_keypoints(), 0, keyframe_index=3)
    assert not synthesizer.can_draw(motion)
    synthesizer.set_keyframe(Keyframe(3, grey_picture(50), still_keypoints()))
    assert synthesizer.can_draw(motion)
    assert not synthesizer.can_draw(MotionFrame(still_keypoints(), 0, keyframe_index=4))


def test_a_picture_carries_the_time_and_the_pose_of_its_motion(runtime: FakeRuntime) -> None:
    synthesizer = Synthesizer(runtime, MelWindows())  # type: ignore[arg-type]
    synthesizer.set_keyframe(Keyframe(0, grey_picture(50), still_keypoints()))
    picture = synthesizer.draw(MotionFrame(still_keypoints(0.5), 1240, 0))
    assert picture.pts_ms == 1240
    assert picture.rgb.shape == (256, 256, 3) and picture.rgb[0, 0, 0] == round(1.5 * 127.5)


def test_the_network_hears_the_speech_of_the_picture(runtime: FakeRuntime) -> None:
    speech = MelWindows()
    synthesizer = Synthesizer(runtime, speech)  # type: ignore[arg-type]
    synthesizer.set_keyframe(Keyframe(0, grey_picture(50), still_keypoints()))
    synthesizer.draw(MotionFrame(still_keypoints(), 200, 0))
    speech.push(tone(440, 600), 0)
    synthesizer.draw(MotionFrame(still_keypoints(), 200, 0))
    (silence, without), (heard, with_speech) = runtime.windows
    assert not without and not silence.any()
    assert with_speech and np.array_equal(heard, speech.window(200)[0])
