"""The CUDA backend against a float64 oracle, and what else it promises. Needs an NVIDIA GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnunetv2_slicemamba.ops.cuda import cubins
from nnunetv2_slicemamba.ops.cuda_scan import scan, unavailable_reason
from tests.gpu.scan_cases import call, make_inputs, oracle, relative_error, run, upcast

REASON = unavailable_reason(torch.device("cuda"), torch.float16)
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"the CUDA backend cannot run: {REASON}")
HALF, BFLOAT, SINGLE = torch.float16, torch.bfloat16, torch.float32
TOLERANCE = {SINGLE: 1e-4, HALF: 2e-2, BFLOAT: 2e-2}

# batch, sizes, thickness, E, N, rank of dt
SHAPES = {
    "2d": (2, (12, 20), (2, 4), 64, 16, None),
    "low rank": (2, (12, 20), (4, 2), 96, 16, 6),
    "odd sizes": (3, (7, 13), (2, 4), 40, 16, 3),
    "one channel": (2, (9, 5), (2, 2), 1, 16, None),
    "33 channels": (1, (11, 6), (4, 4), 33, 16, 2),
    "130 channels": (1, (8, 8), (2, 2), 130, 16, None),
    "one token": (2, (1, 1), (2, 2), 64, 16, 4),
    "one row": (1, (1, 77), (4, 2), 24, 16, None),
    "3d": (2, (5, 7, 6), (2, 4, 2), 72, 16, 5),
    "3d chunks": (1, (16, 18, 20), (2, 2, 4), 48, 16, 3),
    "1d": (1, (300,), (1,), 32, 16, None),
    "1 state": (2, (10, 12), (2, 2), 48, 1, 3),
    "4 states": (2, (10, 12), (2, 2), 48, 4, None),
    "5 states": (2, (10, 12), (2, 2), 48, 5, None),
    "8 states": (1, (40, 50), (2, 2), 64, 8, 4),
    "32 states": (1, (24, 50), (2, 4), 64, 32, 4),
    "chunks": (1, (61, 67), (4, 2), 72, 16, 6),
    "full grid": (32, (8, 9), (2, 2), 384, 16, 24),
    "100,000 tokens": (1, (250, 400), (4, 4), 8, 4, None),
}


def check(results, expected, dtype):
    errors = {name: relative_error(value, expected[name]) for name, value in results.items()}
    print({name: f"{error:.1e}" for name, error in errors.items()})
    assert results["out"].dtype == dtype
    assert max(errors.values()) < TOLERANCE[dtype], errors


@pytest.mark.parametrize("dtype", [SINGLE, HALF, BFLOAT], ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_output_and_every_gradient_agree_with_float64(name, dtype):
    batch, sizes, thickness, E, N, rank = SHAPES[name]
    inputs = make_inputs(batch, sizes, E, N, dtype, rank)
    dy = torch.randn_like(inputs["x"])
    check(run(scan, inputs, sizes, thickness, dy), run(oracle, upcast(inputs), sizes, thickness, dy), dtype)


@pytest.mark.parametrize("bias", [-12.0, 0.0, 14.0])
def test_float32_precision_holds_for_tiny_and_large_steps(bias):
    inputs = make_inputs(2, (20, 30), 32, 16, bias=bias)
    dy = torch.randn_like(inputs["x"])
    check(run(scan, inputs, (20, 30), (2, 4), dy), run(oracle, upcast(inputs), (20, 30), (2, 4), dy), SINGLE)


def test_views_of_one_projection_are_read_in_place():
    sizes, thickness, rank, N, E = (9, 14), (2, 4), 3, 16, 48
    inputs = make_inputs(2, sizes, E, N, HALF, rank)
    joined = torch.cat([inputs[name] for name in ("dt", "B", "C")], dim=-1)
    views = dict(zip(("dt", "B", "C"), joined.split([rank, N, N], dim=-1), strict=True))
    transposed = inputs["x"].detach().transpose(1, 2).contiguous().transpose(1, 2)
    dy = torch.randn_like(inputs["x"])
    expected = run(scan, inputs, sizes, thickness, dy)
    strided = {**inputs, **views, "x": transposed}
    assert not any(strided[name].is_contiguous() for name in ("x", "dt", "B", "C"))
    results = run(scan, strided, sizes, thickness, dy.transpose(1, 2).contiguous().transpose(1, 2))
    for name, value in results.items():
        assert torch.equal(value, expected[name]), name


def test_full_rank_views_with_unaligned_rows():
    sizes, thickness = (9, 14), (4, 2)
    inputs = make_inputs(2, sizes, 33, 7, HALF)
    inputs["dt"] = torch.randn(2, 126, 4, 50, device="cuda", dtype=HALF)[..., 3:36]
    inputs["x"] = torch.randn(2 * 126 * 33 + 1, device="cuda", dtype=HALF)[1:].view(2, 126, 33)
    dy = torch.randn_like(inputs["x"])
    check(run(scan, inputs, sizes, thickness, dy), run(oracle, upcast(inputs), sizes, thickness, dy), HALF)


@pytest.mark.parametrize("dtype", [HALF, BFLOAT], ids=str)
def test_missing_channels_of_the_last_block_never_show(dtype):
    # What stood in for them once depended on x's address, so many addresses are tried.
    sizes, E = (8, 8), 130
    inputs = make_inputs(1, sizes, E, 16, dtype)
    dy, room = torch.randn_like(inputs["x"]), torch.full((1 << 20,), float("nan"), device="cuda", dtype=dtype)
    first = run(scan, inputs, sizes, (2, 2), dy)
    for start in range(0, 64 * 1024, 1021):
        moved = room[start : start + inputs["x"].numel()].view_as(inputs["x"])
        with torch.no_grad():
            moved.copy_(inputs["x"])
        results = run(scan, {**inputs, "x": moved}, sizes, (2, 2), dy)
        assert all(torch.equal(results[name], value) for name, value in first.items()), start


def test_without_bias_and_with_mixed_types():
    sizes, thickness = (6, 10), (2, 2)
    inputs = make_inputs(2, sizes, 64, 16, SINGLE, 4)
    inputs["delta_bias"] = None
    for name in ("dt", "B", "C"):
        inputs[name] = inputs[name].detach().half()
    dy = torch.randn_like(inputs["x"])
    results = run(scan, inputs, sizes, thickness, dy)
    assert {name: results[name].dtype for name in ("x", "B", "dt_weight")} == {
        "x": SINGLE,
        "B": HALF,
        "dt_weight": SINGLE,
    }
    errors = {
        name: relative_error(results[name], value)
        for name, value in run(oracle, upcast(inputs), sizes, thickness, dy).items()
    }
    assert max(errors.values()) < 2e-3, errors


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize("dtype", [HALF, BFLOAT, SINGLE], ids=str)
def test_extreme_inputs_give_finite_outputs_and_gradients_wherever_float64_does(dtype, rank):
    sizes, thickness = (24, 40), (2, 4)
    inputs = make_inputs(2, sizes, 64, 16, dtype, rank, scale=1e3, bias=10.0)
    dy = torch.randn_like(inputs["x"])
    results = run(scan, inputs, sizes, thickness, dy)
    expected = run(oracle, upcast(inputs), sizes, thickness, dy)
    for name, value in results.items():
        assert torch.equal(value.isfinite(), expected[name].isfinite()), name
        if dtype != HALF:  # most of these values are beyond float16's range, where the kernels saturate
            assert relative_error(value, expected[name]) < TOLERANCE[dtype], name


def test_an_infinite_gradient_is_noticed():
    inputs = make_inputs(1, (8, 8), 64, 16, HALF)
    dy = torch.randn_like(inputs["x"])
    dy[0, 5, 7] = float("inf")
    assert not run(scan, inputs, (8, 8), (2, 2), dy)["D"].isfinite().all()


@pytest.mark.parametrize("shape", [(4, (24, 24), 192), (1, (64, 65), 40)])
def test_20_runs_are_bit_identical(shape):
    batch, sizes, E = shape
    inputs = make_inputs(batch, sizes, E, 16, HALF, 6)
    dy = torch.randn_like(inputs["x"])
    first = run(scan, inputs, sizes, (2, 4), dy)
    for _ in range(19):
        again = run(scan, inputs, sizes, (2, 4), dy)
        assert all(torch.equal(again[name], value) for name, value in first.items())


def test_inference_gives_the_same_output():
    inputs = make_inputs(2, (16, 16), 64, 16, HALF, 4)
    with_gradient = call(scan, inputs, (16, 16), (4, 4))
    with torch.inference_mode():
        assert torch.equal(call(scan, inputs, (16, 16), (4, 4)), with_gradient)


def test_autocast_changes_nothing():
    inputs = make_inputs(2, (10, 9), 64, 16, SINGLE, 4)
    dy = torch.randn_like(inputs["x"])
    expected = run(scan, inputs, (10, 9), (2, 2), dy)
    with torch.autocast("cuda", torch.float16):
        results = run(scan, inputs, (10, 9), (2, 2), dy)
    assert all(torch.equal(results[name], value) for name, value in expected.items())


def test_torch_compile_keeps_one_graph_forward_and_backward():
    sizes, thickness = (12, 10), (2, 4)
    inputs = make_inputs(2, sizes, 64, 16, HALF, 4)
    dy = torch.randn_like(inputs["x"])

    def block(*arguments):
        return scan(*arguments) * 2

    expected = run(block, inputs, sizes, thickness, dy)
    results = run(torch.compile(block, fullgraph=True), inputs, sizes, thickness, dy)
    for name, value in expected.items():
        assert relative_error(results[name], value) < 1e-3, name


def test_registered_operators_pass_opcheck():
    inputs = make_inputs(1, (6, 8), 32, 16, SINGLE, 4)
    tensors = list(inputs.values())
    torch.library.opcheck(torch.ops.slicemamba.scan_cuda.default, (*tensors, [6, 8], [2, 2], True))
    detached = [t.detach() for t in tensors]
    out, states = torch.ops.slicemamba.scan_cuda(*detached, [6, 8], [2, 2], True)
    arguments = (torch.randn_like(out), *detached, states, [6, 8], [2, 2])
    torch.library.opcheck(torch.ops.slicemamba.scan_cuda_backward.default, arguments)


def test_cuda_graph_replays_forward_and_backward():
    sizes, thickness = (32, 33), (4, 2)
    inputs = make_inputs(1, sizes, 64, 16, HALF, 4)
    dy = torch.randn_like(inputs["x"])
    leaves = {name: t.detach().requires_grad_() for name, t in inputs.items()}

    def step():
        for t in leaves.values():
            t.grad = None
        out = call(scan, leaves, sizes, thickness)
        out.backward(dy)
        return out

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    fresh = make_inputs(1, sizes, 64, 16, HALF, 4, seed=1)
    with torch.no_grad():
        for name, leaf in leaves.items():
            leaf.copy_(fresh[name])
    graph.replay()
    expected = run(scan, fresh, sizes, thickness, dy)
    assert torch.equal(out, expected["out"])
    assert all(torch.equal(leaf.grad, expected[name]) for name, leaf in leaves.items())


def test_a_side_stream_is_used():
    inputs = make_inputs(1, (16, 16), 64, 16, HALF)
    expected = call(scan, inputs, (16, 16), (2, 2))
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        late = inputs["x"] * 1  # on the side stream, so the scan must follow there
        out = call(scan, {**inputs, "x": late}, (16, 16), (2, 2))
        torch.cuda.current_stream().synchronize()
    assert torch.equal(out, expected)


def test_too_many_states_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match="SLICEMAMBA_BACKEND"):
        call(scan, make_inputs(1, (4, 4), 8, 33), (4, 4), (2, 2))


def test_small_stages_as_on_gpus_with_little_shared_memory(monkeypatch):
    from nnunetv2_slicemamba.ops.cuda import scan_plan

    monkeypatch.setattr(cubins, "LARGE_SHARED_BYTES", 1 << 40)
    scan_plan.make_plan.cache_clear()
    try:
        inputs = make_inputs(2, (13, 40), 72, 16, HALF, 4)
        dy = torch.randn_like(inputs["x"])
        expected = run(oracle, upcast(inputs), (13, 40), (2, 4), dy)
        check(run(scan, inputs, (13, 40), (2, 4), dy), expected, HALF)
    finally:
        scan_plan.make_plan.cache_clear()


def test_a_damaged_cache_file_is_compiled_again(tmp_path):
    script = Path(__file__).with_name("sanitize_scan.py")
    environment = {"SLICEMAMBA_CACHE": str(tmp_path), "PYTHONPATH": ":".join(p for p in sys.path if p)}
    command = [sys.executable, str(script), "1"]
    for _ in range(2):
        subprocess.run(command, check=True, env={**os.environ, **environment}, timeout=300)
        files = list(tmp_path.glob("*.cubin"))
        assert files
        assert all(len(file.read_bytes()) > 1000 for file in files)
        for file in files:
            file.write_bytes(b"damaged")


@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="compute-sanitizer is not installed")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool):
    script = Path(__file__).with_name("sanitize_scan.py")
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
