"""The mamba_ssm backend orders, groups and sums what it hands to the kernel, here one in plain PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_slicemamba.ops import mamba_ssm_scan
from nnunetv2_slicemamba.ops.backends import BACKENDS, Backend, _choose
from tests.ops.conformance import ScanConformance


def selective_scan_fn(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, delta_bias: Tensor, delta_softplus: bool
) -> Tensor:
    """Scan in plain PyTorch. u, delta: (batch, channels, L). A: (channels, N). B, C: (batch, groups, N, L)."""
    assert delta_softplus
    assert all(tensor.dtype == torch.float32 for tensor in (u, delta, A, B, C, D, delta_bias))
    delta = F.softplus(delta + delta_bias[:, None])
    repeats = u.shape[1] // B.shape[1]
    B, C = (tensor.repeat_interleave(repeats, 1) for tensor in (B, C))  # (batch, channels, N, L)
    h, results = torch.zeros_like(B[..., 0]), []
    for u_t, delta_t, B_t, C_t in zip(*(tensor.unbind(-1) for tensor in (u, delta, B, C)), strict=True):
        h = (delta_t[..., None] * A).exp() * h + (delta_t * u_t)[..., None] * B_t
        results.append((h * C_t).sum(-1) + D * u_t)
    return torch.stack(results, -1)


class TestMambaSsm(ScanConformance):
    backend = "mamba_ssm"
    # This kernel keeps every state, and mamba_ssm's knows no float64.
    test_the_backward_keeps_few_states = None  # type: ignore[assignment]
    test_float64_is_computed_in_float64 = None  # type: ignore[assignment]

    @pytest.fixture(autouse=True)
    def _kernel(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        interface = ModuleType("mamba_ssm.ops.selective_scan_interface")
        interface.selective_scan_fn = selective_scan_fn  # type: ignore[attr-defined]
        for name in ("mamba_ssm", "mamba_ssm.ops"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, interface.__name__, interface)
        monkeypatch.setitem(BACKENDS, "mamba_ssm", Backend("mamba_ssm", mamba_ssm_scan.scan, lambda *_: None))
        yield
        _choose.cache_clear()  # that it runs here was true for this test alone
