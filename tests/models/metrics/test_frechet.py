"""The Frechet distance in closed form."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from models.metrics.frechet import frechet_distance


def with_moments(mean: list[float], deviation: list[float], seed: int, count: int = 64) -> np.ndarray:
    """Samples whose mean and covariance are exactly these (the covariance is diagonal)."""
    raw = np.random.default_rng(seed).normal(size=(count, len(mean)))
    raw -= raw.mean(0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw.T)).T)
    return np.array(white * deviation + mean)


def test_two_gaussians_with_diagonal_covariances() -> None:
    a = with_moments([0.0, 1.0, 2.0], [1.0, 2.0, 0.5], seed=0)
    b = with_moments([3.0, 1.0, -2.0], [2.0, 2.0, 1.5], seed=1)
    expected = 9 + 0 + 16 + (1 - 2) ** 2 + 0 + (0.5 - 1.5) ** 2  # |m1-m2|^2 + sum (s1-s2)^2
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_full_covariances_as_the_textbook_computes_them() -> None:
    generator = np.random.default_rng(2)
    a = generator.normal(size=(200, 6)) @ generator.normal(size=(6, 6))
    b = generator.normal(size=(150, 6)) @ generator.normal(size=(6, 6)) + 1
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    shift = a.mean(0) - b.mean(0)
    root = sqrtm(cov_a @ cov_b).real
    expected = shift @ shift + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_fewer_samples_than_dimensions() -> None:
    a = np.random.default_rng(3).normal(size=(5, 40))
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(40 * 4)
    with pytest.raises(ValueError, match="two samples"):
        frechet_distance(a[:1], a)
