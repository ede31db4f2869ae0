"""Instance norm with leaky ReLU on a GPU against float64, and what else its kernels promise. Needs an NVIDIA GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunetv2_slicemamba.ops.backends import FUSED_VARIABLE
from nnunetv2_slicemamba.ops.cuda import bss_kernels
from nnunetv2_slicemamba.ops.cuda_scan import unavailable_reason
from nnunetv2_slicemamba.ops.instance_norm import instance_norm_leaky_relu
from tests.gpu.scan_cases import relative_error

REASON = unavailable_reason(torch.device("cuda"), torch.float16)
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"the CUDA backend cannot run: {REASON}")
HALF, BFLOAT, SINGLE = torch.float16, torch.bfloat16, torch.float32
# what follows from one rounding of the result and of the gradients
TOLERANCE = {SINGLE: 2e-5, HALF: 1e-3, BFLOAT: 8e-3}
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
EPS, SLOPE = 1e-5, 0.01
SHAPES = [
    (20, 32, 256, 256),
    (3, 64, 128, 128),
    (20, 128, 64, 64),
    (20, 256, 32, 32),
    (20, 512, 16, 16),
    (20, 512, 4, 4),
    (1, 8, 512, 512),
    (1, 512, 8, 8),
    (2, 1024, 37, 41),
    (2, 24, 65, 47),
    (2, 96, 33, 35),
    (3, 1, 40, 50),
    (2, 13, 70, 30),
    (2, 320, 4, 5, 4),
    (2, 32, 48, 80, 64),
    (1, 30, 20, 28, 24),
    (700, 40, 3, 3),
    (3, 16, 1, 2),
]
NAMES = ("out", "x", "weight", "bias")


def make(shape, dtype, last=True, mean=0.5, deviation=2.0, seed=0):
    """x, weight, bias and the gradient of the result.

    The gradient is 0 where rounding decides on which side of the leaky ReLU's bend a value is.
    """
    generator = torch.Generator("cuda").manual_seed(seed)

    def normal(*size):
        return torch.randn(size, generator=generator, device="cuda")

    memory_format = FORMATS[len(shape)] if last else torch.contiguous_format
    x = (deviation * normal(*shape) + mean).to(dtype).contiguous(memory_format=memory_format)
    weight, bias = 1 + 0.5 * normal(shape[1]), normal(shape[1])
    bent = F.instance_norm(x.double(), weight=weight.double(), bias=bias.double(), eps=EPS).abs() > 1e-5
    dout = (bent * normal(*shape)).to(dtype).contiguous(memory_format=memory_format)
    return x, weight, bias, dout


def plain(x, weight, bias):
    return F.leaky_relu(F.instance_norm(x, weight=weight, bias=bias, eps=EPS), SLOPE)


def run(function, x, weight, bias, dout):
    """Result and gradients by name."""
    inputs = [t.detach().requires_grad_() for t in (x, weight, bias)]
    out = function(*inputs)
    return dict(zip(NAMES, (out.detach(), *torch.autograd.grad(out, inputs, dout.to(out.dtype))), strict=True))


def errors_of(got, *inputs):
    """Relative errors of `run`'s results by name, against float64."""
    wanted = run(plain, *(t.double() for t in inputs))
    return {name: relative_error(got[name], wanted[name]) for name in NAMES}


@pytest.fixture
def launched(monkeypatch):
    """Names of the kernels that were launched."""
    names, launch = [], bss_kernels.launch

    def note(device, part, variant, name, blocks, arguments):
        names.append(name.removeprefix("instance_norm_"))
        launch(device, part, variant, name, blocks, arguments)

    monkeypatch.setattr(bss_kernels, "launch", note)
    return names


@pytest.mark.parametrize("dtype", [HALF, SINGLE, BFLOAT], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_result_and_gradients_agree_with_float64(shape, dtype, launched):
    inputs = make(shape, dtype)
    got = run(instance_norm_leaky_relu, *inputs)
    assert len(launched) == 3 if "forward_whole" in launched else 4, launched
    assert got["out"].dtype == got["x"].dtype == dtype
    assert got["out"].stride() == got["x"].stride() == inputs[0].stride()
    errors = errors_of(got, *inputs)
    assert errors["out"] < TOLERANCE[dtype], errors
    # of two positions the gradient of x is what little is left of terms that cancel
    cancels = 1e-3 if shape[2:] == (1, 2) else 0.0
    assert errors["x"] < max(TOLERANCE[dtype], cancels), errors
    assert max(errors["weight"], errors["bias"]) < 1e-4, errors


@pytest.mark.parametrize("dtype", [HALF, SINGLE, BFLOAT], ids=str)
@pytest.mark.parametrize("shape", [(2, 32, 48, 40), (1, 16, 12, 20, 16)], ids=str)
def test_other_memory_formats_run_by_pytorch(shape, dtype, launched):
    inputs = make(shape, dtype, last=False)
    got = run(instance_norm_leaky_relu, *inputs)
    assert not launched
    assert got["out"].stride() == inputs[0].stride()
    assert max(errors_of(got, *inputs).values()) < 5 * TOLERANCE[dtype]


@pytest.mark.parametrize("shape", [(20, 32, 256, 256), (20, 64, 16, 16)], ids=str)
def test_statistics_hold_far_from_zero(shape):
    """A mean of 10 and a deviation of 1 in float16."""
    inputs = make(shape, HALF, mean=10, deviation=1)
    errors = errors_of(run(instance_norm_leaky_relu, *inputs), *inputs)
    assert max(errors.values()) < 1e-3, errors


@pytest.mark.parametrize("shape", [(20, 32, 256, 256), (4, 128, 64, 64), (20, 512, 4, 4)], ids=str)
def test_runs_give_the_same_bits(shape):
    inputs = make(shape, HALF)
    first = run(instance_norm_leaky_relu, *inputs)
    for _ in range(10):
        again = run(instance_norm_leaky_relu, *inputs)
        assert all(torch.equal(first[name], again[name]) for name in NAMES)


@pytest.mark.parametrize("shape", [(4, 32, 96, 96), (4, 256, 8, 8), (1, 16, 20, 24, 28)], ids=str)
def test_a_captured_graph_computes_what_eager_does(shape):
    x, weight, bias, dout = make(shape, HALF)
    inputs = [t.requires_grad_() for t in (x, weight, bias)]

    def step():
        out = instance_norm_leaky_relu(*inputs, EPS, SLOPE)
        return (out, *torch.autograd.grad(out, inputs, dout))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    for seed in (1, 2):
        others = make(shape, HALF, seed=seed)
        with torch.no_grad():
            for tensor, other in zip((x, weight, bias, dout), others, strict=True):
                tensor.copy_(other)
        graph.replay()
        wanted = step()
        assert all(torch.equal(a, b) for a, b in zip(recorded, wanted, strict=True))


def test_training_under_autocast_keeps_half_images_and_float32_parameters(launched):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 32, 3, padding=1, bias=False, device="cuda").to(memory_format=torch.channels_last)
    weight, bias = nn.Parameter(torch.ones(32, device="cuda")), nn.Parameter(torch.zeros(32, device="cuda"))
    x = torch.randn(4, 3, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last)
    with torch.autocast("cuda"):
        out = instance_norm_leaky_relu(convolution(x), weight, bias)
        assert out.dtype == HALF
        assert out.is_contiguous(memory_format=torch.channels_last)
        out.float().square().mean().backward()
    assert launched == ["statistics", "normalise", "gradient_sums", "gradient_input"]
    assert weight.grad.dtype == bias.grad.dtype == SINGLE
    parameters = (convolution.weight, weight, bias)
    got = [p.grad.clone() for p in parameters]
    with torch.autocast("cuda"):
        loss = plain(convolution(x), weight, bias).float().square().mean()
    of_half = torch.autograd.grad(loss, parameters)
    of_single = torch.autograd.grad(plain(convolution(x), weight, bias).square().mean(), parameters)
    for ours, pytorchs, right in zip(got, of_half, of_single, strict=True):
        # a norm's gradient is a small difference of large numbers: PyTorch's own is the measure
        assert relative_error(ours, right) < max(1e-2, 1.5 * relative_error(pytorchs, right))


def test_gradients_that_float16_cannot_hold_are_infinite():
    """A gradient scaler has to notice them."""
    x, weight, bias, dout = make((2, 32, 48, 40), HALF)
    assert run(instance_norm_leaky_relu, x, 1e6 * weight, bias, dout)["x"].isinf().any()


@pytest.mark.parametrize("shape", [(4, 32, 96, 96), (4, 256, 8, 8)], ids=str)
def test_a_compiled_network_runs_the_kernels(shape, launched):
    inputs = make(shape, HALF)

    def network(x, weight, bias):
        return instance_norm_leaky_relu(torch.sin(x), weight, bias) * 2

    wanted = run(network, *inputs)
    by_eager = len(launched)
    got = run(torch.compile(network, fullgraph=True), *inputs)
    assert len(launched) == 2 * by_eager
    assert max(relative_error(got[name], wanted[name]) for name in NAMES) < 1e-3


def test_the_environment_switches_the_kernels_off(monkeypatch, launched):
    monkeypatch.setenv(FUSED_VARIABLE, "0")
    x, weight, bias, _ = make((2, 32, 48, 40), HALF)
    assert instance_norm_leaky_relu(x, weight, bias).is_contiguous(memory_format=torch.channels_last)
    assert not launched


def test_a_large_image_of_more_than_2_31_elements():
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("needs 40 GiB of free memory")
    x = torch.randn(1, 1, 1, 2**17, device="cuda", dtype=HALF).expand(3, 48, 120, 2**17)
    x = x.contiguous(memory_format=torch.channels_last)
    assert x.numel() > 2**31
    ones, zeros = torch.ones(48, device="cuda"), torch.zeros(48, device="cuda")
    dout = torch.full_like(x, 0.5)
    dout[2] = x[2]
    x.requires_grad_()
    out = instance_norm_leaky_relu(x, ones, zeros)
    (dx,) = torch.autograd.grad(out, x, dout)
    small = x.detach()[2:, :8, :1].clone(memory_format=torch.channels_last).requires_grad_()
    wanted = instance_norm_leaky_relu(small, ones[:8], zeros[:8])
    (wanted_dx,) = torch.autograd.grad(wanted, small, dout[2:, :8, :1])
    assert relative_error(out[2:, :8, :1], wanted) < 1e-3
    assert (dx[2:, :8, :1].float() - wanted_dx.float()).abs().max() < 1e-2
