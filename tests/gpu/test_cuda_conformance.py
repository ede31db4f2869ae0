"""The suite that every backend must pass, over the CUDA backend. Needs an NVIDIA GPU."""

import pytest
import torch

from tests.ops import conformance
from tests.ops.conformance import (
    SMALL,
    ScanConformance,
    assert_close,
    converted,
    expected,
    make_inputs,
    upstream,
    with_gradients,
)


class TestCuda(ScanConformance):
    backend = "cuda"
    device = "cuda"

    # The suite asks for float32's own accuracy; the GPU's fast exponential leaves about two digits less.
    @pytest.fixture(autouse=True)
    def _tolerance_of_fast_exponentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(conformance.TOLERANCE, torch.float32, 1e-4)

    # The suite asks for float32's accuracy in the parameters' gradients, too. With half tokens the states between
    # which the backward recomputes are kept in bfloat16.
    def test_half_tokens_with_float32_parameters(self) -> None:
        self.needs(torch.bfloat16)
        inputs = converted({n: t.to(torch.bfloat16) for n, t in make_inputs(SMALL).items()}, torch.float32, self.device)
        for name in ("x", "dt", "B", "C"):
            inputs[name] = inputs[name].detach().to(torch.bfloat16).requires_grad_()
        got = with_gradients(inputs, upstream(SMALL).to(torch.bfloat16), SMALL, self.backend)
        assert all(got[name].dtype == tensor.dtype for name, tensor in inputs.items())
        assert_close(got, expected(SMALL, torch.bfloat16), 2 * torch.finfo(torch.bfloat16).eps)
