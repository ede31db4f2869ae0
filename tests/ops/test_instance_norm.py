"""Instance norm with leaky ReLU by PyTorch's operators: values, types, memory formats and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunetv2_slicemamba.ops.instance_norm import instance_norm_leaky_relu

FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}


def make(n_dims, dtype=torch.float32, last=True):
    torch.manual_seed(0)
    x = (torch.randn(2, 5, *(4, 3, 6)[:n_dims]) + 10).to(dtype)
    x = x.contiguous(memory_format=FORMATS[n_dims]) if last else x
    return x, torch.randn(5), torch.randn(5)


def modules(n_dims, weight, bias):
    """What nnU-Net's networks have for it."""
    norm = (nn.InstanceNorm2d if n_dims == 2 else nn.InstanceNorm3d)(5, eps=1e-5, affine=True)
    norm.load_state_dict({"weight": weight, "bias": bias})
    return nn.Sequential(norm, nn.LeakyReLU())


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_values_are_nnunets_and_type_and_memory_format_are_xs(n_dims, last, dtype):
    x, weight, bias = make(n_dims, dtype, last)
    out = instance_norm_leaky_relu(x, weight, bias)
    assert out.dtype == dtype
    assert out.stride() == x.stride()
    wanted = modules(n_dims, weight, bias).double()(x.double())
    assert (out.double() - wanted).abs().max() < {torch.float64: 1e-9, torch.float32: 1e-4}.get(dtype, 0.02)


def test_autocast_leaves_the_type_alone():
    x, weight, bias = make(2, torch.bfloat16)
    with torch.autocast("cpu"):
        assert instance_norm_leaky_relu(x, weight, bias).dtype == torch.bfloat16
        assert instance_norm_leaky_relu(x.float(), weight, bias).dtype == torch.float32


def test_gradients_of_both_orders():
    inputs = [t.double().requires_grad_() for t in make(2)]
    assert torch.autograd.gradcheck(lambda *t: instance_norm_leaky_relu(*t, slope=0.3), inputs)
    assert torch.autograd.gradgradcheck(lambda *t: instance_norm_leaky_relu(*t, slope=0.3), inputs)


def test_it_can_be_compiled_and_traced():
    x, weight, bias = make(2)
    wanted = instance_norm_leaky_relu(x, weight, bias)
    assert torch.equal(
        torch.compile(instance_norm_leaky_relu, fullgraph=True, backend="eager")(x, weight, bias), wanted
    )
    traced = torch.jit.trace(lambda x: instance_norm_leaky_relu(x, weight, bias), x)
    assert torch.equal(traced(x), wanted)


X = torch.zeros(2, 5, 4, 4)
ONE = torch.ones(5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.zeros(2, 5, 4), ONE, ONE), r"\(2, 5, 4\).*must be \(B, C, H, W\).*reshape"),
        ((torch.zeros(2, 5, 1, 1), ONE, ONE), r"\(2, 5, 1, 1\).*more than one position.*pool less"),
        ((X.int(), ONE, ONE), r"int32.*floating.*float"),
        ((X, torch.ones(4), ONE), r"weight has shape \(4,\).*\(5,\).*per channel"),
        ((X, ONE, torch.ones(5, 1)), r"bias has shape \(5, 1\).*\(5,\)"),
        ((X, ONE, ONE.to("meta")), r"bias is on meta and x on cpu.*move"),
    ],
)
def test_refusals_name_value_rule_and_remedy(arguments, words):
    with pytest.raises(ValueError, match=words):
        instance_norm_leaky_relu(*arguments)
