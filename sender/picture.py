"""The picture's way through the sender, stage after stage: track, detect, encode. Runs in one thread."""

from dataclasses import dataclass

from avcall.errors import NoFaceError
from avcall.types import AccessUnit, FaceCrop, VideoFrame
from sender.detect import Detector, Retarget
from sender.encode import EncodedKeyframe, KeyframeEncoder, encode_motion
from sender.track import FaceState, FaceTracker

NO_FACE_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Pictured:
    """What one camera frame gave: the tracker's state, motion, and a keyframe when a new one is due."""

    face: FaceState
    motion: AccessUnit | None = None
    keyframe: EncodedKeyframe | None = None


class PicturePath:
    """Camera frames in, motion units and keyframes out.

    With a `photo` the photo is the only keyframe and the driver's motion is transferred onto it.
    """

    def __init__(
        self,
        detector: Detector,
        tracker: FaceTracker,
        keyframes: KeyframeEncoder,
        photo: FaceCrop | None = None,
    ) -> None:
        self._detector = detector
        self._tracker = tracker
        self._keyframes = keyframes
        self._photo = photo
        self._retarget: Retarget | None = None
        self._keyframe_wanted = True
        self._first_pts_ms: int | None = None

    def want_keyframe(self) -> None:
        """Make the next good picture a keyframe."""
        self._keyframe_wanted = True

    def process(self, frame: VideoFrame) -> Pictured:
        """One frame. Raises NoFaceError when no face was seen in the first ten seconds."""
        crop = self._tracker.crop(frame)
        if crop is None:
            self._check_patience(frame.pts_ms)
            return Pictured(self._tracker.state)
        keyframe = self._new_keyframe(crop)
        keypoints = self._detector.keypoints(crop)
        if self._retarget is not None:
            keypoints = self._retarget.apply(keypoints)
        unit = encode_motion(keypoints, frame.pts_ms)
        return Pictured(self._tracker.state, unit, keyframe)

    def finish(self) -> None:
        """The video is over. Raises NoFaceError when no face was seen in all of it."""
        if self._first_pts_ms is not None and self._tracker.state is FaceState.SEARCHING:
            raise NoFaceError("no face in the whole video; give one with a face that is large enough to see")

    def close(self) -> None:
        """Free the tracker."""
        self._tracker.close()

    def _check_patience(self, pts_ms: int) -> None:
        if self._first_pts_ms is None:
            self._first_pts_ms = pts_ms
        waited_ms = pts_ms - self._first_pts_ms
        if self._tracker.state is FaceState.SEARCHING and waited_ms >= NO_FACE_TIMEOUT_MS:
            seconds = NO_FACE_TIMEOUT_MS // 1000
            raise NoFaceError(
                f"no face before the camera for {seconds} s; sit within two metres, in the light"
            )

    def _new_keyframe(self, crop: FaceCrop) -> EncodedKeyframe | None:
        """A keyframe if one is wanted and the face is fully seen."""
        if not self._keyframe_wanted or crop.priors.landmarks is None:
            return None
        self._keyframe_wanted = False
        made = self._keyframes.encode(self._photo or crop)
        if self._photo is not None and self._retarget is None:
            self._retarget = Retarget(made.keypoints)
        return made
