"""Promises of the numba kernels alone: their functions' precision, any number of threads, and life after a fork."""

import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from nnunetv2_slicemamba.ops import slice_scan
from tests.ops.oracle import CASES, Case, converted, make_inputs, upstream, with_gradients

numba = pytest.importorskip("numba")

from nnunetv2_slicemamba.ops.numba_vector import WIDTH, exp2, load, softplus, store  # noqa: E402


@numba.njit
def _apply(numbers, powers, softpluses, derivatives):
    for start in range(0, len(numbers), WIDTH):
        values = load(numbers, start)
        store(powers, start, exp2(values))
        value, derivative = softplus(values)
        store(softpluses, start, value)
        store(derivatives, start, derivative)


def applied(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of exp2, softplus and softplus's derivative of every number."""
    padded = np.concatenate([numbers, np.zeros(-len(numbers) % WIDTH)]).astype(np.float32)
    results = tuple(np.empty_like(padded) for _ in range(3))
    _apply(padded, *results)
    return tuple(result[: len(numbers)] for result in results)  # type: ignore[return-value]


def worst(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.max(np.abs(got.astype(np.float64) / wanted - 1)))


def test_the_exponential_is_as_precise_as_float32() -> None:
    numbers = np.linspace(-125.9, 127.4, 400_003).astype(np.float32)
    assert worst(applied(numbers)[0], np.exp2(numbers.astype(np.float64))) < 3e-7


def test_softplus_and_its_derivative_are_as_precise_as_float32() -> None:
    numbers = np.concatenate([np.linspace(-80, 200, 300_001), np.linspace(-1, 1, 100_001)]).astype(np.float32)
    exact = numbers.astype(np.float64)
    _, values, derivatives = applied(numbers)
    # exp(-|z|) carries the rounding of its argument: half an ulp of 80 * log2(e) at the far end
    assert worst(values, np.logaddexp(exact, 0)) < 6e-6
    assert worst(derivatives, 1 / (1 + np.exp(-exact))) < 6e-6
    near = np.abs(exact) < 4
    assert worst(values[near], np.logaddexp(exact[near], 0)) < 1e-6


def test_limits_are_reached_and_nan_stays_nan() -> None:
    inf, nan = np.inf, np.nan
    powers, values, derivatives = applied(np.array([-inf, -1e30, -127.0, 0.0, 128.0, 1e30, inf, nan]))
    assert np.array_equal(powers, np.array([0, 0, 0, 1, inf, inf, inf, nan], np.float32), equal_nan=True)
    assert np.array_equal(values[[0, 1, 5, 6, 7]], np.array([0, 0, 1e30, inf, nan], np.float32), equal_nan=True)
    assert np.array_equal(derivatives[[0, 1, 3, 5, 6, 7]], np.array([0, 0, 0.5, 1, 1, nan], np.float32), equal_nan=True)


@pytest.mark.parametrize("case", (CASES[-2], Case((9, 11), (2, 4), batch=3, channels=130, rank=4)), ids=str)
def test_the_bits_do_not_depend_on_the_number_of_threads(case: Case) -> None:
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        # a weight's products are BLAS's, whose rounding may depend on the threads
        inputs = {name: t for name, t in make_inputs(case).items() if name != "dt_weight"}
        inputs["dt"] = make_inputs(Case(case.sizes, case.thickness, case.batch, case.channels, case.states))["dt"]
        results.append(with_gradients(converted(inputs, torch.float32), upstream(case), case, "numba"))
    assert all(torch.equal(results[0][name], other[name]) for other in results[1:] for name in other)


def _scan_in_child(inputs, case: Case, queue) -> None:
    queue.put(slice_scan(**inputs, sizes=case.sizes, thickness=case.thickness, backend="numba").numpy())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_scans_with_threads_of_its_own() -> None:
    case = Case((5, 7), (2, 4), channels=40)
    inputs = {name: tensor.float() for name, tensor in make_inputs(case).items()}
    torch.set_num_threads(2)
    wanted = slice_scan(**inputs, sizes=case.sizes, thickness=case.thickness, backend="numba")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_scan_in_child, args=(inputs, case, queue), daemon=True)
    child.start()
    got = queue.get(timeout=60)
    child.join(timeout=60)
    assert child.exitcode == 0
    assert np.array_equal(got, wanted.numpy())


def test_kernels_compile_where_no_folder_takes_a_cache() -> None:
    script = (
        "from nnunetv2_slicemamba.ops import numba_kernels\n"
        "print(type(numba_kernels.forward._cache).__name__)\n"
        "print(numba_kernels._vectors(2).shape)"
    )
    environment = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator"}  # one that fits no plain file
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, timeout=120
    )
    assert run.stdout.split("\n")[:2] == ["NullCache", f"({2 * WIDTH},)"]
