"""Limits of an audio unit: one Opus packet (RFC 6716) of one mono frame.

The payload is the Opus packet as the encoder made it. Its first byte, the TOC (RFC 6716 section 3.1), says
how long it lasts, so the wire carries no duration:

    bits 7..3  config    mode, bandwidth and frame size (RFC 6716 table 2)
    bit  2     s         0: mono
    bits 1..0  c         0: one frame in the packet

libopus keeps to one frame a packet up to 16 kbit/s; above that it may code 40 ms as two CELT frames (c = 1),
which this protocol refuses.
"""

from avcall.errors import AudioFormatError

MIN_OPUS_BYTES = 1  # the TOC alone: a frame that the encoder chose not to send (RFC 6716 section 3.2.1)
MAX_OPUS_BYTES = 275  # 60 ms at 36 kbit/s, above any rate that a call uses
OPUS_DURATIONS_MS = (20, 40, 60)
SILENCE_EVERY_MS = 400  # a pause is marked so often: one that is lost costs no more than this
SILENCE_LASTS_MS = 1_000  # after a marker without another one: then sound is missing after all

_STEREO_BIT = 0x04
_CODE_MASK = 0x03
_SILK_MS = (10, 20, 40, 60)  # configs 0..11, four for each bandwidth
_HYBRID_MS = (10, 20)  # configs 12..15
_CELT_MS = (2.5, 5, 10, 20)  # configs 16..31


def _frame_ms(config: int) -> float:
    """Frame size of an Opus `config` 0..31 in ms (RFC 6716 table 2)."""
    if config < 12:
        return _SILK_MS[config % 4]
    if config < 16:
        return _HYBRID_MS[config % 2]
    return _CELT_MS[config % 4]


def validate_opus(payload: bytes) -> int:
    """Check the size and the TOC byte of an Opus packet; the duration that it covers, in ms.

    Raises AudioFormatError when the size, the channel count, the frame count or the duration is not allowed.
    """
    if not MIN_OPUS_BYTES <= len(payload) <= MAX_OPUS_BYTES:
        raise AudioFormatError(
            f"audio unit: {len(payload)} bytes, allowed are {MIN_OPUS_BYTES}..{MAX_OPUS_BYTES}"
        )
    toc = payload[0]
    if toc & _STEREO_BIT:
        raise AudioFormatError("audio unit: stereo, only mono is allowed")
    if toc & _CODE_MASK:
        raise AudioFormatError(
            f"audio unit: frame code {toc & _CODE_MASK}, only one frame (code 0) is allowed"
        )
    duration_ms = _frame_ms(toc >> 3)
    if duration_ms not in OPUS_DURATIONS_MS:
        raise AudioFormatError(f"audio unit: {duration_ms} ms long, allowed are {OPUS_DURATIONS_MS} ms")
    return int(duration_ms)


def is_silence(payload: bytes) -> bool:
    """Whether an Opus packet marks a pause: nothing was sent from its pts on, until speech goes on."""
    return len(payload) == 1


def silence_marker(payload: bytes) -> bytes:
    """The marker of a pause that takes the place of the Opus packet `payload`: its TOC alone."""
    return payload[:1]
