"""The fused BSS block without a GPU: its kernels emulated on the CPU, against the composite block in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nnunetv2_slicemamba.ops import cuda_scan
from nnunetv2_slicemamba.ops.backends import BACKENDS
from nnunetv2_slicemamba.ops.bss_parameters import BssParameters
from nnunetv2_slicemamba.ops.cuda import bss as block
from nnunetv2_slicemamba.ops.cuda import bss_kernels, bss_operator, low_rank
from tests.ops.emulation import emulator
from tests.ops.emulation.comparing import BFLOAT, HALF, SINGLE, TOLERANCE, check
from tests.ops.emulation.emulated_bss import emulate, expected, fused, make_block

pytestmark = pytest.mark.skipif(emulator.compiler() is None, reason="no C++ compiler (g++ or clang++) is installed")


@pytest.fixture(autouse=True)
def _emulated(monkeypatch):
    emulate(monkeypatch)


# batch, sizes, thickness, C, N, expand, compute type
BLOCKS = {
    "2d": (2, (5, 6), (2, 4), 8, 4, 2, SINGLE),
    "odd sizes, odd channels": (3, (7, 3), (4, 2), 5, 3, 1, SINGLE),
    "one token": (1, (1, 1), (2, 2), 20, 4, 2, SINGLE),
    "3d": (1, (3, 2, 5), (2, 4, 2), 6, 2, 2, SINGLE),
    "float16": (2, (6, 5), (2, 4), 24, 4, 2, HALF),
    "float16, odd channels": (1, (5, 4), (2, 2), 9, 2, 1, HALF),
    "bfloat16 in 3d": (2, (2, 3, 4), (2, 2, 2), 16, 4, 2, BFLOAT),
}


def inputs_of(name):
    batch, sizes, thickness, dim, N, expand, dtype = BLOCKS[name]
    bss = make_block(dim, thickness, N, expand)
    x = torch.randn(batch, *sizes, dim).to(dtype).float()
    return bss, x, torch.randn(batch, *sizes, dim).to(dtype).float(), dtype


@pytest.mark.parametrize("name", BLOCKS)
def test_output_and_every_gradient_equal_the_composite_block_in_float64(name):
    bss, x, dout, dtype = inputs_of(name)
    got = fused(bss_operator.apply, bss, x, dout, dtype)
    assert got["out"].dtype == dtype
    assert all(value.dtype == torch.float32 for key, value in got.items() if key != "out")
    check(got, expected(bss, x, dout), TOLERANCE[dtype])


def test_long_sums_are_cut_into_pieces(monkeypatch):
    monkeypatch.setattr(low_rank, "FEWEST_TOKENS", 8)
    monkeypatch.setattr(low_rank, "PIECE_TOKENS", 10)
    for name in ("2d", "float16"):
        bss, x, dout, dtype = inputs_of(name)
        check(fused(bss_operator.apply, bss, x, dout, dtype), expected(bss, x, dout), TOLERANCE[dtype])


def test_half_and_non_contiguous_inputs():
    bss, x, dout, _ = inputs_of("float16")
    wanted = expected(bss, x, dout)
    plain = fused(bss_operator.apply, bss, x, dout, HALF)
    strided = fused(bss_operator.apply, bss, x.transpose(1, 2).contiguous().transpose(1, 2), dout, HALF)
    half = fused(bss_operator.apply, bss, x.half(), dout, HALF)
    assert half["x"].dtype == HALF
    assert all(torch.equal(strided[name], value) for name, value in plain.items())
    assert all(torch.equal(half[name].float(), value.float()) for name, value in plain.items() if name != "x")
    check(half, wanted, TOLERANCE[HALF])


def test_a_block_that_computes_in_bfloat16_takes_float16():
    bss, x, dout, _ = inputs_of("bfloat16 in 3d")
    x = x.half().float()
    got = fused(bss_operator.apply, bss, x.half(), dout, BFLOAT)
    assert (got["x"].dtype, got["out"].dtype) == (HALF, BFLOAT)
    check(got, expected(bss, x, dout), TOLERANCE[BFLOAT])


@pytest.fixture
def whole_blocks(monkeypatch):
    """A backend of the CPU has kernels for whole blocks: the emulated ones."""
    monkeypatch.setitem(BACKENDS, "numba", dataclasses.replace(BACKENDS["numba"], bss=cuda_scan.bss))
    monkeypatch.setenv("SLICEMAMBA_BACKEND", "numba")
    monkeypatch.delenv("SLICEMAMBA_FUSED", raising=False)


@pytest.mark.parametrize("given", [SINGLE, HALF, BFLOAT], ids=str)
def test_under_float16_autocast_the_module_computes_in_bfloat16(given, whole_blocks):
    bss, x, *_ = inputs_of("float16")
    without = bss.fused(x.to(given))
    with torch.autocast("cpu", HALF):
        assert (without.dtype, bss.fused(x.to(given)).dtype) == (given, BFLOAT)
        assert bss.fused(x.double()) is None


def test_the_module_runs_by_the_chosen_backends_whole_blocks_on_any_device(whole_blocks, monkeypatch):
    bss, x, dout, dtype = inputs_of("2d")
    wanted = fused(bss_operator.apply, bss, x, dout, dtype)
    assert torch.equal(bss(x), wanted["out"])
    compiled = torch.compile(bss, fullgraph=True, backend="aot_eager")
    got = fused(lambda x, *_: compiled(x), bss, x, dout, dtype)
    assert all(torch.equal(got[name], value) for name, value in wanted.items())
    monkeypatch.setenv("SLICEMAMBA_FUSED", "0")
    assert bss.fused(x) is None
    assert torch.equal(bss(x), bss.composed(x))
    assert not torch.equal(bss(x), wanted["out"])


def test_a_block_whose_norm_has_another_eps_is_composed(whole_blocks):
    bss, x, *_ = inputs_of("2d")
    assert bss.fused(x) is not None
    bss.out_norm.eps = 0.5
    assert bss.fused(x) is None


def test_an_exported_block_is_composed_whatever_the_backend_has(whole_blocks):
    bss, x, *_ = inputs_of("2d")
    program = torch.export.export(bss, (x,))
    assert not any("slicemamba" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x), bss.composed(x))


def test_the_registered_operator_gives_the_same_bits():
    bss, x, dout, dtype = inputs_of("float16")

    def operator(x, parameters, thickness, dtype):
        return torch.ops.slicemamba.bss(x, *parameters, thickness, dtype, True)[0]

    wanted = fused(bss_operator.apply, bss, x, dout, dtype)
    got = fused(operator, bss, x, dout, dtype)
    assert all(torch.equal(got[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("dtype", [SINGLE, HALF], ids=str)
def test_fake_results_have_the_shapes_and_types_of_the_real_ones(dtype):
    from torch._subclasses.fake_tensor import FakeTensorMode

    bss, x, dout, _ = inputs_of("2d")
    tensors = [t.detach() for t in (x, *bss.block_parameters())]
    real = torch.ops.slicemamba.bss(*tensors, bss.thickness, dtype, True)
    read = [w if dtype == SINGLE else c for w, c in zip(bss.block_parameters().products, real[-4:], strict=True)]
    saved = [real[1].new_empty(0), *real[2:7], *(t.detach() for t in read)]
    source = x if dtype == SINGLE else real[1]
    arguments = [dout.to(dtype), source, SINGLE, *tensors[1:], *saved, bss.thickness]
    real_gradients = torch.ops.slicemamba.bss_backward(*arguments)
    with FakeTensorMode() as mode:
        faked = [mode.from_tensor(t) for t in tensors]
        fake = torch.ops.slicemamba.bss(*faked, bss.thickness, dtype, True)
        arguments = [mode.from_tensor(t) if isinstance(t, torch.Tensor) else t for t in arguments]
        fake_gradients = torch.ops.slicemamba.bss_backward(*arguments)
    for got, wanted in zip((*fake, *fake_gradients), (*real, *real_gradients), strict=True):
        assert (got.shape, got.dtype, got.stride()) == (wanted.shape, wanted.dtype, wanted.stride())


def test_inference_and_frozen_parameters():
    bss, x, dout, dtype = inputs_of("float16")
    wanted = fused(bss_operator.apply, bss, x, dout, dtype)
    with torch.inference_mode():
        assert torch.equal(bss_operator.apply(x, bss.block_parameters(), bss.thickness, dtype), wanted["out"])
    bss.requires_grad_(False)
    bss.A_logs.requires_grad_()
    got = fused(bss_operator.apply, bss, x, dout, dtype)
    assert got.keys() == {"out", "x", "A_logs"}
    assert torch.equal(got["A_logs"], wanted["A_logs"])


def test_an_infinite_gradient_reaches_every_float32_parameter_it_concerns():
    bss, x, dout, dtype = inputs_of("float16")
    dout[0, 2, 3, 4] = float("inf")
    got = fused(bss_operator.apply, bss, x, dout, dtype)
    for name in ("out_norm.weight", "out_norm.bias", "out_proj.weight", "conv.weight", "in_proj.weight"):
        assert not got[name].isfinite().all(), name


def test_launches_are_as_few_as_documented(monkeypatch):
    names = []

    def launch(device, part, variant, name, blocks, arguments):
        names.append(name)
        emulator.launch(device, part, variant, name, blocks, arguments)

    monkeypatch.setattr(bss_kernels, "launch", launch)
    fused(bss_operator.apply, *inputs_of("float16")[:3], HALF)
    backward = ["norm_backward_2", "conv_forward", "conv_grad_output", "conv_grad_input", "copy_segments"]
    assert names == ["copy_segments", "conv_forward", "norm_forward_2", *backward]


def test_too_large_blocks_stay_composite():
    assert block.fits(torch.empty(2, 8, 8, 48), 96)
    assert not block.fits(torch.empty(2, 8, 8, 48), bss_kernels.MAX_CHANNELS + 1)
    assert not block.fits(torch.empty(0, 8, 8, 48), 96)


def test_torch_compile_keeps_the_block_in_one_graph():
    bss, x, dout, dtype = inputs_of("float16")

    def double(x, *parameters):
        out = bss_operator.apply(x, BssParameters(*parameters), bss.thickness, dtype)
        return out * 2

    def compiled(x, parameters, thickness, dtype):
        return torch.compile(double, fullgraph=True, backend="aot_eager")(x, *parameters)

    wanted = fused(lambda x, p, thickness, dtype: double(x, *p), bss, x, dout, dtype)
    got = fused(compiled, bss, x, dout, dtype)
    assert all(torch.equal(got[name], value) for name, value in wanted.items())
