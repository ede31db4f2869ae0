"""Small networks of every kind, and the scan backends to test them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from nnunetv2_slicemamba.nets import cuda_graphs
from nnunetv2_slicemamba.ops import available_backends
from tests.nets.cuda_stand_in import Cuda

# anisotropic on purpose: an axis mixed up with another shows
STRIDES = {
    2: [[4, 4], [2, 2], [2, 1]],
    3: [[1, 4, 4], [2, 2, 2], [1, 2, 2]],
}


@pytest.fixture
def settings() -> Callable[..., dict[str, Any]]:
    """Function settings(n_dims, **changes): constructor arguments of a network with 3 stages and 8 blocks."""

    def make(n_dims: int = 2, **changes: Any) -> dict[str, Any]:
        return {
            "input_channels": 2,
            "num_classes": 3,
            "n_stages": 3,
            "features_per_stage": [8, 16, 24],
            "strides": STRIDES[n_dims],
            "n_blocks_per_stage": [1, 2, 1],
            "n_blocks_per_stage_decoder": [1, 1, 2],
            "d_state": 4,
            "drop_path_rate": 0.0,
        } | changes

    return make


@pytest.fixture(params=[name for name in available_backends("cpu") if name != "reference"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every scan backend that networks run with on this CPU, chosen as a user would."""
    monkeypatch.setenv("SLICEMAMBA_BACKEND", request.param)
    return request.param


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    """In place of torch.cuda."""
    yield Cuda(monkeypatch)
    cuda_graphs._stream.cache_clear()


@pytest.fixture
def network() -> nn.Sequential:
    """The least that has a graph."""
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
