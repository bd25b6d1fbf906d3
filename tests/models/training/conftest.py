"""What several of these tests need."""

from pathlib import Path

import pytest

from models.training.export import export_weights
from tests.models.tiny import TINY_LIVE, random_network


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A weights folder of a small random network."""
    export_weights(random_network(TINY_LIVE), tmp_path / "weights", {})
    return tmp_path / "weights"
