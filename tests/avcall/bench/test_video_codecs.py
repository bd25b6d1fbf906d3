"""Real encoders on a few frames of a real face, decoded from their own bytes."""

import itertools

import numpy as np
import pytest

from avcall.bench.clip import Clip
from avcall.bench.ffmpeg import FFmpeg, find_ffmpeg
from avcall.bench.matching import Tried, is_matched, match_rate
from avcall.bench.rates import rates_of
from avcall.bench.still import StillCodecRow
from avcall.bench.video_codecs import ANCHORS, VideoCodec
from avcall.errors import InputError

BY_NAME = {anchor.name: anchor for anchors in ANCHORS.values() for anchor in anchors}


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def few(clip: Clip, frames: int = 10) -> Clip:
    return Clip("few", clip.crops[:frames], clip.pcm[: frames * 640], "few")


@pytest.mark.parametrize("name", BY_NAME)
def test_a_round_trip_through_every_encoder(name: str, sample_clip: Clip) -> None:
    clip, anchor = few(sample_clip), BY_NAME[name]
    worst, better = (VideoCodec(anchor, quality, find_ffmpeg()) for quality in (anchor.qualities[0], 38))
    low, high = worst.encode(clip), better.encode(clip)
    for coded in (low, high):
        bill = coded.bill
        framing = 2 * len(clip.crops) if anchor.container == "obu" else 0
        assert bill.motion_bytes + bill.keyframe_bytes == len(coded.data) - framing
        assert bill.keyframe_bytes > 50  # an intra picture at the start
        assert bill.audio_bytes > 0 and bill.back_bytes > 0
        assert bill.wire_bytes > bill.motion_bytes + bill.keyframe_bytes + bill.audio_bytes
    assert len(low.data) < len(high.data)
    pictures = [codec.decode(coded.data).frames for codec, coded in ((worst, low), (better, high))]
    assert [p.shape for p in pictures] == [clip.frames.shape] * 2
    quality_low, quality_high = (psnr(p, clip.frames) for p in pictures)
    assert quality_high > 30 and quality_high > quality_low + 2
    assert "-c:v" in high.command and high.encode_s > 0


def test_low_delay_codes_every_picture_after_the_one_before(sample_clip: Clip) -> None:
    lowdelay = VideoCodec(BY_NAME["h266-lowdelay"], 40, find_ffmpeg())
    command = lowdelay.encode(few(sample_clip)).command
    assert "picreordering=0" in command and "decodingrefreshtype=none" in command
    assert "-period 1000" in command and "-preset medium" in command


def test_a_fraction_of_a_qp_is_a_fraction_of_its_rate(sample_clip: Clip) -> None:
    anchor = BY_NAME["h266-lowdelay"]
    sizes = [
        len(VideoCodec(anchor, quality, find_ffmpeg()).encode(few(sample_clip)).data)
        for quality in (36, 36.4, 36.6, 37)
    ]
    assert all(a > b for a, b in itertools.pairwise(sizes))


def test_h266_is_matched_to_a_rate(sample_clip: Clip) -> None:
    clip, anchor = few(sample_clip, 16), BY_NAME["h266-lowdelay"]

    def rate_at(quality: float) -> float:
        return rates_of(VideoCodec(anchor, quality, find_ffmpeg()).encode(clip).bill).video.kbps

    known = [Tried(quality, rate_at(quality)) for quality in (50, 38)]
    target_kbps = (known[0].kbps * known[1].kbps) ** 0.5
    assert is_matched(match_rate(target_kbps, known, anchor.qualities[-1], rate_at), target_kbps)


def test_what_decides_the_result_is_in_the_identity() -> None:
    ffmpeg = find_ffmpeg()
    anchor = BY_NAME["h266-lowdelay"]
    identities = {
        VideoCodec(anchor, quality, ffmpeg, preset, tick_ms).identity
        for quality, preset, tick_ms in (
            (40, "medium", 80),
            (40.2, "medium", 80),
            (40, "slow", 80),
            (40, "slow", 120),
        )
    }
    assert len(identities) == 4
    assert all(ffmpeg.version in identity for identity in identities)


def test_a_missing_encoder_is_said_when_the_codec_is_made() -> None:
    bare = FFmpeg(find_ffmpeg().path, "ffmpeg version 4", frozenset({"libx264"}))
    with pytest.raises(InputError, match="has no libvvenc"):
        VideoCodec(BY_NAME["h266-lowdelay"], 40, bare)


def test_the_unmoved_keyframe_costs_a_keyframe(sample_clip: Clip) -> None:
    codec = StillCodecRow(3_000, 80)
    coded = codec.encode(sample_clip)
    frames = codec.decode(coded.data).frames
    assert frames.shape == sample_clip.frames.shape
    assert (frames == frames[0]).all() and psnr(frames[0], sample_clip.frames[0]) > 28
    assert coded.bill.motion_bytes == 0 and 2_000 < coded.bill.keyframe_bytes <= 3_000
