"""One thread, unless a test says otherwise: the tests' scans are small, and several tests run side by side.

And the same random numbers every time: a sum that happens to cancel has no seven digits.
"""

from collections.abc import Iterator

import pytest
import torch

pytest.register_assert_rewrite("conformance", "oracle")


@pytest.fixture(autouse=True)
def one_thread_and_seed() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)
