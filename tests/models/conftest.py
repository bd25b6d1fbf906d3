"""One torch thread: these tests are small, and threads that wait for each other cost more than they bring."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
