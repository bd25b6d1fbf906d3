"""Tables of coded motion that need no training."""

import numpy as np

from avcall.bitstream import lattice_coded
from avcall.bitstream.motion_coded import NUMBERS, STEPS, SYMBOLS, MotionTables
from avcall.bitstream.static_model import FREQUENCY_SUM


def make_tables(seed: int = 1) -> MotionTables:
    """Tables with a random orthonormal basis and two-sided exponential statistics."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((NUMBERS, NUMBERS)))[0].astype(np.float32)
    rows = 4
    lattice = _two_sided(lattice_coded.LEVELS, 0.2 + 0.4 * np.arange(lattice_coded.CONTEXTS))
    return MotionTables(
        basis=basis,
        steps=(0.004 * 1.35 ** np.arange(STEPS)).astype(np.float32),
        classes=rng.integers(0, rows, (STEPS, 2, NUMBERS)).astype(np.uint8),
        shifts=np.array([0, 0, 0, 3], np.uint8),
        frequencies=_two_sided(SYMBOLS, np.array([0.4, 1.0, 3.0, 3.0])),
        lattice_steps=(0.008 * 1.35 ** np.arange(STEPS)).astype(np.float32),
        lattice_frequencies=np.tile(lattice, (STEPS, 1, 1)),
    )


def _two_sided(symbols: int, spreads: np.ndarray) -> np.ndarray:
    distance = np.abs(np.arange(symbols) - (symbols - 1) // 2)
    shape = np.exp(-distance / spreads[:, None])
    frequencies = np.floor(shape / shape.sum(1, keepdims=True) * (FREQUENCY_SUM - 64)) + 1
    return np.minimum(frequencies, FREQUENCY_SUM - 1).astype(np.uint16)
