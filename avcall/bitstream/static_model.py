"""The static entropy models that coded motion and lattices are made with."""

import constriction
import numpy as np
from numpy.typing import NDArray

FREQUENCY_SUM = 1 << 16


def static_model(frequencies: NDArray[np.uint16]) -> "constriction.stream.model.Categorical":
    """Of frequencies that sum to at most `FREQUENCY_SUM`; what lacks goes to the largest."""
    counts = frequencies.astype(np.float64)
    counts[np.argmax(counts)] += FREQUENCY_SUM - counts.sum()
    # Multiples of 2**-16 are exact in float32, so every machine builds the same model.
    return constriction.stream.model.Categorical((counts / FREQUENCY_SUM).astype(np.float32), perfect=False)
