"""The picture's way through the sender, stage after stage: track, detect, encode. Runs in one thread.

What takes longer than a frame may, coding keyframes and estimating what the receiver sees, runs beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from avcall.errors import KeyframeError, NoFaceError
from avcall.types import AccessUnit, FaceCrop, Keypoints, VideoFrame
from models.retarget import Retarget
from sender.background import Background
from sender.blink import OpenEyes
from sender.detect import Detector
from sender.encode import EncodedKeyframe, KeyframeEncoder, encode_motion
from sender.preview import Previewer
from sender.references import Estimate
from sender.track import FaceState, FaceTracker

NO_FACE_TIMEOUT_MS = 10_000
PREVIEW_EVERY = 5  # frames


@dataclass(frozen=True, slots=True)
class Pictured:
    """What one camera frame gave: the tracker's state, motion, and a keyframe when a new one is due."""

    face: FaceState
    motion: AccessUnit | None = None
    keyframe: EncodedKeyframe | None = None
    estimates: tuple[Estimate, ...] = ()


class PicturePath:
    """Camera frames in, motion units and keyframes out.

    With a `photo` the photo is the only keyframe and the driver's motion is transferred onto it. With a
    `previewer` and references to look at, every fifth frame gives estimates of the received picture.
    """

    def __init__(
        self,
        detector: Detector,
        tracker: FaceTracker,
        keyframes: KeyframeEncoder,
        photo: FaceCrop | None = None,
        *,
        previewer: Previewer | None = None,
        threaded: bool = False,
    ) -> None:
        self._detector = detector
        self._tracker = tracker
        self._keyframes = keyframes
        self._photo = photo
        self._retarget: Retarget | None = None
        self._eyes = OpenEyes()
        self._keyframe_wanted = True
        self._wanted_index: int | None = None
        self._first_source: FaceCrop | None = None
        self._first_full: EncodedKeyframe | None = None
        self._first_pts_ms: int | None = None
        self._coding: Background[EncodedKeyframe | None] = Background(threaded=threaded)
        self._previewer = previewer
        self._previewing: Background[tuple[Estimate, ...]] = Background(threaded=threaded)
        self._frames = 0

    def want_keyframe(self, index: int | None = None) -> None:
        """Make the next good picture keyframe `index`, by default the next number."""
        self._keyframe_wanted = True
        self._wanted_index = index

    def sharpen(self, index: int) -> None:
        """Make keyframe `index` of what the first one shows, with more bits."""
        if self._first_source is not None and self._first_full is not None:
            code = partial(self._keyframes.sharpen, self._first_source, index, self._first_full)
            self._coding.submit(partial(_if_it_fits, code))

    def process(self, frame: VideoFrame, references: Sequence[EncodedKeyframe] = ()) -> Pictured:
        """One frame; `references` are what the receiver holds, the one in use first.

        Raises NoFaceError when no face was seen in the first ten seconds, KeyframeError when a keyframe does
        not fit its size.
        """
        crop = self._tracker.crop(frame)
        if crop is None:
            self._check_patience(frame.pts_ms)
            return Pictured(self._tracker.state, keyframe=self._take_keyframe())
        self._order_keyframe(crop)
        keyframe = self._take_keyframe()
        if references and self._photo is None:
            keypoints = self._detector.beside(references[0].held, crop)
        else:
            keypoints = self._detector.keypoints(crop)
        if self._photo is None:
            self._order_preview(crop, keypoints, references)
        elif self._retarget is None:  # the photo's keypoints come with the keyframe
            return Pictured(self._tracker.state)
        else:
            keypoints = self._retarget.apply(keypoints)
        unit = encode_motion(keypoints, frame.pts_ms)
        return Pictured(self._tracker.state, unit, keyframe, self._previewing.take() or ())

    def finish(self) -> None:
        """The video is over. Raises NoFaceError when no face was seen in all of it."""
        if self._first_pts_ms is not None and self._tracker.state is FaceState.SEARCHING:
            raise NoFaceError("no face in the whole video; give one with a face that is large enough to see")

    def close(self) -> None:
        """Free the tracker and end the threads."""
        self._coding.close()
        self._previewing.close()
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

    def _order_keyframe(self, crop: FaceCrop) -> None:
        """Have a keyframe coded if one is wanted, the face seen and its eyes open; the first one in two."""
        if crop.priors.landmarks is None:
            return
        self._eyes.see(crop.priors.landmarks)
        if not self._keyframe_wanted or (self._photo is None and not self._eyes.allow()):
            return
        self._keyframe_wanted = False
        source = self._photo or crop
        if self._first_source is None:
            self._first_source = source
            if self._keyframes.progressive:
                rough = partial(self._keyframes.encode, source, preliminary=True)
                self._coding.submit(partial(_if_it_fits, rough))
        self._coding.submit(partial(self._keyframes.encode, source, self._wanted_index))

    def _take_keyframe(self) -> EncodedKeyframe | None:
        made = self._coding.take()
        if made is not None and not made.preliminary:
            self._first_full = self._first_full or made
        if made is not None and self._photo is not None:
            self._retarget = self._retarget or Retarget(made.keypoints)
            self._retarget.photo = made.keypoints
        return made

    def _order_preview(
        self, crop: FaceCrop, keypoints: Keypoints, references: Sequence[EncodedKeyframe]
    ) -> None:
        self._frames += 1
        if self._previewer is None or not references:
            return
        if self._frames % PREVIEW_EVERY == 0 and self._previewing.idle:
            self._previewing.submit(partial(self._previewer.estimate, crop.rgb, keypoints, tuple(references)))


def _if_it_fits(code: Callable[[], EncodedKeyframe | None]) -> EncodedKeyframe | None:
    """What `code` makes; None for a picture too busy for its bytes: another one of it comes, or is there."""
    try:
        return code()
    except KeyframeError:
        return None
