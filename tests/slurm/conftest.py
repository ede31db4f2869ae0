"""The cluster of these tests, started where SLURM is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import missing_programs, running_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    missing = missing_programs()
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; on Debian or Ubuntu: apt-get install slurm-wlm munge")
    with running_cluster():
        yield
