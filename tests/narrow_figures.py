"""The figures of docs/bitrate.md for narrow and lossy links, from calls in virtual time.

    python -m tests.narrow_figures

The calls are those that tests/e2e/test_rate.py holds to bounds; here their measures are printed.
"""

import numpy as np

from avcall.transport.loopback import LinkConfig
from tests.avcall.bitstream.test_golden import pinned_coder
from tests.e2e.test_rate import NARROW, NARROWER, NARROWEST, call_over, latencies_ms, longest_gap_ms
from tests.virtual_call import VirtualCall

FALL_MS, BACK_MS, END_MS = 10_000, 18_000, 30_000


def hold() -> None:
    """A link of 32 kbit/s that stays."""
    call = call_over(NARROW)
    call.run_until(20_000)
    delays = latencies_ms(call, 2_000, 20_000)
    median, p95, longest = (float(np.percentile(delays, q)) for q in (50, 95, 100))
    gap = longest_gap_ms(call, 2_000, 20_000)
    print(f"hold: median {median:.0f}, p95 {p95:.0f}, longest {longest:.0f} ms; gap {gap:.0f} ms")  # noqa: T201


def fall(link: LinkConfig) -> None:
    """A link that falls for eight seconds and comes back."""
    call = call_over(NARROW)
    call.run_until(FALL_MS)
    call.near.change_link(link)
    call.run_until(BACK_MS)
    gap, delays = longest_gap_ms(call, FALL_MS - 1_000, BACK_MS), latencies_ms(call, FALL_MS, BACK_MS)
    call.near.change_link(NARROW)
    top_ms = None
    for now_ms in range(BACK_MS + 100, END_MS + 1, 100):
        call.run_until(now_ms)
        rate = call.sender.stats().rate
        if top_ms is None and rate is not None and rate.level <= 1:  # 24 kbit/s have no room for the top one
            top_ms = now_ms - BACK_MS
    later = float(np.percentile(latencies_ms(call, END_MS - 2_000, END_MS), 95))
    line = f"gap {gap:.0f} ms, p95 {np.percentile(delays, 95):.0f} ms, all but deformations after {top_ms} ms"
    print(f"fall to {link.rate_bps:.0f} bit/s: {line}, p95 ten seconds later {later:.0f} ms")  # noqa: T201


def lose(loss: float) -> None:
    """Speech made up in thirty seconds, without and with repetition."""
    link = LinkConfig(delay_ms=50, loss=loss, seed=1)
    for name, call in (
        ("without", VirtualCall(link, coder=pinned_coder(), audio_bitrate_bps=9_000)),
        ("with", call_over(link, None)),
    ):
        call.run_until(8_000)
        before_ms, before = call.playout.stats().concealed_audio_ms, call.near.counters().sent_bytes
        call.run_until(38_000)
        stats = call.playout.stats()
        kbps = (call.near.counters().sent_bytes - before) * 8 / 30_000
        made_up = f"{stats.concealed_audio_ms - before_ms} ms made up, {kbps:.1f} kbit/s"
        print(f"loss {loss:.0%} {name}: {made_up}, delay {stats.jitter.playout_delay_ms:.0f} ms")  # noqa: T201


def main() -> None:
    """Print everything."""
    hold()
    for link in (NARROWER, NARROWEST):
        fall(link)
    for loss in (0.02, 0.05, 0.10):
        lose(loss)


if __name__ == "__main__":
    main()
