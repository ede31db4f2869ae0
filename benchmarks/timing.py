"""Timing that the GPU benchmarks share: medians of GPU time, the host's time to queue work, runs by torchrun."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

IN_A_ROW = 5  # a training does not pause between steps, after which the first one takes longer
WARM_UPS = 3
BUSY_CYCLES = 150_000_000  # of the GPU, while the host queues work behind them
MOST_CALLS = 50


def gpu_milliseconds(call: Callable[[], object], repeats: int, at_least: float = 0.0) -> float:
    """Median GPU time of one call after warm-up; short calls are made several times in a row.

    at_least: milliseconds that a measurement should last.
    """
    for _ in range(WARM_UPS):
        call()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def lasted(calls: int) -> float:
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / calls

    calls = max(1, min(MOST_CALLS, int(at_least / max(lasted(1), 1e-3))))
    return statistics.median(lasted(calls) for _ in range(repeats))


def queueing_milliseconds(call: Callable[[], object]) -> float:
    """Host time to queue a call, of several in a row, while the GPU is busy with something else; the best of 10."""
    times = []
    for _ in range(10):
        torch.cuda.synchronize()
        torch.cuda._sleep(BUSY_CYCLES)
        start = time.perf_counter()
        for _ in range(IN_A_ROW):
            call()
        times.append(1e3 * (time.perf_counter() - start) / IN_A_ROW)
    torch.cuda.synchronize()
    return min(times)


def as_graph(call: Callable[[], object]) -> Callable[[], object]:
    """The replay of a CUDA graph of the call; the call itself where it cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:
        torch.cuda.synchronize()
        return call
    return graph.replay


def device_name(device: torch.device) -> str:
    """Name of a device as timings.csv has it."""
    if device.type != "cuda":
        return f"CPU, {torch.get_num_threads()} threads"
    return torch.cuda.get_device_name(device).removeprefix("NVIDIA ").removesuffix(" 80GB HBM3")


def by_torchrun(script: str, processes: int, options: Mapping[str, Any]) -> Any:
    """Content of a benchmark's --json when torchrun starts it in several processes of this machine.

    options: of the benchmark, names without dashes; True for a flag, None for one that is left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, given = Path(folder) / "shared.json", list[str]()
        for name, value in {**options, "json": file}.items():
            given += [] if value is None else [f"--{name}", *([] if value is True else [str(value)])]
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        subprocess.run([*launcher, script, *given], check=True)
        return json.loads(file.read_text())


def add_csv(parser: argparse.ArgumentParser) -> None:
    """Adds the option --csv, the folder whose tables of results get the figures."""
    parser.add_argument(
        "--csv", type=Path, default=None, help="add the figures to the tables of results in this folder"
    )
