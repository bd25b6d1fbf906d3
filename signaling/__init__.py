"""How the two ends find each other."""
