"""Measures of pictures and voices that need a network or more than one picture; the call never imports it."""
