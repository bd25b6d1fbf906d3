"""Synthesize: the keyframe in the pose of the motion, with the mouth helped by the speech."""

from avcall.types import Keyframe, MotionFrame, VideoFrame
from models.runtime import ModelRuntime
from receiver.mel import MelWindows


class Synthesizer:
    """The generator as a stage; used from one thread."""

    def __init__(self, runtime: ModelRuntime, speech: MelWindows) -> None:
        self._runtime = runtime
        self._speech = speech

    def set_keyframe(self, keyframe: Keyframe) -> None:
        """Make a keyframe ready to be animated."""
        self._runtime.set_keyframe(keyframe.index, keyframe.rgb, keyframe.keypoints)

    def can_draw(self, motion: MotionFrame) -> bool:
        """Whether the keyframe that the motion names has arrived."""
        return self._runtime.has_keyframe(motion.keyframe_index)

    def draw(self, motion: MotionFrame) -> VideoFrame:
        """The picture (256, 256, 3) for one motion frame; `can_draw` must hold."""
        mel, speech = self._speech.window(motion.pts_ms)
        rgb = self._runtime.synthesize(motion.keyframe_index, motion.keypoints, mel, speech=speech)
        return VideoFrame(rgb, motion.pts_ms)
