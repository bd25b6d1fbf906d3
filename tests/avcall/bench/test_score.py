"""The judge on a real face: exact on the original, right about what is wrong with others."""

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from avcall.bench.clip import Clip
from avcall.bench.cross import CrossJudge
from avcall.bench.score import Judge, Reference
from avcall.errors import PhotoError


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(every=20)


@pytest.fixture(scope="module")
def reference(judge: Judge, sample_clip: Clip) -> Reference:
    return judge.reference(sample_clip)


def test_the_original_is_perfect(judge: Judge, reference: Reference) -> None:
    scores = judge.score(reference, reference.frames).scores
    zero = (
        "l1",
        "st_lpips_vgg",
        "st_lpips_alex",
        "fd_effnet",
        "lmd",
        "lmd_lips",
        "lmd_eyelids",
        "aed",
        "flicker",
        "face_lost",
    )
    assert [getattr(scores, name) for name in zero] == pytest.approx([0.0] * len(zero), abs=1e-4)
    assert (scores.psnr, scores.ssim, scores.ms_ssim) == pytest.approx((100.0, 1.0, 1.0))
    assert scores.fid is None and scores.lse_d is None  # no file was given


def test_psnr_and_ssim_are_scikit_images(judge: Judge, reference: Reference) -> None:
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in reference.frames])
    scores = judge.score(reference, blurred).scores
    pairs = list(zip(blurred, reference.frames, strict=True))
    assert scores.psnr == pytest.approx(np.mean([peak_signal_noise_ratio(b, a) for a, b in pairs]))
    ssim = [
        structural_similarity(
            a,
            b,
            channel_axis=2,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )[1].mean()
        for a, b in pairs[::20]
    ]
    assert scores.ssim == pytest.approx(np.mean(ssim), abs=1e-5)


def test_each_kind_of_damage_shows_where_it_should(judge: Judge, reference: Reference) -> None:
    frames = reference.frames
    shifted = np.roll(frames, 8, axis=2)
    still = np.repeat(frames[:1], len(frames), axis=0)
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 6) for frame in frames])
    moved, unmoved, blunt = (judge.score(reference, f).scores for f in (shifted, still, blurred))
    face = reference.samples[0].seen.face
    assert face is not None
    width_px = float(np.linalg.norm(face.landmarks[234] - face.landmarks[454]))
    assert moved.lmd == pytest.approx(100 * 8 / width_px, rel=0.2)  # eight pixels, in widths of the face
    assert unmoved.flicker is not None and unmoved.flicker > 0
    assert blunt.st_lpips_vgg is not None and moved.st_lpips_vgg is not None
    assert blunt.st_lpips_vgg > 2 * moved.st_lpips_vgg  # shift-tolerant: that is what ST stands for
    assert blunt.aed is not None and moved.aed is not None and blunt.aed > moved.aed
    assert blunt.fd_effnet is not None and moved.fd_effnet is not None and blunt.fd_effnet > moved.fd_effnet


def test_a_spoiled_mouth_shows_in_the_mouth(judge: Judge, reference: Reference) -> None:
    frames = reference.frames.copy()
    for sample in reference.samples:
        assert sample.seen.face is not None
        x, y = sample.seen.face.landmarks[13].astype(int)
        frames[sample.index, y - 10 : y + 10, x - 20 : x + 20] = 128
    scores = judge.score(reference, frames).scores
    assert scores.mouth_psnr is not None and scores.face_psnr is not None and scores.psnr is not None
    assert scores.mouth_psnr < scores.face_psnr < scores.psnr
    assert scores.mouth_lpips is not None and scores.face_lpips is not None
    assert scores.mouth_lpips > scores.face_lpips


def test_a_face_that_is_gone_is_counted(judge: Judge, reference: Reference) -> None:
    scores = judge.score(reference, np.full_like(reference.frames, 90)).scores
    assert scores.face_lost == 1.0
    assert scores.lmd is None and scores.aed is None


def test_frames_must_fit(judge: Judge, reference: Reference) -> None:
    with pytest.raises(ValueError, match="frames for"):
        judge.score(reference, reference.frames[:-1])


def test_cross_identity_measures_the_photo_and_the_motion(judge: Judge, reference: Reference) -> None:
    photo = reference.frames[0]
    cross = CrossJudge(judge, photo)
    still = cross.score(reference, np.repeat(photo[None], len(reference.frames), axis=0)).scores
    driven = cross.score(reference, reference.frames).scores
    assert still.aed == pytest.approx(0.0, abs=1e-6)
    assert driven.lmd == pytest.approx(0.0, abs=1e-6)
    assert still.lmd is not None and still.lmd > 0.3  # the driver moved, the photo did not
    assert driven.psnr is None  # there is nothing to compare with, pixel by pixel
    with pytest.raises(PhotoError, match="no face is found"):
        CrossJudge(judge, np.full_like(photo, 90))
