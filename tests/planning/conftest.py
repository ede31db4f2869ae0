"""nnU-Net's own planning and preprocessing in less time."""

from __future__ import annotations

import pytest

from tests.quick_nnunet import preprocess_in_threads, sample_fewer_voxels


@pytest.fixture
def quick_nnunet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases are worked on in threads of this process, for statistics of few voxels."""
    preprocess_in_threads(monkeypatch.setattr)
    sample_fewer_voxels(monkeypatch.setattr)
