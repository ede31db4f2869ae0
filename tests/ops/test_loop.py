"""The loop that exported networks contain is the same scan as the others."""

from __future__ import annotations

import warnings

import pytest
import torch

from nnunetv2_slicemamba.ops import slice_scan
from nnunetv2_slicemamba.ops.loop_scan import loop_scan
from nnunetv2_slicemamba.ops.orders import cached_inverse_orders, cached_orders
from nnunetv2_slicemamba.ops.reference import slice_scan_reference

CASES = {
    "2d, low rank": ((5, 7), (2, 4), 3, 2),
    "3d": ((3, 4, 5), (2, 2, 4), 2, None),
    "one token": ((1, 1), (2, 2), 1, None),
    "one row": ((1, 9), (4, 2), 2, 3),
}


def arguments(name: str) -> tuple:
    """Arguments x, dt, B, C, A, D, sizes, thickness, delta_bias, dt_weight."""
    sizes, thickness, batch, rank = CASES[name]
    torch.manual_seed(0)
    L, K, E, N = torch.Size(sizes).numel(), 2 * len(sizes), 6, 4
    weight = None if rank is None else torch.randn(K, E, rank)
    dt = torch.randn(batch, L, K, E if rank is None else rank)
    B, C = torch.randn(batch, L, K, N), torch.randn(batch, L, K, N)
    A, D, bias = -torch.rand(K, E, N), torch.randn(K, E), torch.randn(K, E)
    return torch.randn(batch, L, E), dt, B, C, A, D, sizes, thickness, bias, weight


@pytest.mark.parametrize("name", CASES)
def test_both_forms_of_the_loop_agree_with_the_reference(name: str) -> None:
    x, *rest = arguments(name)
    expected = slice_scan_reference(x, *rest)
    assert torch.allclose(loop_scan(x, *rest), expected, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(lambda x: slice_scan(x, *rest), (x,), check_trace=False)
    other = torch.randn_like(x)
    assert torch.allclose(traced(other), slice_scan_reference(other, *rest), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_the_first_trace_of_a_program_is_the_same_as_later_ones() -> None:
    x, *rest = arguments("3d")
    for orders in (cached_orders, cached_inverse_orders):
        orders.cache_clear()
    # PyTorch traces twice, and raises an error if the graphs differ
    torch.jit.trace(lambda x: slice_scan(x, *rest), (x,))


def test_the_loop_stays_a_loop_whatever_the_number_of_tokens() -> None:
    sizes = []
    for n in (4, 40):
        torch.manual_seed(0)
        K, E, N = 4, 3, 2
        tensors = (torch.randn(1, n * n, E), torch.randn(1, n * n, K, E), *torch.randn(2, 1, n * n, K, N))

        class Scan(torch.nn.Module):
            def forward(self, *tensors: torch.Tensor, n: int = n) -> torch.Tensor:
                return slice_scan(*tensors, (n, n), (2, 2))

        program = torch.export.export(Scan(), (*tensors, -torch.rand(K, E, N), torch.randn(K, E)))
        sizes.append(len(program.graph.nodes))
    assert sizes[0] == sizes[1] < 200
