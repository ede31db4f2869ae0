"""The CUDA LayerNorm without a GPU: its kernels run on the CPU by an emulator, against float64 autograd."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nnunetv2_slicemamba.nets import token_norm
from nnunetv2_slicemamba.nets.token_norm import TokenNorm
from nnunetv2_slicemamba.ops.cuda import layer_norm
from tests.ops.emulation import emulator
from tests.ops.emulation.comparing import BFLOAT, HALF, SINGLE, check, guarded
from tests.ops.emulation.emulated_bss import emulate

pytestmark = pytest.mark.skipif(emulator.compiler() is None, reason="no C++ compiler (g++ or clang++) is installed")
# what follows from one rounding of the result and of the gradients
TOLERANCE = {SINGLE: 1e-5, HALF: 1e-3, BFLOAT: 8e-3}
# tokens, C, shift from 16-byte alignment in elements: more tokens than blocks take at once, several warps per token
CASES = {
    "6 channels": (300, 6, 0),
    "24 channels": (150, 24, 0),
    "96 channels": (70, 96, 0),
    "odd channels": (9, 13, 0),
    "unaligned": (9, 24, 1),
    "1536 channels": (5, 1536, 0),
    "2051 channels": (2, 2051, 0),
}
# type of x, of the result
TYPES = [(SINGLE, SINGLE), (SINGLE, HALF), (HALF, SINGLE), (HALF, HALF), (SINGLE, BFLOAT)]


@pytest.fixture(autouse=True)
def _emulated(monkeypatch):
    emulate(monkeypatch)


@pytest.mark.parametrize("name", CASES)
def test_result_and_gradients_agree_with_float64(name):
    tokens, C, shift = CASES[name]
    for given, wanted_type in TYPES if name in ("24 channels", "odd channels") else TYPES[:2]:
        x, _ = guarded(tokens, C, given, shift)
        x.copy_(3 * torch.randn(tokens, C) + 1)
        gamma, beta = torch.randn(C), torch.randn(C)
        dout = torch.randn(tokens, C).to(wanted_type)
        inputs = [t.double().requires_grad_() for t in (x, gamma, beta)]
        wanted = F.layer_norm(inputs[0], (C,), *inputs[1:], 1e-5)
        gradients = torch.autograd.grad(wanted, inputs, dout.double())

        out = layer_norm.forward(x, gamma, beta, wanted_type)
        dx, dgamma, dbeta = layer_norm.backward(dout, x, gamma)
        assert (out.dtype, dx.dtype, dgamma.dtype) == (wanted_type, given, SINGLE)
        check({"out": out}, {"out": wanted}, TOLERANCE[wanted_type])
        check({"x": dx}, {"x": gradients[0]}, TOLERANCE[given])
        check({"gamma": dgamma, "beta": dbeta}, {"gamma": gradients[1], "beta": gradients[2]}, 1e-5)


def test_nothing_is_written_beside_the_rows(monkeypatch):
    written = []
    empty_like = torch.empty_like

    def guard(x, **_):
        inner, untouched = guarded(*x.shape, x.dtype)
        written.append(untouched)
        return inner

    x, gamma = torch.randn(37, 13), torch.randn(13)
    monkeypatch.setattr(torch, "empty_like", guard)
    layer_norm.backward(torch.randn(37, 13), x, gamma)
    monkeypatch.setattr(torch, "empty_like", empty_like)
    assert [untouched() for untouched in written] == [True]


def test_results_beyond_float16_saturate_and_nan_stays():
    x = torch.tensor([[1.0] + [0.0] * 15, [float("nan")] + [0.0] * 15])
    out = layer_norm.forward(x, 1e5 * torch.ones(16), torch.zeros(16), HALF)
    assert out[0, 0] == 65504
    assert out[1].isnan().all()


def test_autograd_takes_rows_that_are_not_contiguous_and_frozen_parameters():
    x = torch.randn(2, 8, 5, requires_grad=True)
    gamma, beta = torch.nn.Parameter(torch.randn(8)), torch.randn(8)
    out = layer_norm.apply(x.movedim(1, -1), gamma, beta, SINGLE)
    dout = torch.randn(out.shape)
    got = torch.autograd.grad(out, [x, gamma], dout)
    wanted = torch.autograd.grad(F.layer_norm(x.movedim(1, -1), (8,), gamma, beta, 1e-5), [x, gamma], dout)
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_second_derivative_is_refused():
    x = torch.randn(3, 8, requires_grad=True)
    out = layer_norm.apply(x, torch.ones(8), torch.zeros(8), SINGLE)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(out.sum(), x, create_graph=True)


def test_on_a_cpu_the_modules_norm_is_pytorchs():
    norm, x = TokenNorm(8, rounded=True), torch.randn(3, 8)
    assert torch.equal(norm(x), F.layer_norm(x, (8,), norm.weight, norm.bias, 1e-5))
    assert norm.eps == layer_norm.EPSILON


def test_a_changed_eps_is_honoured_where_a_backend_has_kernels_of_another(monkeypatch):
    monkeypatch.setattr(token_norm, "fused_layer_norm", lambda x, *_: torch.zeros_like(x))
    norm, x = TokenNorm(8), torch.randn(3, 8)
    assert not norm(x).any()
    norm.eps = 0.5
    assert torch.equal(norm(x), F.layer_norm(x, (8,), norm.weight, norm.bias, 0.5))
