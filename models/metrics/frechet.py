"""The Frechet distance of two sets of features, as if both were Gaussian (Dowson and Landau 1982).

    |mean1 - mean2|^2 + tr(cov1 + cov2 - 2 sqrt(cov1 cov2))

With Inception features this is the FID (Heusel et al. 2017); with others it has another scale and must have
another name.
"""

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32] | NDArray[np.float64]
MIN_SAMPLES = 2


def frechet_distance(first: Features, second: Features) -> float:
    """The distance of (n, d) and (m, d) features; 0 for the same set.

    Few samples make it too large, alike for all that are compared with the same number. Raises ValueError for
    fewer than two samples.
    """
    if min(len(first), len(second)) < MIN_SAMPLES:
        raise ValueError("a Frechet distance needs two samples on each side at least")
    a, b = _centred(first), _centred(second)
    shift = first.mean(0, dtype=np.float64) - second.mean(0, dtype=np.float64)
    # tr sqrt(A'A B'B) is the sum of the singular values of A B': no d x d matrix, no root of a singular one.
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    distance = shift @ shift + np.square(a).sum() + np.square(b).sum() - 2 * cross
    return float(max(distance, 0.0))


def _centred(features: Features) -> NDArray[np.float64]:
    """X with X'X the sample covariance."""
    wide = features.astype(np.float64)
    return (wide - wide.mean(0)) / np.sqrt(len(wide) - 1)
