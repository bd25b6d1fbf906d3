"""One real clip for the tests that need a face: two seconds of the sample call."""

from pathlib import Path

import pytest

from avcall.bench.clip import Clip, load_clip
from avcall.sample import build_sample


@pytest.fixture(scope="session")
def sample_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as a file."""
    return build_sample(tmp_path_factory.mktemp("sample") / "sample.mp4", 2.0)


@pytest.fixture(scope="session")
def sample_clip(sample_path: Path) -> Clip:
    """Its first second, cut to the face."""
    return load_clip(sample_path, 1.0)
