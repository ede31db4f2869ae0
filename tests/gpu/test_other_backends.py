"""The suite that every backend must pass, over those that are not written for GPUs but run there."""

import pytest
import torch

from tests.ops import conformance
from tests.ops.conformance import ScanConformance


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
class TestTorch(ScanConformance):
    backend = "torch"
    device = "cuda"


class TestMambaSsm(ScanConformance):
    """Skipped with the reason where mamba_ssm's compiled scan is missing."""

    backend = "mamba_ssm"
    device = "cuda"
    repeats_bits = False  # it adds gradients atomically

    # its kernels are compiled with fast exponentials, as ours are
    @pytest.fixture(autouse=True)
    def _tolerance_of_fast_exponentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(conformance.TOLERANCE, torch.float32, 1e-4)
