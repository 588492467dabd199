"""Shared by all tests: hypothesis draws the same examples on every machine and is not hurried."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("anchorfield", derandomize=True, deadline=None, max_examples=15, database=None)
settings.load_profile("anchorfield")


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """References are thousands of small operations: threads would spend their time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
