"""The block without scans by the CUDA kernels, emulated on the CPU, against the composite block in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nnunetv2_slicemamba.ops import cuda_scan
from nnunetv2_slicemamba.ops.backends import BACKENDS
from nnunetv2_slicemamba.ops.cuda import bss_kernels
from tests.ops.emulation import emulator
from tests.ops.emulation.comparing import BFLOAT, HALF, SINGLE, TOLERANCE, check
from tests.ops.emulation.emulated_bss import emulate, expected, fused, make_block

pytestmark = pytest.mark.skipif(emulator.compiler() is None, reason="no C++ compiler (g++ or clang++) is installed")

# batch, sizes, C, expand, compute type
BLOCKS = {
    "2d": (2, (5, 6), 8, 2, SINGLE),
    "odd, 3d": (1, (3, 2, 5), 5, 1, SINGLE),
    "float16": (2, (6, 5), 24, 2, HALF),
    "bfloat16 in 3d": (2, (2, 3, 4), 16, 2, BFLOAT),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_output_and_gradients_equal_the_composite_block_without_scans(name, monkeypatch):
    emulate(monkeypatch)
    batch, sizes, dim, expand, dtype = BLOCKS[name]
    bss = make_block(dim, (), 4, expand, n_dims=len(sizes))
    x, dout = (torch.randn(batch, *sizes, dim).to(dtype).float() for _ in range(2))
    got = fused(cuda_scan.bss, bss, x, dout, dtype)
    assert got["out"].dtype == dtype
    check(got, expected(bss, x, dout), TOLERANCE[dtype])


def test_the_module_runs_without_any_kernel_of_the_scan(monkeypatch):
    emulate(monkeypatch)
    monkeypatch.setitem(BACKENDS, "numba", dataclasses.replace(BACKENDS["numba"], bss=cuda_scan.bss))
    monkeypatch.setenv("SLICEMAMBA_BACKEND", "numba")
    names = []

    def launch(device, part, variant, name, blocks, arguments):
        names.append(name)
        emulator.launch(device, part, variant, name, blocks, arguments)

    monkeypatch.setattr(bss_kernels, "launch", launch)
    monkeypatch.setattr("nnunetv2_slicemamba.ops.cuda.bss.scan_kernels", None)
    bss = make_block(8, (), 4, 2, n_dims=2)
    x = torch.randn(2, 5, 6, 8, requires_grad=True)
    bss(x).sum().backward()
    backward = ["conv_forward", "norm_backward_1", "conv_grad_output", "conv_grad_input"]
    assert [name.replace("_2", "_1") for name in names] == ["conv_forward", "norm_forward_1", *backward]
    torch.testing.assert_close(bss(x), bss.composed(x), rtol=1e-4, atol=1e-5)
