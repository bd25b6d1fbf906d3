"""The network, its runtime and its weights."""
