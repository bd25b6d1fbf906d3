"""Rate control of a whole call in virtual time: narrow links, links that change, losses, new keyframes.

The narrow place is far from the sender (`hidden_queue`): only reports tell of it. docs/bitrate.md has a call
of two processes through a network namespace.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest

from avcall.transport.loopback import LinkConfig
from avcall.types import AccessUnit, FaceCrop, MediaKind
from sender.detect import Detector
from sender.encode import EncodedKeyframe, KeyframeEncoder
from sender.ratecontrol import RateConfig
from tests.avcall.bitstream.test_golden import pinned_coder
from tests.fakes import FakeRuntime, make_crop
from tests.virtual_call import VirtualCall, x_at

NARROW = LinkConfig(delay_ms=150, rate_bps=32_000, queue_bytes=12_000)
NARROWER = LinkConfig(delay_ms=150, rate_bps=16_000, queue_bytes=12_000)
NARROWEST = LinkConfig(delay_ms=150, rate_bps=12_000, queue_bytes=12_000)


def real_size_keyframe(seed: int, index: int) -> EncodedKeyframe:
    """A keyframe of about 6 kB, as a face is."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 255, (64, 64, 3)), np.ones((4, 4, 1)))
    rgb = np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)
    crop = make_crop()
    encoder = KeyframeEncoder(Detector(FakeRuntime()), 6_000)  # type: ignore[arg-type]
    made = encoder.encode(FaceCrop(rgb, crop.priors, 0), index)
    assert sum(map(len, made.slices)) > 5_000
    return made


def call_over(link: LinkConfig, max_kbps: float | None = 24, **more: object) -> VirtualCall:
    rate = RateConfig(max_bps=None if max_kbps is None else max_kbps * 1000)
    return VirtualCall(
        link, rate=rate, hidden_queue=True, coder=pinned_coder(), audio_bitrate_bps=9_000, **more
    )  # type: ignore[arg-type]


def latencies_ms(call: VirtualCall, start_ms: float, end_ms: float) -> list[float]:
    """From the capture of each picture to the screen."""
    return [shown.at_ms - shown.motion.pts_ms for shown in call.shown_between(start_ms, end_ms)]


def longest_gap_ms(call: VirtualCall, start_ms: float, end_ms: float) -> float:
    return max(b.at_ms - a.at_ms for a, b in pairwise(call.shown_between(start_ms, end_ms)))


def sent_kbps(call: VirtualCall, marks: Iterable[tuple[float, int]]) -> float:
    (start_ms, start), *_, (end_ms, end) = marks
    return (end - start) * 8 / (end_ms - start_ms)


def test_a_call_holds_on_32_kbit_s_and_300_ms() -> None:
    call = call_over(NARROW)
    call.run_until(20_000)
    assert np.percentile(latencies_ms(call, 2000, 20_000), 95) < 700
    assert longest_gap_ms(call, 2000, 20_000) <= 300
    assert len(call.shown_between(5000, 20_000)) >= 370
    assert call.sender.stats().stale_media == 0


def test_it_recovers_when_the_link_falls_to_half_and_comes_back() -> None:
    call = call_over(NARROW)
    call.run_until(10_000)
    call.near.change_link(NARROWER)
    call.run_until(18_000)
    fallen = call.sender.stats().rate
    assert fallen is not None and fallen.level >= 1
    assert len(call.shown_between(14_000, 18_000)) >= 90  # drawn at 25 a second, whatever was sent
    assert longest_gap_ms(call, 9_000, 18_000) <= 300
    assert np.percentile(latencies_ms(call, 10_000, 18_000), 95) < 700
    call.near.change_link(NARROW)
    call.run_until(28_000)
    risen = call.sender.stats().rate
    assert risen is not None and risen.rung.step == 2
    call.run_until(32_000)
    assert len(call.shown_between(28_000, 32_000)) >= 98
    assert longest_gap_ms(call, 20_000, 32_000) <= 300
    assert np.percentile(latencies_ms(call, 28_000, 32_000), 95) < 700
    shown = call.shown_between(28_000, 32_000)
    errors = [abs(s.motion.keypoints.values[0, 0] - x_at(s.motion.pts_ms)) for s in shown]
    assert np.median(errors) < 0.05


def test_below_what_a_call_needs_the_picture_pauses_and_comes_back() -> None:
    call = call_over(NARROW)
    call.run_until(10_000)
    call.near.change_link(NARROWEST)
    call.run_until(20_000)
    assert len(call.shown_between(16_000, 20_000)) >= 90
    assert call.playout.stats().interpolated_frames > 0
    assert longest_gap_ms(call, 10_000, 20_000) < 2_500
    call.near.change_link(NARROW)
    call.run_until(30_000)
    risen = call.sender.stats().rate
    assert risen is not None and risen.rung.step == 2
    assert longest_gap_ms(call, 20_000, 30_000) <= 300


@pytest.mark.parametrize(("max_kbps", "rate_bps"), [(24, 32_000), (None, 32_000), (None, 64_000)])
def test_a_keyframe_in_mid_call_delays_no_speech_by_more_than_60_ms(
    max_kbps: float | None, rate_bps: float
) -> None:
    link = LinkConfig(delay_ms=150, rate_bps=rate_bps, queue_bytes=12_000)
    call = call_over(link, max_kbps, keyframes=(real_size_keyframe(1, 0),))
    transits: list[tuple[float, float]] = []
    push = call.playout.push

    def noting(unit: AccessUnit, now_ms: float) -> bool:
        if unit.kind is MediaKind.AUDIO:
            transits.append((now_ms, now_ms - unit.pts_ms))
        return push(unit, now_ms)

    call.playout.push = noting  # type: ignore[method-assign]
    call.run_until(14_000)
    call.sender.push_keyframe(real_size_keyframe(2, 1))
    call.run_until(50_000)
    usual_ms = max(transit for at_ms, transit in transits if 12_000 < at_ms < 14_000)
    assert call.receiver.stats().keyframes == 2
    assert call.sender.acknowledged_keyframe == 1
    assert max(transit for at_ms, transit in transits if at_ms > 14_000) <= usual_ms + 60


@pytest.mark.parametrize("max_kbps", [16, 20, 24])
def test_the_cap_holds_with_a_keyframe_under_way(max_kbps: float) -> None:
    call = call_over(LinkConfig(delay_ms=50), max_kbps, keyframes=(real_size_keyframe(1, 0),))
    marks = []
    for end_ms in range(1000, 31_000, 1000):
        call.run_until(end_ms)
        marks.append((float(end_ms), call.near.counters().sent_bytes))
    for window in zip(*(marks[skip:] for skip in range(6)), strict=False):
        assert sent_kbps(call, window) <= 1.02 * max_kbps
    assert call.receiver.stats().keyframes == 1


@pytest.mark.parametrize("loss", [0.05, 0.10])
def test_repeated_speech_bridges_losses(loss: float) -> None:
    link = LinkConfig(delay_ms=50, loss=loss, seed=1)
    plain = VirtualCall(link, coder=pinned_coder(), audio_bitrate_bps=9_000)
    repeating = call_over(link, None)
    for call in (plain, repeating):
        call.run_until(8_000)
        call.concealed_before = call.playout.stats().concealed_audio_ms  # type: ignore[attr-defined]
        call.run_until(24_000)
    concealed = [
        call.playout.stats().concealed_audio_ms - call.concealed_before  # type: ignore[attr-defined]
        for call in (plain, repeating)
    ]
    assert concealed[0] > 300
    assert concealed[1] < 0.5 * concealed[0]
    assert repeating.playout.stats().jitter.duplicate > 100
    decision = repeating.sender.stats().rate
    assert decision is not None and decision.repeat_audio and decision.level == 0


def test_without_loss_nothing_is_repeated_and_reports_cost_little() -> None:
    call = call_over(LinkConfig(delay_ms=50), None)
    call.run_until(4_000)
    answers_bytes, spent_bytes = call.far.counters().sent_bytes, call.near.counters().ack_sent_bytes
    call.run_until(24_000)
    assert call.playout.stats().jitter.duplicate == 0
    assert call.far.counters().sent_bytes - answers_bytes <= 20 * 90
    assert call.near.counters().ack_sent_bytes == spent_bytes
    assert call.sender.stats().rtt_ms == pytest.approx(100, abs=10)
