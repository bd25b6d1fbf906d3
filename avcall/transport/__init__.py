"""Ways to carry messages between the two ends."""
