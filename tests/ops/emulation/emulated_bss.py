"""The fused block on the CPU: emulated kernels, PyTorch's products and a float64 scan in the place of the GPU's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from nnunetv2_slicemamba.nets import BSS
from nnunetv2_slicemamba.ops import slice_scan
from nnunetv2_slicemamba.ops.cuda import bss as block
from nnunetv2_slicemamba.ops.cuda import bss_kernels
from tests.ops.emulation import emulator


def _scan(inputs: list[Tensor], sizes: tuple[int, ...], thickness: tuple[int, ...]) -> Tensor:
    x, dt, B, C, A, D, bias = inputs
    return slice_scan(x, dt, B, C, A, D, sizes, thickness, delta_bias=bias, backend="torch")


def _rounded(t: Tensor, dtype: torch.dtype) -> Tensor:
    return (t.clamp(-65504, 65504) if dtype == torch.float16 else t).to(dtype)


def _forward(
    x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A: Tensor, D: Tensor, bias: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    sizes, thickness, save = rest
    full = torch.einsum("blkr,ker->blke", dt.double(), weight.double())
    y = _scan([t.double() for t in (x, full, B, C, A, D, bias)], sizes, thickness)
    return _rounded(y, x.dtype), x.new_empty(3 if save else 0)


def _backward_into(ddt: Tensor, dB: Tensor, dC: Tensor, dy: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *tensors, _, sizes, thickness = rest
    inputs = [t.detach().double().requires_grad_() for t in tensors]
    with torch.enable_grad():
        y = _scan(inputs, sizes, thickness)
    dx, *into, dA, dD, dbias = torch.autograd.grad(y, inputs, dy.double())
    for target, value in zip((ddt, dB, dC), into, strict=True):
        target.copy_(_rounded(value, target.dtype))
    dx, dA, dD, dbias = (t.contiguous() for t in (dx, dA, dD, dbias))
    return _rounded(dx, dy.dtype), dA.float(), dD.float(), dbias.float()


def _empty_states(x: Tensor, A: Tensor, save: bool) -> Tensor:
    return x.new_empty(3 if save else 0)


def emulate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the fused block run on the CPU from here on."""
    scan = SimpleNamespace(forward=_forward, backward_into=_backward_into, empty_states=_empty_states)
    monkeypatch.setattr(block, "scan_kernels", scan)
    monkeypatch.setattr(bss_kernels, "launch", emulator.launch)
    monkeypatch.setattr(bss_kernels, "multiprocessors", lambda device: emulator.PROCESSORS)


def make_block(
    dim: int, thickness: tuple[int, ...], d_state: int, expand: int, seed: int = 0, n_dims: int | None = None
) -> BSS:
    """A BSS whose every parameter matters: none at the value that it is initialised with.

    thickness: () for no scans, of a block of n_dims axes.
    """
    torch.manual_seed(seed)
    bss = BSS(dim, n_dims or len(thickness), thickness, d_state, expand)
    with torch.no_grad():
        for parameter in bss.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return bss


def expected(bss: BSS, x: Tensor, dout: Tensor) -> dict[str, Tensor]:
    """Output and every gradient of the composite path in float64."""
    reference = BSS(bss.dim, bss.n_dims, bss.thickness, bss.d_state, bss.inner // bss.dim).double()
    reference.load_state_dict(bss.state_dict())
    x = x.detach().double().requires_grad_()
    out = reference(x)
    out.backward(dout.double())
    return {"out": out.detach(), **_gradients(reference, x)}


def _gradients(bss: BSS, x: Tensor) -> dict[str, Tensor]:
    named = {name: p.grad for name, p in bss.named_parameters()}
    return {name: t for name, t in {"x": x.grad, **named}.items() if t is not None}


def fused(apply: Any, bss: BSS, x: Tensor, dout: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Output and every gradient of `apply`, as bss_operator.apply, for compute type `dtype`."""
    bss.zero_grad(set_to_none=True)
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = apply(x, bss.block_parameters(), bss.thickness, dtype)
    out.backward(dout.to(dtype))
    return {"out": out.detach(), **_gradients(bss, x)}
