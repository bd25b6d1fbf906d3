"""Offline: data, losses, training, evaluation. The call never imports it."""
