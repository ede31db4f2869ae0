"""Half precision where a scan's result is beyond float16: its largest number is 65504, a trained scan reaches 1e7."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from nnunetv2_slicemamba.nets import BSS
from nnunetv2_slicemamba.nets.s3block import S3Block
from nnunetv2_slicemamba.nets.token_norm import TokenNorm
from nnunetv2_slicemamba.ops.dtypes import block_dtype

SIZES = {2: (6, 8), 3: (3, 4, 5)}


def gradients(module: BSS, x: Tensor, dout: Tensor) -> dict[str, Tensor]:
    x = x.detach().clone().requires_grad_()
    out = module(x)
    out.backward(dout.to(out.dtype))
    assert x.grad is not None
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {"out": out.detach(), "x": x.grad, **found}


@pytest.mark.parametrize("n_dims", SIZES)
def test_a_scan_beyond_float16_is_computed_under_its_autocast(n_dims: int) -> None:
    torch.manual_seed(0)
    module = BSS(16, n_dims, (2,) * n_dims)
    with torch.no_grad():
        module.in_proj.weight *= 50
        module.x_proj_weight *= 30
    x, dout = torch.randn(2, 2, *SIZES[n_dims], 16)
    largest: list[float] = []
    reference = copy.deepcopy(module).double()
    reference.out_norm.register_forward_hook(lambda _, inputs, __: largest.append(inputs[0].abs().max().item()))
    wanted = gradients(reference, x.double(), dout.double())
    assert largest[0] > 2 * torch.finfo(torch.float16).max
    with torch.autocast("cpu", torch.float16):
        got = gradients(module, x, dout)
    assert got.keys() == wanted.keys()
    assert got["out"].dtype == torch.float16
    for name, value in wanted.items():
        error = (got[name].double() - value).norm() / value.norm()
        assert error < 0.05, (name, error)


def test_a_module_converted_to_half_precision_returns_it() -> None:
    module = BSS(8, 2, (2, 2)).half()
    assert module(torch.randn(1, 4, 4, 8).half()).dtype == torch.float16


@pytest.mark.parametrize(
    ("kind", "half", "given", "result"),
    [
        ("block", torch.float16, torch.float32, torch.bfloat16),
        ("block", torch.float16, torch.bfloat16, torch.bfloat16),
        ("block", torch.float16, torch.float16, torch.float32),
        ("block", torch.bfloat16, torch.float32, torch.bfloat16),
        ("block", None, torch.float32, torch.float32),
        ("rounded", torch.float16, torch.float32, torch.float16),
        ("plain", torch.float16, torch.float16, torch.float32),
    ],
)
def test_the_norm_before_a_block_gives_what_the_block_computes_in(
    kind: str, half: torch.dtype | None, given: torch.dtype, result: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: half is not None)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: half)
    norm = S3Block(8).norm if kind == "block" else TokenNorm(8, rounded=kind == "rounded")
    assert norm.result_dtype(given, torch.device("cuda")) == result


def test_only_float16_is_replaced() -> None:
    kept = (torch.float32, torch.float64, torch.bfloat16)
    assert [block_dtype(dtype) for dtype in kept] == list(kept)
    assert block_dtype(torch.float16) == torch.bfloat16
