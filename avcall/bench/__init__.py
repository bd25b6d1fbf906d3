"""The comparison against conventional codecs: the same frames, every bit counted, several metrics.

A clip is cut to the face once; each codec turns the frames into bytes and those bytes back into frames; what
comes back is measured against what went in.

    clip -> codec.encode -> bytes -> codec.decode -> score -> points -> rd, verdict -> report
"""
