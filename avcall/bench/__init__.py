"""The comparison against conventional codecs."""
