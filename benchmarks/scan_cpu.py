"""Speed and memory of the scan on this CPU, beside an autograd loop over the tokens.

    python benchmarks/scan_cpu.py [--threads N] [--rounds N] [--check] [--csv FOLDER]

One image, E 192, K 4, N 16: the paper's first stage. Every measurement is a process of its own, which warms up on a few
tokens (numba's compilation included), then runs forward and backward; the methods take turns in every round, and the
best time counts. Memory is the growth of the process's peak resident set over what it holds after the warm-up, inputs
included then: what the operation itself allocates, gradients of the inputs with it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import results
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from timing import add_csv
from torch import Tensor

from nnunetv2_slicemamba.ops import available_backends, scan_orders, slice_scan

CHANNELS, STATES, THICKNESS = 192, 16, (2, 4)
SIZES = ((32, 32), (64, 64), (128, 128))
CHECKED = (1024, 16384)  # tokens at which `torch` must keep its promise
LOOP = "loop"


def loop(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor, sizes: tuple) -> Tensor:
    """The scan with autograd through every step, as well as that can be written.

    All directions at once, softplus and reordering in bulk, tokens unbound before the loop: no indexing inside.
    """
    orders = scan_orders(sizes, THICKNESS)
    directions = torch.arange(len(orders)).unsqueeze(1)
    delta = F.softplus(dt + delta_bias)[:, orders, directions]
    x_k, B_k, C_k = x[:, orders], B[:, orders, directions], C[:, orders, directions]
    h = x.new_zeros(x.shape[0], *A.shape)
    visited = []
    for x_t, delta_t, B_t, C_t in zip(*(tensor.unbind(2) for tensor in (x_k, delta, B_k, C_k)), strict=True):
        h = torch.exp(delta_t.unsqueeze(-1) * A) * h + (delta_t * x_t).unsqueeze(-1) * B_t.unsqueeze(-2)
        visited.append((h * C_t.unsqueeze(-2)).sum(-1))
    y = torch.stack(visited, 2) + D.unsqueeze(1) * x_k
    return y[:, directions, orders.argsort(1)].sum(1)


def make_inputs(sizes: tuple[int, ...]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    length, K = sizes[0] * sizes[1], 2 * len(sizes)
    inputs = {
        "x": torch.randn(1, length, CHANNELS),
        "dt": torch.randn(1, length, K, CHANNELS),
        "B": torch.randn(1, length, K, STATES),
        "C": torch.randn(1, length, K, STATES),
        "A": -torch.arange(1.0, STATES + 1).repeat(K, CHANNELS, 1),
        "D": torch.ones(K, CHANNELS),
        "delta_bias": torch.rand(K, CHANNELS) - 5,
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def method(name: str, sizes: tuple[int, ...]) -> Callable[..., Tensor]:
    if name == LOOP:
        return lambda **inputs: loop(**inputs, sizes=sizes)
    return lambda **inputs: slice_scan(**inputs, sizes=sizes, thickness=THICKNESS, backend=name)


def resident_mib(peak: bool) -> float:
    """Resident memory of this process, now or at its peak."""
    if not Path("/proc/self/status").exists():
        kibibyte = 1024 if sys.platform == "darwin" else 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / kibibyte / 1024
    key = "VmHWM:" if peak else "VmRSS:"
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) / 1024


def reset_peak() -> None:
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def measure(name: str, sizes: tuple[int, ...], threads: int) -> dict[str, float]:
    """Seconds forward and backward and MiB at the peak; run in a fresh process."""
    torch.set_num_threads(threads)
    method(name, (4, 4))(**make_inputs((4, 4))).sum().backward()
    inputs, run = make_inputs(sizes), method(name, sizes)
    grad = torch.randn_like(inputs["x"])
    scan_orders(sizes, THICKNESS)
    times = []
    reset_peak()
    before = resident_mib(peak=False)
    for repeat in range(5 if sizes[0] * sizes[1] < 8192 and name == LOOP else 2 if name == LOOP else 8):
        for tensor in inputs.values():
            tensor.grad = None
        start = time.perf_counter()
        out = run(**inputs)
        middle = time.perf_counter()
        out.backward(grad)
        end = time.perf_counter()
        del out
        if repeat == 0:
            peak = resident_mib(peak=True) - before
        times.append((end - start, middle - start))
    total, forward = min(times)
    return {"forward": forward, "backward": total - forward, "total": total, "mib": peak}


def first_call(threads: int) -> float:
    """Seconds of the first forward and backward of a process that has everything imported but numba."""
    torch.set_num_threads(threads)
    inputs = make_inputs((4, 4))
    start = time.perf_counter()
    method("numba", (4, 4))(**inputs).sum().backward()
    return time.perf_counter() - start


def in_fresh_process(arguments: list[str], threads: int, **environment: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--threads", str(threads), *arguments]
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads), **environment}
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=variables).stdout)


def collect(names: list[str], rounds: int, threads: int) -> dict[tuple[str, int], dict[str, float]]:
    """The best of the rounds by time, the largest of them by memory, for every method and length."""
    cells: dict[tuple[str, int], dict[str, float]] = {}
    for _ in range(rounds):
        for sizes in SIZES:
            for name in names:
                got = in_fresh_process(["--cell", name, *map(str, sizes)], threads)
                key = (name, sizes[0] * sizes[1])
                best = min(cells.get(key, got), got, key=lambda cell: cell["total"])
                cells[key] = {**best, "mib": max(cells.get(key, got)["mib"], got["mib"])}
    return cells


def print_table(cells: dict[tuple[str, int], dict[str, float]], threads: int) -> None:
    table = Table(title=f"B 1, E {CHANNELS}, K 4, N {STATES}, {threads} thread(s), PyTorch {torch.__version__}")
    for column in ("tokens", "method", "forward ms", "backward ms", "total ms", "µs/token", "vs loop", "peak MiB"):
        table.add_column(column, justify="left" if column == "method" else "right")
    table.add_column("of loop's", justify="right")
    for length in dict.fromkeys(key[1] for key in cells):
        for (name, tokens), cell in cells.items():
            if tokens != length:
                continue
            reference = cells[LOOP, length]
            milliseconds = [f"{1e3 * cell[part]:.1f}" for part in ("forward", "backward", "total")]
            per_token, speed = 1e6 * cell["total"] / length, reference["total"] / cell["total"]
            share = f"1/{reference['mib'] / cell['mib']:.1f}"
            table.add_row(
                f"{length:,}", name, *milliseconds, f"{per_token:.1f}", f"{speed:.1f}x", f"{cell['mib']:.0f}", share
            )
        table.add_section()
    Console(width=120).print(table)


def broken_promises(cells: dict[tuple[str, int], dict[str, float]]) -> list[str]:
    """Sentences on what `torch` misses of its target: twice as fast as the loop, a quarter of its memory."""
    missed = []
    for length in CHECKED:
        loop_cell, cell = cells[LOOP, length], cells["torch", length]
        if 2 * cell["total"] > loop_cell["total"]:
            missed.append(f"torch is less than twice as fast as the loop at {length} tokens")
        if 4 * cell["mib"] > loop_cell["mib"]:
            missed.append(f"torch takes more than a quarter of the loop's memory at {length} tokens")
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the torch backend misses its promise")
    add_csv(parser)
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--first-call", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        name, height, width = arguments.cell
        print(json.dumps(measure(name, (int(height), int(width)), arguments.threads)))
        return
    if arguments.first_call:
        print(json.dumps({"seconds": first_call(arguments.threads)}))
        return
    names = [LOOP, "torch", *(["numba"] if "numba" in available_backends("cpu") else [])]
    cells = collect(names, arguments.rounds, arguments.threads)
    print_table(cells, arguments.threads)
    if "numba" in names:
        with tempfile.TemporaryDirectory() as folder:
            cold, warm = (
                in_fresh_process(["--first-call"], arguments.threads, NUMBA_CACHE_DIR=folder)["seconds"]
                for _ in range(2)
            )
        print(f"numba's first call in a process: {cold:.1f} s with nothing cached, {warm:.1f} s from its cache")
    if arguments.csv is not None:
        figures: list[tuple[str, str, str, float | None, str]] = []
        for (name, tokens), cell in cells.items():
            of = (name, f"{tokens:,} tokens")
            figures += [(*of, "forward + backward", 1e3 * cell["total"], "ms"), (*of, "memory", cell["mib"], "MiB")]
        results.write_timings(arguments.csv, "scan_cpu", f"CPU, {arguments.threads} threads", figures)
    missed = broken_promises(cells)
    print("\n".join(missed) or "torch: at least twice as fast as the loop with at most a quarter of its memory")
    if arguments.check and missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
