"""The right backend is chosen, and a wrong choice is explained."""

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.ops import available_backends, slice_scan
from nnunetv2_slicemamba.ops.backends import (
    BACKENDS,
    ENVIRONMENT_VARIABLE,
    FUSED_VARIABLE,
    Backend,
    block_backend,
    chosen_backend,
    explain_backends,
)
from tests.ops.oracle import SMALL, converted, make_inputs

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


def scan(backend: str | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    inputs = converted(make_inputs(SMALL), dtype)
    return slice_scan(**inputs, sizes=SMALL.sizes, thickness=SMALL.thickness, backend=backend)


def ran(out: torch.Tensor) -> str:
    """The backend that computed out, from what its gradient runs through."""
    nodes: list[Any] = [out.grad_fn]
    names = []
    for node in nodes:
        names.append(type(node).__name__)
        nodes += [parent for parent, _ in node.next_functions if parent is not None and len(nodes) < 40]
    known = {"EagerScanBackward": "numba", "_TorchScanBackward": "torch"}
    return next((known[name] for name in names if name in known), "reference")


def test_the_cpu_runs_numba_torch_and_the_reference_in_this_order() -> None:
    assert available_backends("cpu") == ["numba", "torch", "reference"]


def test_every_backend_is_explained() -> None:
    explanation = explain_backends("cpu")
    assert list(explanation) == ["cuda", "mamba_ssm", "numba", "torch", "reference"]
    assert [name for name, reason in explanation.items() if reason is None] == available_backends("cpu")
    assert all("cpu" in (explanation[name] or "") for name in ("cuda", "mamba_ssm"))


def test_float32_on_the_cpu_runs_numba_and_float64_runs_torch() -> None:
    assert chosen_backend(CPU, torch.float32) == "numba"
    assert chosen_backend(CPU, torch.float64) == "torch"
    assert ran(scan()) == "numba"
    assert ran(scan(dtype=torch.float64)) == "torch"


def test_a_device_that_no_kernel_knows_runs_torch() -> None:
    assert chosen_backend(torch.device("meta")) == "torch"


@pytest.mark.parametrize("name", ("numba", "torch", "reference"))
def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, name)
    assert chosen_backend(CPU) == name
    assert ran(scan()) == name


def test_the_argument_decides_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "reference")
    assert ran(scan("torch")) == "torch"
    assert ran(scan("auto")) == "numba"


@pytest.mark.parametrize("value", ("auto", ""))
def test_the_environment_may_leave_the_choice_open(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, value)
    assert ran(scan()) == "numba"


def test_whole_blocks_are_the_scanning_backends_unless_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FUSED_VARIABLE, raising=False)
    assert block_backend(CPU) is None
    own = dataclasses.replace(BACKENDS["torch"], bss=lambda *_: None)
    monkeypatch.setitem(BACKENDS, "torch", own)
    assert block_backend(CPU, torch.float32) is None  # numba scans, and has none
    assert block_backend(CPU, torch.float64) == "torch"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "torch")
    assert block_backend(CPU, torch.float32) == "torch"
    monkeypatch.setenv(FUSED_VARIABLE, "0")
    assert block_backend(CPU, torch.float32) is None


def test_an_unknown_name_is_refused_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"unknown scan backend 'triton' in the argument.* must be one of cuda, .*;"):
        scan("triton")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "NUMBA")
    with pytest.raises(ValueError, match=f"unknown scan backend 'NUMBA' in the environment.*{ENVIRONMENT_VARIABLE}"):
        scan()


def test_a_named_backend_that_cannot_run_here_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        RuntimeError, match=r"'mamba_ssm' named in the argument.*needs a CUDA device.*; choose one of num"
    ):
        scan("mamba_ssm")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "cuda")
    with pytest.raises(
        RuntimeError, match=f"'cuda' named in the environment variable {ENVIRONMENT_VARIABLE}.*; choose"
    ):
        scan()
    with pytest.raises(RuntimeError, match=r"'numba'.*float64.*; choose one of torch, reference"):
        scan("numba", torch.float64)


def test_without_numba_torch_runs_and_the_reason_is_given() -> None:
    script = (
        "import sys; sys.modules['numba'] = None\n"
        "from nnunetv2_slicemamba.ops.backends import available_backends, explain_backends\n"
        "print(available_backends('cpu')); print(explain_backends('cpu')['numba'])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    names, reason = run.stdout.splitlines()
    assert names == "['torch', 'reference']"
    assert "numba cannot be imported" in reason
    assert "install" in reason


def test_importing_the_operation_imports_no_kernel() -> None:
    script = (
        "import sys, nnunetv2_slicemamba.ops\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('numba', 'mamba_ssm') or '.ops.cuda.' in m])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("backend", ("torch", "numba"))
def test_torch_compile_breaks_its_graph_at_the_scan_and_goes_on(backend: str) -> None:
    inputs = converted(make_inputs(SMALL), torch.float32)

    def layer(**tensors: torch.Tensor) -> torch.Tensor:
        tensors["x"] = 2 * tensors["x"]
        return slice_scan(**tensors, sizes=SMALL.sizes, thickness=SMALL.thickness, backend=backend).tanh()

    plain = layer(**inputs)
    compiled = torch.compile(layer, backend="eager")(**inputs)
    assert torch.equal(plain, compiled)
    got, wanted = (torch.autograd.grad(out.sum(), inputs["A"])[0] for out in (compiled, plain))
    assert torch.equal(got, wanted)


def test_a_traceable_backend_stays_inside_the_compiled_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def traceable(x, dt, B, C, A, D, sizes, thickness, delta_bias, dt_weight):
        return x * (D + delta_bias).sum(0)

    monkeypatch.setitem(BACKENDS, "traceable", Backend("traceable", traceable, lambda device, dtype: None))
    inputs = converted(make_inputs(SMALL), torch.float32)

    def layer(**tensors: torch.Tensor) -> torch.Tensor:
        out = slice_scan(**tensors, sizes=SMALL.sizes, thickness=SMALL.thickness, backend="traceable")
        return out.tanh()

    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(**inputs), layer(**inputs))


def test_every_backend_has_its_own_name() -> None:
    assert all(name == backend.name for name, backend in BACKENDS.items())
