"""The three accountings of a coded clip, in kbit/s and in bits per pixel.

motion    the motion alone, as the paper counts (AVFR section 4: 960 bits a frame, 0.0146 BPP, neither
          keyframe nor sound); of a conventional codec, all of its stream but the first picture
payload   motion, keyframe and speech: what is inside the packets
wire      every byte that crosses the network: all headers, control messages and acknowledgements; `up` is
          the sender's direction, `down` the other, `wire` both
"""

from dataclasses import dataclass

from avcall.stats import Bill
from avcall.types import FRAME_MS

PAPER_MOTION_BITS = 960  # a frame: 10 keypoints of 2 + 4 numbers in half precision
ACCOUNTINGS = ("motion", "payload", "wire")


@dataclass(frozen=True, slots=True)
class Rate:
    """One rate, twice: `bpp` is bits per pixel of a 256x256 frame."""

    kbps: float
    bpp: float


@dataclass(frozen=True, slots=True)
class Rates:
    """All accountings of one coded clip; `video` is the payload without the speech, what codecs differ in."""

    motion: Rate
    video: Rate
    payload: Rate
    up: Rate
    down: Rate
    wire: Rate

    def named(self, accounting: str) -> Rate:
        """One of ACCOUNTINGS, or another field, by name."""
        rate: Rate = getattr(self, accounting)
        return rate


def clip_bill(
    frames: int,
    *,
    motion_bytes: int,
    keyframe_bytes: int,
    audio_bytes: int,
    control_bytes: int = 0,
    wire_bytes: int,
    back_bytes: int,
) -> Bill:
    """The bill of a clip of `frames`: its length in media time is what the bytes are spread over."""
    return Bill(
        elapsed_ms=frames * FRAME_MS,
        frames=frames,
        motion_bytes=motion_bytes,
        audio_bytes=audio_bytes,
        keyframe_bytes=keyframe_bytes,
        control_bytes=control_bytes,
        wire_bytes=wire_bytes,
        back_bytes=back_bytes,
    )


def rates_of(bill: Bill) -> Rates:
    """Every accounting of a bill."""

    def rate(size_bytes: int) -> Rate:
        return Rate(bill.kbps(size_bytes), bill.bpp(size_bytes))

    video_bytes = bill.motion_bytes + bill.keyframe_bytes
    return Rates(
        motion=rate(bill.motion_bytes),
        video=rate(video_bytes),
        payload=rate(video_bytes + bill.audio_bytes),
        up=rate(bill.wire_bytes),
        down=rate(bill.back_bytes),
        wire=rate(bill.wire_bytes + bill.back_bytes),
    )
