"""Self-check of a scan backend and of a whole block on this machine: small ones against float64."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from nnunetv2_slicemamba.nets.s3block import S3Block
from nnunetv2_slicemamba.ops import slice_scan

# a right float32 implementation stays below 1e-5; leave room for other orders of summation
TOLERANCE = 1e-4
BLOCK_TOLERANCE = 1e-3  # several products and sums follow each other


def scan_errors(backend: str, device: torch.device) -> dict[str, float]:
    """Relative error (norm of the difference over the norm) of the output and of every gradient, by name.

    The larger of a 2D and a 3D float32 scan with `backend` on `device`, against the reference in float64 on the CPU.
    """
    errors: dict[str, float] = {}
    for sizes, thickness in (((5, 7), (2, 4)), ((3, 4, 5), (2, 4, 2))):
        inputs = scan_inputs(sizes)
        expected = scan_and_gradients(inputs, sizes, thickness, "reference", torch.device("cpu"), torch.float64)
        found = scan_and_gradients(inputs, sizes, thickness, backend, device, torch.float32)
        _keep_larger(errors, found, expected)
    return errors


def _keep_larger(errors: dict[str, float], found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        error = float((found[name] - value).norm() / value.norm())
        # not max(): it would drop a NaN
        errors[name] = error if not error <= errors.get(name, 0.0) else errors.get(name, 0.0)


def block_errors(device: torch.device) -> dict[str, float]:
    """Relative error of the output and of every gradient of an S3 block as networks on `device` run it, by name.

    The larger of a 2D and a 3D one in float32, against PyTorch's operators in float64 on the CPU.
    """
    errors: dict[str, float] = {}
    for sizes, thickness in (((5, 7), (2, 4)), ((3, 4, 5), (2, 4, 2))):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            block, x = S3Block(24, len(sizes), thickness), torch.randn(2, *sizes, 24)
        expected = block_and_gradients(block, x, torch.device("cpu"), torch.float64)
        found = block_and_gradients(block, x, device, torch.float32)
        _keep_larger(errors, found, expected)
    return errors


def block_and_gradients(block: S3Block, x: Tensor, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Output of a copy of `block` in `dtype` on `device` and its gradients for x and every weight; float64, CPU."""
    block = copy.deepcopy(block).to(device, dtype)
    leaf = x.to(device, dtype).requires_grad_()
    output = block(leaf)
    upstream = torch.linspace(-1, 1, output.numel()).view(output.shape)
    (output * upstream.to(output)).sum().backward()
    gradients = {name: p.grad for name, p in block.named_parameters() if p.grad is not None}
    values = {"output": output, "x": leaf.grad, **gradients}
    return {name: value.detach().double().cpu() for name, value in values.items() if value is not None}


def scan_inputs(sizes: tuple[int, ...]) -> dict[str, Tensor]:
    """Arguments of slice_scan by name, with low-rank dt: batch 2, E 8, N 4, R 2, always the same."""
    generator = torch.Generator().manual_seed(0)
    batch, length, inner, states, rank, directions = 2, math.prod(sizes), 8, 4, 2, 2 * len(sizes)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "x": normal(batch, length, inner),
        "dt": normal(batch, length, directions, rank),
        "B": normal(batch, length, directions, states),
        "C": normal(batch, length, directions, states),
        "A": -normal(directions, inner, states).exp(),
        "D": normal(directions, inner),
        "delta_bias": normal(directions, inner) - 2,
        "dt_weight": normal(directions, inner, rank),
    }


def scan_and_gradients(
    inputs: dict[str, Tensor],
    sizes: tuple[int, ...],
    thickness: tuple[int, ...],
    backend: str,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """The scan's output and its gradients for every input, computed in `dtype` on `device`; float64 on the CPU."""
    leaves = {name: value.to(device, dtype).requires_grad_() for name, value in inputs.items()}
    output = slice_scan(**leaves, sizes=sizes, thickness=thickness, backend=backend, axis=None)
    upstream = torch.linspace(-1, 1, output.numel()).view(output.shape)
    (output * upstream.to(output)).sum().backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return {name: value.detach().double().cpu() for name, value in {"output": output, **gradients}.items()}
