"""A block converted to float64 computes all of itself in it: finite differences tell, which float32 would swallow."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call

from nnunetv2_slicemamba.nets import BSS

SIZES = {2: (3, 4), 3: (2, 2, 3)}


@pytest.mark.parametrize("n_dims", SIZES)
def test_gradients_of_input_and_every_parameter_are_the_derivatives_of_the_output(n_dims: int) -> None:
    torch.manual_seed(0)
    block = BSS(4, n_dims, (2,) * n_dims, 2).double()
    parameters = dict(block.named_parameters())
    with torch.no_grad():  # as they begin, the recurrence hardly moves the output
        for value in parameters.values():
            value += 0.5 * torch.randn_like(value)
    x = torch.randn(1, *SIZES[n_dims], 4, dtype=torch.float64, requires_grad=True)

    def output(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return functional_call(block, dict(zip(parameters, values, strict=True)), x)

    assert output(x, *parameters.values()).dtype == torch.float64
    assert torch.autograd.gradcheck(output, (x, *parameters.values()), atol=1e-8)
