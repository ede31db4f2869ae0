"""The fused BSS block's kernels without a GPU: run on the CPU by an emulator, against float64 autograd."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch.nn import functional as F

from nnunetv2_slicemamba.ops.bss_parameters import BssParameters
from nnunetv2_slicemamba.ops.cuda import bss, bss_kernels
from tests.ops.emulation import emulator
from tests.ops.emulation.comparing import BFLOAT, HALF, SINGLE, TOLERANCE, check, guarded
from tests.ops.emulation.emulated_bss import emulate

pytestmark = pytest.mark.skipif(emulator.compiler() is None, reason="no C++ compiler (g++ or clang++) is installed")
CONVOLUTIONS = {2: F.conv2d, 3: F.conv3d}


@pytest.fixture(autouse=True)
def _emulated(monkeypatch):
    emulate(monkeypatch)


# batch, sizes, E, shift of the data from 16-byte alignment, in elements
CONV_CASES = {
    "2d": (2, (5, 7), 72, 0),
    "one token": (3, (1, 1), 8, 0),
    "long rows": (1, (3, 37), 16, 0),
    "unaligned": (1, (6, 5), 16, 1),
    "odd channels": (2, (4, 9), 13, 0),
    "3d": (1, (3, 4, 5), 24, 0),
    "3d thin": (2, (1, 1, 6), 3, 0),
}


def conv_reference(x, weight, bias, batch, sizes):
    image = x.view(batch, *sizes, -1).movedim(-1, 1)
    out = CONVOLUTIONS[len(sizes)](image, weight, bias, padding=1, groups=weight.shape[0])
    return F.silu(out).movedim(1, -1).reshape(x.shape[0], -1)


@pytest.mark.parametrize("name", CONV_CASES)
def test_convolution_and_its_gradients(name):
    batch, sizes, E, shift = CONV_CASES[name]
    tokens = batch * prod(sizes)
    for dtype in (SINGLE, HALF) if name in ("2d", "odd channels") else (SINGLE,):
        xz, _ = guarded(tokens, 2 * E, dtype, shift)
        dxz, untouched = guarded(tokens, 2 * E, dtype, shift)
        xz.copy_(torch.randn(xz.shape)), dxz.fill_(7)
        dout = torch.randn(tokens, E).to(dtype)
        weight, bias = torch.randn(E, 1, *[3] * len(sizes)), torch.randn(E)
        wanted_inputs = [t.double().requires_grad_() for t in (xz[:, :E].contiguous(), weight, bias)]
        wanted = conv_reference(*wanted_inputs, batch, sizes)
        dx, dweight, dbias = torch.autograd.grad(wanted, wanted_inputs, dout.double())

        out = bss_kernels.conv_forward(xz, weight, bias, batch, sizes)
        dconv = torch.full_like(dout, float("nan"))
        parts = bss_kernels.conv_grad_output(dconv, dout, xz, weight, bias, batch, sizes).sum(0)
        bss_kernels.conv_grad_input(dxz, dconv, weight, batch, sizes)
        got = {"out": out, "x": dxz[:, :E], "weight": parts[: weight.numel()].view_as(weight), "bias": parts[-E:]}
        check(got, {"out": wanted, "x": dx, "weight": dweight, "bias": dbias}, TOLERANCE[dtype] / 10)
        assert untouched()
        assert (dxz[:, E:] == 7).all()


# tokens, E, shift; more tokens than blocks take at once, one and several warps per token
NORM_CASES = {
    "narrow": (37, 8, 0),
    "192 channels": (70, 192, 0),
    "odd channels": (9, 13, 0),
    "unaligned": (9, 24, 1),
    "one channel": (5, 1, 0),
    "768 channels": (21, 768, 0),
    "3072 channels": (3, 3072, 0),
    "2051 channels": (2, 2051, 0),
}


@pytest.mark.parametrize("name", NORM_CASES)
def test_norm_and_gate_and_their_gradients(name):
    tokens, E, shift = NORM_CASES[name]
    for dtype in (SINGLE, HALF) if name in ("192 channels", "odd channels") else (SINGLE,):
        xz, _ = guarded(tokens, 2 * E, dtype, shift)
        dxz, untouched = guarded(tokens, 2 * E, dtype, shift)
        xz.copy_(torch.randn(xz.shape)), dxz.fill_(7)
        y, dout = (3 * torch.randn(tokens, E) + 1).to(dtype), torch.randn(tokens, E).to(dtype)
        gamma, beta = torch.randn(E), torch.randn(E)
        inputs = [t.double().requires_grad_() for t in (y, xz[:, E:].contiguous(), gamma, beta)]
        wanted = F.layer_norm(inputs[0], (E,), inputs[2], inputs[3], 1e-5) * F.silu(inputs[1])
        if E == 1:  # the norm of one channel is beta whatever it is
            wanted = wanted + 0 * inputs[0]
        dy, dgate, dgamma, dbeta = torch.autograd.grad(wanted, inputs, dout.double())

        out = bss_kernels.norm_forward(y, xz[:, E:], gamma, beta)
        again, got_dy, parts = bss_kernels.norm_backward(dxz[:, E:], dout, y, xz[:, E:], gamma, beta)
        assert torch.equal(again, out)
        sums = parts.sum(0)
        if E == 1:
            assert got_dy.abs().max() < 1e-4
            got_dy, dgamma, sums = dy, dgamma + 1, sums + torch.tensor([[1.0], [0.0]])
        got = {"out": out, "y": got_dy, "gate": dxz[:, E:], "gamma": sums[0], "beta": sums[1]}
        # at E 1 the deviation is eps alone, so that roundings of y show a hundredfold
        check(got, {"out": wanted, "y": dy, "gate": dgate, "gamma": dgamma, "beta": dbeta}, TOLERANCE[dtype] / 10)
        assert untouched()
        assert (dxz[:, :E] == 7).all()


def test_sums_and_copies_of_one_launch():
    K, E, R, pieces = 4, 5, 3, 19
    source, logs = torch.randn(4099), torch.randn(7, 3)
    products = torch.randn(pieces, K * E, K * R).half()
    products[2, 0, 0], products[5, 1, 0] = float("inf"), float("nan")
    parts, factor = torch.randn(11, 40), torch.randn(7, 3)
    wide = torch.randn(2048 * 3 + 5).half()
    wide[3] = float("inf")
    targets = [torch.empty(4099, dtype=HALF), *(torch.empty_like(logs) for _ in range(2)), torch.empty(30)]
    weight, widened = torch.empty(K, E, R), torch.empty(wide.shape)
    bss_kernels.copy_segments(
        [
            bss_kernels.Segment(bss_kernels.CAST, source, targets[0]),
            bss_kernels.Segment(bss_kernels.NEGATIVE_EXP, logs, targets[1]),
            bss_kernels.Segment(bss_kernels.PRODUCTS, logs, targets[2], factor),
            bss_kernels.Segment(bss_kernels.SUM, parts, targets[3], pieces=11, piece_step=40, offset=10),
            bss._sums(_gradients_like(weight), parts, parts[:, None], products, True)[-1],
            bss_kernels.Segment(bss_kernels.WIDEN, wide, widened),
        ],
        HALF,
    )
    assert torch.equal(targets[0], source.half())
    assert torch.allclose(targets[1], -logs.exp(), rtol=1e-6)
    assert torch.equal(targets[2], logs * factor)
    assert torch.allclose(targets[3], parts[:, 10:].sum(0), rtol=1e-5, atol=1e-5)
    own = (
        products.float().clamp(-65504, 65504).view(pieces, K, E, K, R).diagonal(dim1=1, dim2=3).sum(0).permute(2, 0, 1)
    )
    assert torch.allclose(weight, own, rtol=1e-4, atol=1e-4, equal_nan=True)
    assert weight[0, 0, 0] > 6e4
    assert weight[0, 1, 0].isnan()
    assert torch.equal(widened, wide.float())


def _gradients_like(weight):
    other = torch.empty(1)
    return BssParameters(*(weight if name == "dt_weight" else other for name in BssParameters._fields))


@pytest.mark.parametrize("dtype", [HALF, BFLOAT], ids=str)
def test_the_emulators_roundings_are_pytorchs(dtype):
    values = torch.cat([torch.randn(3000) * 10.0**e for e in range(-9, 6)])
    values = torch.cat([values, torch.tensor([float("nan"), float("inf"), -float("inf"), 65519.0, 65520.0, -0.0])])
    got = torch.empty(values.shape, dtype=dtype)
    bss_kernels.copy_segments([bss_kernels.Segment(bss_kernels.CAST, values, got)], dtype)
    wanted = (values.clamp(-65504, 65504) if dtype == HALF else values).to(dtype)
    assert torch.equal(got.isnan(), wanted.isnan())
    assert torch.equal(got.nan_to_num(), wanted.nan_to_num())


def test_results_beyond_float16_saturate():
    dtype = HALF
    xz = 6e4 * torch.ones(8, 16, dtype=dtype)
    weight, bias = torch.ones(8, 1, 3, 3), torch.zeros(8)
    out = bss_kernels.conv_forward(xz, weight, bias, 2, (2, 2))
    assert (out == 65504).all()
    gated = bss_kernels.norm_forward(torch.eye(8).to(dtype), xz[:, 8:], 1e3 * torch.ones(8), torch.zeros(8))
    assert gated.abs().max() == 65504
    xz[0, 0] = float("nan")
    assert bss_kernels.conv_forward(xz, weight, bias, 2, (2, 2))[0, 0].isnan()
