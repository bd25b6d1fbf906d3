"""The unmoved keyframe: avcall's picture of the first frame, shown for the whole clip.

It costs a keyframe and nothing more. A metric that likes it does not measure motion.
"""

import time
from itertools import repeat

import numpy as np

from avcall.bench.clip import Clip
from avcall.bench.codec import Coded, Decoded
from avcall.bench.speech import coded_speech
from avcall.bench.wire import carry
from avcall.bitstream.keyframe import StillCodec, decode_still, encode_still


class StillCodecRow:
    """The keyframe of a call, and no motion."""

    name = "unmoved-keyframe"

    def __init__(self, keyframe_bytes: int, tick_ms: int) -> None:
        self._keyframe_bytes, self._tick_ms = keyframe_bytes, tick_ms

    @property
    def setting(self) -> str:
        """See Codec."""
        return f"avif-{self._keyframe_bytes}"

    @property
    def identity(self) -> str:
        """See Codec."""
        return f"avif {self._keyframe_bytes} tick {self._tick_ms}"

    def encode(self, clip: Clip) -> Coded:
        """See Codec."""
        began_s = time.monotonic()
        image = encode_still(clip.crops[0].rgb, self._keyframe_bytes)
        encode_s = time.monotonic() - began_s
        sizes_bytes = [len(image), *repeat(0, len(clip.crops) - 1)]
        bill = carry(sizes_bytes, coded_speech(clip, self._tick_ms), self._tick_ms)
        data = len(clip.crops).to_bytes(4, "big") + image
        return Coded(data, bill, f"AVIF of the first frame, at most {self._keyframe_bytes} bytes", encode_s)

    def decode(self, data: bytes) -> Decoded:
        """See Codec."""
        picture = decode_still(StillCodec.AVIF, data[4:])
        return Decoded(np.repeat(picture[None], int.from_bytes(data[:4], "big"), axis=0))
