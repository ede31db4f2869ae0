"""The right answers: cases, inputs and the reference's output and gradients in float64 on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops import slice_scan


@dataclass(frozen=True)
class Case:
    """Shapes of one scan: tokens and thickness per axis, images, channels E, states N, rank R of dt (None: full)."""

    sizes: tuple[int, ...]
    thickness: tuple[int, ...]
    batch: int = 2
    channels: int = 6
    states: int = 4
    rank: int | None = None

    def __str__(self) -> str:
        sizes, thickness = ("x".join(map(str, axis)) for axis in (self.sizes, self.thickness))
        return f"{sizes}-by-{thickness}-B{self.batch}-E{self.channels}-N{self.states}-R{self.rank or 'full'}"


CASES = (
    Case((5, 7), (2, 4)),
    Case((5, 7), (2, 4), batch=1, channels=33, states=16, rank=3),
    Case((8, 12), (4, 2), rank=1),
    Case((8, 12), (4, 2), batch=1, channels=16, states=8),
    Case((1, 9), (3, 1), channels=17, states=1),
    Case((1, 9), (3, 1), channels=1, states=32, rank=2),
    Case((1, 1), (2, 2), batch=3, channels=5, states=3),
    Case((3, 5, 4), (2, 4, 2), channels=20, rank=2),
    Case((3, 5, 4), (2, 4, 2), batch=1, states=16),
    Case((6, 7, 9), (2, 2, 4), batch=1, channels=7, states=4, rank=3),
    Case((17, 23), (4, 4), batch=3, channels=100, states=16),
    Case((17, 23), (4, 2), batch=3, channels=40, states=8, rank=5),
)
SMALL = Case((5, 7), (2, 4), channels=18, states=4, rank=3)

Inputs = dict[str, Tensor]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 5e-6}
HALF_TYPES = (torch.float16, torch.bfloat16)


def make_inputs(case: Case, seed: int = 0) -> Inputs:
    """Arguments of `slice_scan` in float64, by name; initialised as in the network, with some spread."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    batch, length, channels, states = case.batch, prod(case.sizes), case.channels, case.states
    K = 2 * len(case.sizes)
    inputs = {
        "x": normal(batch, length, channels),
        "dt": normal(batch, length, K, case.rank or channels),
        "B": normal(batch, length, K, states),
        "C": normal(batch, length, K, states),
        "A": -torch.exp(0.5 * normal(K, channels, states)) * torch.arange(1, states + 1),
        "D": normal(K, channels),
        "delta_bias": normal(K, channels) - 2,
    }
    if case.rank is not None:
        inputs["dt_weight"] = normal(K, channels, case.rank)
    return inputs


def upstream(case: Case, seed: int = 1) -> Tensor:
    """A gradient of the output, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(case.batch, prod(case.sizes), case.channels, generator=generator, dtype=torch.float64)


def converted(inputs: Inputs, dtype: torch.dtype, device: str = "cpu") -> Inputs:
    """Leaves that require gradients."""
    return {name: tensor.detach().to(device, dtype).requires_grad_() for name, tensor in inputs.items()}


def with_gradients(inputs: Inputs, grad: Tensor, case: Case, backend: str) -> dict[str, Tensor]:
    """The output under "out" and every gradient under its input's name."""
    out = slice_scan(**inputs, sizes=case.sizes, thickness=case.thickness, backend=backend)
    gradients = torch.autograd.grad(out, list(inputs.values()), grad.to(out))
    return {"out": out.detach(), **dict(zip(inputs, gradients, strict=True))}


@lru_cache(maxsize=64)
def expected(case: Case, rounded_to: torch.dtype) -> dict[str, Tensor]:
    """The reference's output and gradients in float64 for inputs that `rounded_to` represents."""
    inputs = converted({name: t.to(rounded_to) for name, t in make_inputs(case).items()}, torch.float64)
    return with_gradients(inputs, upstream(case).to(rounded_to), case, "reference")


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted, or the former where the latter is 0."""
    assert got.shape == wanted.shape
    difference, norm = (got.cpu().double() - wanted).norm().item(), wanted.norm().item()
    return difference / norm if norm > 0 else difference


def assert_close(got: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    errors = {name: relative_error(tensor, wanted[name]) for name, tensor in got.items()}
    assert all(error <= tolerance for error in errors.values()), errors  # also fails for NaN


def spread_out(tensor: Tensor) -> Tensor:
    """Copy of the numbers in a tensor that is contiguous in no dimension, without a view of an expanded one."""
    reversed_axes = tensor.permute(*reversed(range(tensor.dim())))
    wide = reversed_axes.new_zeros(*reversed_axes.shape[:-1], 2 * reversed_axes.shape[-1])
    wide[..., ::2] = reversed_axes
    return wide[..., ::2].permute(*reversed(range(tensor.dim())))
