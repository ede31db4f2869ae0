"""The CUDA instance norm without a GPU: its kernels run on the CPU by an emulator, against float64 autograd."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch.nn import functional as F

from nnunetv2_slicemamba.ops.cuda import instance_norm
from tests.ops.emulation import emulator
from tests.ops.emulation.comparing import BFLOAT, HALF, SINGLE, check
from tests.ops.emulation.emulated_bss import emulate

pytestmark = pytest.mark.skipif(emulator.compiler() is None, reason="no C++ compiler (g++ or clang++) is installed")
# what follows from one rounding of the result and of the gradients
TOLERANCE = {SINGLE: 1e-5, HALF: 1e-3, BFLOAT: 8e-3}
EPS, SLOPE = 1e-5, 0.01
# shape of x, shift from 16-byte alignment in elements; images of more than 40 positions are cut into chunks
CASES = {
    "chunks": ((2, 32, 37, 41), 0),
    "chunks, one thread per position": ((1, 8, 67, 59), 0),
    "chunks, slices": ((1, 72, 19, 23), 0),
    "chunks, idle threads": ((1, 24, 40, 33), 0),
    "chunks, odd channels": ((1, 13, 40, 33), 0),
    "chunks, 3d": ((1, 16, 5, 19, 17), 0),
    "whole": ((2, 64, 5, 7), 0),
    "whole, slices": ((2, 96, 4, 4), 0),
    "whole, two positions": ((3, 40, 1, 2), 0),
    "whole, one channel": ((2, 1, 6, 6), 0),
    "whole, unaligned": ((2, 16, 6, 6), 1),
    "whole, 3d": ((1, 72, 3, 4, 3), 0),
}


@pytest.fixture(autouse=True)
def _emulated(monkeypatch):
    emulate(monkeypatch)
    monkeypatch.setattr(instance_norm, "WHOLE_POSITIONS", 40)
    instance_norm.make_plan.cache_clear()
    yield
    instance_norm.make_plan.cache_clear()


def channels_last(shape, dtype, shift=0):
    """A tensor (B, C, *spatial) amid NaN, channels last, and a function that tells whether the NaN are untouched."""
    count = torch.Size(shape).numel()
    room = torch.full((count + 128 + shift,), float("nan"), dtype=dtype)
    inner = room[64 + shift : 64 + shift + count].view(shape[0], *shape[2:], shape[1]).movedim(-1, 1)

    def untouched():
        return bool(room[: 64 + shift].isnan().all() and room[64 + shift + count :].isnan().all())

    return inner, untouched


def make(shape, dtype, shift=0, mean=0.5, seed=0):
    """x, weight, bias and the gradient of the result."""
    torch.manual_seed(seed)
    x, dout = (channels_last(shape, dtype, s)[0] for s in (shift, 0))
    x.copy_(2 * torch.randn(shape) + mean), dout.copy_(torch.randn(shape) + 0.2)
    return x, 1 + 0.5 * torch.randn(shape[1]), torch.randn(shape[1]), dout


def oracle(x, weight, bias, dout):
    """Result and gradients in float64."""
    inputs = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    out = F.leaky_relu(F.instance_norm(inputs[0], weight=inputs[1], bias=inputs[2], eps=EPS), SLOPE)
    return out.detach(), torch.autograd.grad(out, inputs, dout.double())


@pytest.mark.parametrize("name", CASES)
def test_result_and_gradients_agree_with_float64(name):
    shape, shift = CASES[name]
    for dtype in (SINGLE, HALF, BFLOAT) if name in ("chunks", "whole, slices", "whole, unaligned") else (HALF,):
        x, weight, bias, dout = make(shape, dtype, shift)
        wanted, gradients = oracle(x, weight, bias, dout)
        out, moments = instance_norm.forward(x, weight, bias, EPS, SLOPE)
        dx, dweight, dbias = instance_norm.backward(dout, x, weight, bias, moments, SLOPE)
        assert (out.dtype, dx.dtype, dweight.dtype, dbias.dtype) == (dtype, dtype, SINGLE, SINGLE)
        assert out.stride() == dx.stride() == x.stride()
        check({"out": out}, {"out": wanted}, TOLERANCE[dtype])
        check({"x": dx}, {"x": gradients[0]}, TOLERANCE[dtype])
        check({"weight": dweight, "bias": dbias}, {"weight": gradients[1], "bias": gradients[2]}, 1e-5)


@pytest.mark.parametrize("resident", [instance_norm.FORWARD_RESIDENT, instance_norm.BACKWARD_RESIDENT])
def test_the_cases_take_both_ways(resident):
    chunks = {}
    for name, ((samples, channels, *sizes), _) in CASES.items():
        plan = instance_norm.make_plan(samples, prod(sizes), channels, emulator.PROCESSORS, resident)
        chunks[name] = plan.chunks
    assert all((n > 1) == name.startswith("chunks") for name, n in chunks.items()), chunks


@pytest.mark.parametrize("shape", [(1, 8, 41, 43), (1, 8, 6, 6)])
@pytest.mark.parametrize(("mean", "deviation"), [(1000.0, 0.01), (-1e4, 1.0)])
def test_moments_are_exact_far_from_zero(shape, mean, deviation):
    """Squares that are summed as they are would leave no digit of these variances; one outlier must not either."""
    x, weight, bias, _ = make(shape, SINGLE)
    x.copy_(deviation * torch.randn(shape, dtype=torch.float64) + mean)
    x[0, :, 0, 0] = 0.0 if mean == 1000.0 else mean
    _, moments = instance_norm.forward(x, weight, bias, EPS, SLOPE)
    variance, centre = torch.var_mean(x.double(), (2, 3), correction=0)
    check({"mean": moments[:, 0]}, {"mean": centre}, 1e-6)
    check({"deviation": moments[:, 1]}, {"deviation": (variance + EPS).rsqrt()}, 1e-3)


@pytest.mark.parametrize("name", ["chunks", "chunks, odd channels", "whole", "whole, two positions"])
def test_nothing_is_written_beside_the_images(monkeypatch, name):
    written = []

    def guard(x, **_):
        inner, untouched = channels_last(x.shape, x.dtype)
        written.append(untouched)
        return inner

    x, weight, bias, dout = make(CASES[name][0], HALF)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty_like", guard)
        out, moments = instance_norm.forward(x, weight, bias, EPS, SLOPE)
        dx, *_ = instance_norm.backward(dout, x, weight, bias, moments, SLOPE)
    assert [untouched() for untouched in written] == [True, True]
    assert not out.isnan().any()
    assert not dx.isnan().any()


@pytest.mark.parametrize("shape", [(1, 8, 8, 6), (1, 8, 2, 3)])
def test_what_float16_cannot_hold_is_infinite_and_nan_stays_in_its_channel(shape):
    x, weight, bias, dout = make(shape, HALF)
    weight, bias = torch.full((8,), 1e6), torch.zeros(8)
    x[0, 0, 0, 0] = float("nan")
    out, moments = instance_norm.forward(x, weight, bias, EPS, 1.0)
    wanted = F.instance_norm(x.float(), weight=weight, bias=bias, eps=EPS).half()
    assert out[:, 0].isnan().all()
    assert out[:, 1:].isinf().any()
    assert torch.equal(out[:, 1:].isinf(), wanted[:, 1:].isinf())
    dx, *_ = instance_norm.backward(dout, x, weight, bias, moments, 1.0)
    assert dx[:, 0].isnan().all()
    assert dx[:, 1:].isinf().any()


@pytest.mark.parametrize("shape", [(2, 16, 9, 7), (2, 16, 3, 2)])
def test_autograd_takes_any_gradient_and_frozen_parameters(shape):
    x, weight, bias, dout = make(shape, SINGLE)
    x.requires_grad_()
    weight = torch.nn.Parameter(weight)
    assert instance_norm.fits(x, weight, bias)
    out = instance_norm.apply(x, weight, bias, EPS, SLOPE)
    got = torch.autograd.grad(out, [x, weight], dout.contiguous())
    check(dict(enumerate(got)), dict(enumerate(oracle(x, weight, bias, dout)[1][:2])), 1e-5)
    with torch.no_grad():
        assert torch.equal(instance_norm.apply(x, weight, bias, EPS, SLOPE), out)


def test_a_second_derivative_is_refused():
    x, weight, bias, _ = make((1, 8, 2, 3), SINGLE)
    x.requires_grad_()
    out = instance_norm.apply(x, weight, bias, EPS, SLOPE)
    with pytest.raises(RuntimeError, match="differentiable once.*SLICEMAMBA_FUSED=0"):
        torch.autograd.grad(out.sum(), x, create_graph=True)


def test_the_operator_is_what_pytorch_expects_of_one():
    x, weight, bias, dout = make((2, 16, 3, 2), SINGLE)
    tensors = [t.requires_grad_() for t in (x, weight, bias)]
    operators = torch.ops.slicemamba
    torch.library.opcheck(operators.instance_norm_leaky_relu.default, (*tensors, EPS, SLOPE))
    moments = instance_norm.forward(*(t.detach() for t in tensors), EPS, SLOPE)[1]
    arguments = (dout, *(t.detach() for t in tensors), moments, SLOPE)
    torch.library.opcheck(operators.instance_norm_leaky_relu_backward.default, arguments)


def test_a_compiled_network_keeps_the_operator_and_its_values():
    x, weight, bias, dout = make((2, 16, 3, 2), SINGLE)
    inputs = [t.requires_grad_() for t in (x, weight, bias)]

    def both(function):
        out = function(*inputs)
        return [out, *torch.autograd.grad(out, inputs, dout)]

    def network(x, weight, bias):
        return instance_norm.apply(x * 2, weight, bias, EPS, SLOPE) + 1

    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(both(compiled), both(network), strict=True):
        assert torch.allclose(got, wanted, atol=1e-5)
        assert got.stride() == wanted.stride()


@pytest.mark.parametrize("channels", [1, 8, 24, 32, 48, 96, 320, 512, 1000])
@pytest.mark.parametrize("positions", [2, 16, 1024, 4096, 65536, 128**3])
@pytest.mark.parametrize("samples", [1, 20, 3000])
def test_plans_cover_every_position_and_channel_once(monkeypatch, samples, positions, channels):
    monkeypatch.setattr(instance_norm, "WHOLE_POSITIONS", 1024)
    plan = instance_norm.make_plan(samples, positions, channels, 132, 4)
    assert instance_norm.THREADS % plan.lanes == 0
    assert 0 <= plan.slices * plan.lanes * 8 - channels < plan.lanes * 8
    assert (plan.chunks - 1) * plan.chunk < positions <= plan.chunks * plan.chunk
    assert plan.chunks == 1 or (samples * plan.chunks + 1) * plan.slices <= 4 * 132


def test_large_images_keep_a_gpu_busy():
    for samples, size, channels in ((20, 256, 32), (20, 128, 64), (20, 64, 128), (2, 512, 32), (1, 256, 64)):
        plan = instance_norm.make_plan(samples, size * size, channels, 132, 4)
        assert samples * plan.slices * plan.chunks > 0.85 * 4 * 132, plan
