"""Measured cost of one forward pass of a path on this device: its time, or the memory that it needs."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.nets import Supernet
from nnunetv2_slicemamba.nets.s3block import CandidateBlock
from nnunetv2_slicemamba.ops.backends import chosen_backend
from nnunetv2_slicemamba.search.evaluation.path_evaluation import autocast_on
from nnunetv2_slicemamba.search.objectives import LATENCY, MEMORY, STEP, Cost
from nnunetv2_slicemamba.slicing.candidates import Architecture

# Passes that are not measured: the first ones of a shape compile, tune and allocate.
WARM_UP = 3
REPEATS = 10
_PASS = "one patch of the plans' patch size, batch 1, under the evaluation's autocast"
DEFINITIONS = {
    LATENCY: f"median of {REPEATS} forward passes of {_PASS}, after {WARM_UP} that are not counted",
    STEP: "forward and backward pass of a batch, as a sum of the network without blocks and of every block by itself",
    MEMORY: f"peak that PyTorch allocates in a forward pass of {_PASS}, with the path's weights and the input",
}


def require_measurable(cost: Cost | None, device: torch.device) -> None:
    """InputError where PyTorch does not count the memory of a device."""
    if cost is not None and cost.kind == MEMORY and device.type != "cuda":
        asked = "--objective dice-memory" if cost.minimised else cost.flag
        raise InputError(
            f"{asked} needs a CUDA device, the device is {device.type!r}: only there PyTorch counts the memory of a "
            "forward pass. Search on a GPU (-device cuda), or give --objective dice-latency or --max-latency-ms"
        )


def measured_with(cost: Cost | None, device: torch.device) -> dict[str, str]:
    """The cost's definition and conditions, as a search's fingerprint and its files hold them; empty without a cost."""
    if cost is None:
        return {}
    return {
        "cost_definition": DEFINITIONS[cost.kind],
        "device": device_name(device),
        "pytorch": str(torch.__version__),
        "scan_backend": chosen_backend(device),
    }


def why_measured_anew(told: Mapping[str, Any], expected: Mapping[str, str]) -> str | None:
    """The reason for which kept costs are not those of a network and a measurement; None if they are.

    told: the conditions that the costs were kept with. expected: those of the network and the measurement.
    """
    unsaid = [key for key in expected if key not in told]
    if unsaid:
        return f"it is of an earlier version, which did not note {_words(unsaid)}"
    differ = [key for key, value in expected.items() if told[key] != value]
    return f"it was measured under other conditions ({_words(differ)})" if differ else None


def _words(keys: Sequence[str]) -> str:
    return ", ".join(key.removesuffix("_sha256").replace("_", " ") for key in keys)


def device_name(device: torch.device) -> str:
    """The product's name; of a CPU with the number of threads, which changes its latency."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{device.type} ({platform.machine()})"
    threads = torch.get_num_threads()
    return f"{_cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"


def require_same(expected: dict[str, str], own: dict[str, str]) -> None:
    """InputError if a helping process would measure under other conditions than the writer of the ledger."""
    differ = [
        f"{key.replace('_', ' ')} {own.get(key)} here, {value} there"
        for key, value in expected.items()
        if own.get(key) != value
    ]
    if differ:
        raise InputError(
            f"this process would measure the cost otherwise than the first one ({'; '.join(differ)}), and the numbers "
            "could not be compared; start processes on equal devices only"
        )


class CostMeter:
    """Measures paths of a supernet, one after the other.

    network: in evaluation mode, on the device, without deep supervision. input_channels, patch: of the input, (1,
    input_channels, *patch) float32. Changes the path that the network uses.
    """

    def __init__(
        self, network: Supernet, input_channels: int, patch: Sequence[int], device: torch.device, cost: Cost
    ) -> None:
        self._network, self._device, self._cost = network, device, cost
        generator = torch.Generator().manual_seed(0)
        self._input = torch.randn((1, input_channels, *patch), generator=generator).to(device)

    @torch.inference_mode()
    def measure(self, architecture: Architecture) -> float:
        """The cost of a path, in the cost's unit. Waits for all other work of this process on the device first."""
        blocks = [block for block in self._network.block_positions() if isinstance(block, CandidateBlock)]
        for block, index in zip(blocks, architecture, strict=True):
            block.choose(index)
        if self._cost.kind == LATENCY:
            return self._milliseconds()
        return (self._peak_bytes() + self._bytes_of_path(blocks)) / 2**20

    def _milliseconds(self) -> float:
        with autocast_on(self._device):  # once, as for all windows of the cases: it keeps the converted weights
            for _ in range(WARM_UP):
                self._network(self._input)
            return statistics.median(self._time_once() for _ in range(REPEATS))

    def _time_once(self) -> float:
        self._wait()
        if self._device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            self._network(self._input)
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end))
        started = time.perf_counter()
        self._network(self._input)
        self._wait()
        return 1000 * (time.perf_counter() - started)

    def _peak_bytes(self) -> int:
        """Peak of the bytes that a pass allocates, its input included."""
        for _ in range(WARM_UP):
            self._pass()
        self._wait()
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        self._pass()
        self._wait()
        own = torch.cuda.max_memory_allocated(self._device) - before
        return own + self._input.numel() * self._input.element_size()

    def _pass(self) -> None:
        with autocast_on(self._device):  # leaving it frees the converted weights
            self._network(self._input)

    def _bytes_of_path(self, blocks: Sequence[CandidateBlock]) -> int:
        """Bytes of all weights but those of the candidates that the path does not use."""
        unused = {id(p) for block in blocks for one in block if one is not block.chosen for p in one.parameters()}
        used = [p for p in self._network.parameters() if id(p) not in unused]
        return sum(p.numel() * p.element_size() for p in used)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()
