"""The fused BSS block against the composite one in float64, and what else it promises. Needs an NVIDIA GPU."""

from __future__ import annotations

import pytest
import torch

from nnunetv2_slicemamba.nets import BSS, S3Block
from nnunetv2_slicemamba.ops.backends import FUSED_VARIABLE
from nnunetv2_slicemamba.ops.bss_parameters import BssParameters
from nnunetv2_slicemamba.ops.cuda import bss
from nnunetv2_slicemamba.ops.cuda_scan import unavailable_reason
from tests.gpu.scan_cases import oracle, relative_error

REASON = unavailable_reason(torch.device("cuda"), torch.float16)
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"the CUDA backend cannot run: {REASON}")
HALF, BFLOAT, SINGLE = torch.float16, torch.bfloat16, torch.float32
# relative to the norm of what is expected and to its largest value; several roundings follow each other
TOLERANCE = {SINGLE: 2e-4, HALF: 6e-2, BFLOAT: 6e-2}
COMPUTED = {SINGLE: SINGLE, HALF: BFLOAT, BFLOAT: BFLOAT}  # by autocast's type, see ops.dtypes.block_dtype

# batch, sizes, thickness, C, N, expand
SHAPES = {
    "2d": (2, (12, 20), (2, 4), 32, 16, 2),
    "odd sizes": (3, (7, 13), (2, 4), 24, 16, 2),
    "odd channels": (2, (9, 5), (2, 2), 13, 5, 1),
    "one token": (2, (1, 1), (2, 2), 32, 16, 2),
    "one row": (1, (1, 77), (4, 2), 16, 16, 2),
    "odd rank": (2, (8, 9), (2, 2), 48, 16, 2),
    "3d": (2, (5, 7, 6), (2, 4, 2), 24, 16, 2),
    "3d chunks": (1, (16, 18, 20), (2, 2, 4), 24, 16, 2),
    "many tokens": (8, (40, 41), (4, 2), 48, 16, 2),
    "wide": (4, (8, 8), (2, 4), 768, 16, 2),
}


@pytest.fixture(autouse=True)
def _fused(monkeypatch):
    monkeypatch.setenv(FUSED_VARIABLE, "1")
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def make(name):
    batch, sizes, thickness, dim, N, expand = SHAPES[name]
    torch.manual_seed(0)
    module = BSS(dim, len(sizes), thickness, N, expand)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return module.cuda(), torch.randn(batch, *sizes, dim, device="cuda"), torch.randn(batch, *sizes, dim, device="cuda")


def run(module, x, dout, dtype=SINGLE):
    """Output and every gradient by name."""
    module.zero_grad(set_to_none=True)
    x = x.detach().clone().requires_grad_()
    with torch.autocast("cuda", dtype, enabled=dtype in (HALF, BFLOAT)):
        out = module(x)
    out.backward(dout.to(out.dtype))
    return {"out": out.detach(), "x": x.grad, **{name: p.grad for name, p in module.named_parameters()}}


def expected(module, x, dout):
    """The composite block in float64, its scan by doublings."""
    reference = BSS(module.dim, module.n_dims, module.thickness, module.d_state, module.inner // module.dim)
    reference = reference.cuda().double()
    reference.load_state_dict(module.state_dict())
    reference.scan = lambda tokens, sizes: _scan(reference, tokens, sizes)
    return run(reference, x.double(), dout.double(), torch.float64)


def _scan(module, tokens, sizes):
    K, E, N = module.directions, module.inner, module.d_state
    rows = torch.nn.functional.linear(tokens, module.x_proj_weight.flatten(0, 1)).unflatten(-1, (K, -1))
    dt, B, C = rows.split([module.rank, N, N], dim=-1)
    A, D = -module.A_logs.exp().view(K, E, N), module.Ds.view(K, E)
    return oracle(tokens, dt, B, C, A, D, sizes, module.thickness, module.dt_projs_bias, module.dt_projs_weight)


@pytest.fixture
def calls(monkeypatch):
    """Counts fused forward passes, so that no test passes because the composite path ran."""
    done = []
    original = bss.forward

    def forward(*arguments):
        done.append(arguments[3])
        return original(*arguments)

    monkeypatch.setattr(bss, "forward", forward)
    return done


@pytest.mark.parametrize("dtype", [SINGLE, HALF, BFLOAT], ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_output_and_every_gradient_agree_with_float64(name, dtype, calls):
    module, x, dout = make(name)
    results, wanted = run(module, x, dout, dtype), expected(module, x, dout)
    assert calls == [COMPUTED[dtype]]
    assert results["out"].dtype == COMPUTED[dtype]
    assert all(value.dtype == SINGLE for key, value in results.items() if key != "out")
    none = [key for key, value in wanted.items() if value is None]  # a single token's state has no past
    assert all(not results.pop(key).any() for key in none)
    errors = {key: relative_error(value, wanted[key]) for key, value in results.items() if wanted[key].abs().max() > 0}
    print({key: f"{error:.1e}" for key, error in errors.items()})
    assert max(errors.values()) < TOLERANCE[dtype], errors


@pytest.mark.parametrize("dtype", [SINGLE, BFLOAT], ids=str)
def test_it_is_no_less_accurate_than_the_composite_block(dtype, monkeypatch):
    module, x, dout = make("many tokens")
    wanted, fused = expected(module, x, dout), run(module, x, dout, dtype)
    monkeypatch.setenv(FUSED_VARIABLE, "0")
    composite = run(module, x, dout, dtype)
    for name, value in fused.items():
        error, other = relative_error(value, wanted[name]), relative_error(composite[name], wanted[name])
        print(f"{name}: fused {error:.1e}, composite {other:.1e}")
        assert error < 2 * other + 1e-5, name


@pytest.mark.parametrize("fused", ["1", "0"], ids=["fused", "composite"])
def test_scans_beyond_float16_are_computed_under_its_autocast(fused, monkeypatch):
    monkeypatch.setenv(FUSED_VARIABLE, fused)
    module, x, dout = make("2d")
    with torch.no_grad():
        module.in_proj.weight *= 10
        module.x_proj_weight *= 30
    seen = []
    module.out_norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].abs().max()))
    wanted = expected(module, x, dout)
    monkeypatch.setenv(FUSED_VARIABLE, "0")
    run(module, x, dout)
    assert seen[0] > 1e5
    monkeypatch.setenv(FUSED_VARIABLE, fused)
    results = run(module, x, dout, HALF)
    errors = {key: relative_error(value, wanted[key]) for key, value in results.items()}
    assert max(errors.values()) < 0.1, errors


@pytest.mark.parametrize("name", ["2d", "many tokens", "3d chunks", "wide"])
def test_20_runs_are_bit_identical(name, calls):
    module, x, dout = make(name)
    first = run(module, x, dout, HALF)
    for _ in range(19):
        assert all(torch.equal(value, first[key]) for key, value in run(module, x, dout, HALF).items())
    assert len(calls) == 20


def test_inference_gives_the_same_output_and_follows_every_change_of_a_weight(calls):
    module, x, dout = make("2d")
    wanted = run(module, x, dout, HALF)["out"]
    with torch.inference_mode(), torch.autocast("cuda", HALF):
        assert torch.equal(module(x), wanted)
        module.out_proj.weight.data.mul_(2)
        assert not torch.equal(module(x), wanted)
    assert len(calls) == 3


def test_cuda_graph_replays_forward_and_backward_with_new_weights(calls):
    module, x, dout = make("many tokens")
    static = x.clone().requires_grad_()

    def step():
        module.zero_grad(set_to_none=True)
        static.grad = None
        with torch.autocast("cuda", HALF):
            out = module(static)
        out.backward(dout.to(out.dtype))
        return out

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    gradients = {name: p.grad for name, p in module.named_parameters()}
    with torch.no_grad():
        static.copy_(torch.randn_like(static))
        for parameter in module.parameters():
            parameter.mul_(1.1)
    graph.replay()
    torch.cuda.synchronize()
    got = {"out": out.detach().clone(), "x": static.grad.clone(), **{k: g.clone() for k, g in gradients.items()}}
    wanted = run(module, static, dout, HALF)
    assert all(torch.equal(got[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("dtype", [SINGLE, HALF], ids=str)
def test_torch_compile_keeps_the_residual_block_in_one_graph(dtype, calls):
    torch.manual_seed(0)
    module = S3Block(32, 2, (2, 4)).cuda()
    x, dout = torch.randn(2, 12, 20, 32, device="cuda"), torch.randn(2, 12, 20, 32, device="cuda")
    wanted = run(module, x, dout, dtype)
    compiled = torch.compile(module, fullgraph=True)
    results = {name.removeprefix("_orig_mod."): value for name, value in run(compiled, x, dout, dtype).items()}
    for name, value in wanted.items():
        assert relative_error(results[name], value) < (1e-4 if dtype == SINGLE else 1e-2), name
    assert len(calls) >= 2


@pytest.mark.parametrize("dtype", [SINGLE, HALF], ids=str)
def test_registered_operators_pass_opcheck(dtype):
    module, x, dout = make("2d")
    parameters = [dict(module.named_parameters())[name] for name in _names()]
    arguments = (x.requires_grad_(), *parameters, [2, 4], dtype, True)
    torch.library.opcheck(torch.ops.slicemamba.bss.default, arguments)
    tensors = [t.detach() for t in arguments[:-3]]
    out, *saved = torch.ops.slicemamba.bss(*tensors, [2, 4], dtype, True)
    block_parameters = BssParameters(*tensors[1:])
    source = tensors[0] if dtype == SINGLE else saved[0]
    if dtype == SINGLE:
        saved[-4:] = block_parameters.products
    backward = (dout.to(out.dtype), source, SINGLE, *tensors[1:], source.new_empty(0), *saved[1:], [2, 4])
    torch.library.opcheck(torch.ops.slicemamba.bss_backward.default, backward)


def _names():
    return (
        *("in_proj.weight", "conv.weight", "conv.bias", "x_proj_weight", "dt_projs_weight", "dt_projs_bias"),
        *("A_logs", "Ds", "out_norm.weight", "out_norm.bias", "out_proj.weight"),
    )


def test_the_gradient_scaler_notices_an_overflow_and_recovers(calls):
    module, x, _ = make("2d")
    optimiser = torch.optim.SGD(module.parameters(), 1e-7)
    # blocks compute in bfloat16, which ends where float32 does
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**127)
    before = module.in_proj.weight.detach().clone()
    steps = 0
    while torch.equal(module.in_proj.weight, before):
        steps += 1
        assert steps < 200
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cuda", HALF):
            loss = 1e4 * module(x).float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
    assert steps > 1  # the first scales overflow and their steps are skipped
    assert all(p.isfinite().all() for p in module.parameters())


def test_a_side_stream_and_another_thread_are_used(calls):
    module, x, dout = make("2d")
    wanted = run(module, x, dout, HALF)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        results = run(module, x * 1, dout, HALF)
        torch.cuda.current_stream().synchronize()
    assert all(torch.equal(results[name], value) for name, value in wanted.items())


def test_the_setting_switches_it_off(monkeypatch, calls):
    monkeypatch.setenv(FUSED_VARIABLE, "0")
    run(*make("2d"), HALF)
    assert calls == []


def test_other_cases_stay_composite(calls):
    module, x, dout = make("2d")
    run(module.double(), x.double(), dout.double(), torch.float64)
    run(module.half(), x.half(), dout.half())
    assert calls == []
