"""Blocks and whole networks on a GPU: time and memory of a training step and of inference, beside nnU-Net's networks.

    python benchmarks/network_gpu.py [--quick | --blocks] [--compile] [--json FILE]

Prints one table and the time of a first call with nothing compiled before. Random data, fp16 autocast, medians after
warm-up, GPU time by events. "graph" is the same work replayed as a CUDA graph, as the trainers and prediction do it,
for nnU-Net's networks too; memory is the peak of PyTorch's allocator over one eager step; "host" is how long Python
takes to queue the step before it, blocks only if eager. "published" is the published implementation on an H100, for
orientation only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from nnunetv2_slicemamba.nets import BSS, SliceMambaUNet
from nnunetv2_slicemamba.nets.cuda_graphs import TrainingGraph
from nnunetv2_slicemamba.nets.network_graphs import NetworkGraphs

PAPER = {
    "n_stages": 4,
    "features_per_stage": [96, 192, 384, 768],
    "strides": [[4, 4], [2, 2], [2, 2], [2, 2]],
    "n_blocks_per_stage": [2, 2, 9, 2],
    "n_blocks_per_stage_decoder": [2, 2, 2, 1],
}
IN_A_ROW = 5  # a training does not pause between steps, after which the first one takes longer
PUBLISHED = {
    "BSS B32 64x64 C96": "67.6 ms, 2.65 GiB",
    "BSS B32 32x32 C192": "24.1 ms",
    "BSS B32 16x16 C384": "10.3 ms",
    "BSS B32 8x8 C768": "7.1 ms",
    "BSS B12 128x128 C96": "156 ms",
    "SliceMamba L B32 256x256": "428 ms, 14.8 GiB, inference 92.7 ms",
    "SliceMamba L B12 512x512": "897 ms, 21.7 GiB, inference 142 ms",
}


@dataclass
class Row:
    work: str
    step_ms: float
    graph_step_ms: float | None
    host_ms: float | None
    graph_host_ms: float | None
    inference_ms: float
    graph_inference_ms: float | None
    peak_gib: float
    parameters_m: float
    published: str


def unet2d(cls: type[nn.Module], n_stages: int = 7) -> nn.Module:
    """nnU-Net's default 2D networks at its default widths."""
    blocks = "n_conv_per_stage" if cls is PlainConvUNet else "n_blocks_per_stage"
    per_stage = [2] * n_stages if cls is PlainConvUNet else [1, 3, 4, 6, 6, 6, 6, 6][:n_stages]
    decoder = [2] * (n_stages - 1) if cls is PlainConvUNet else [1] * (n_stages - 1)
    return cls(
        input_channels=3,
        n_stages=n_stages,
        features_per_stage=[min(512, 32 * 2**i) for i in range(n_stages)],
        conv_op=nn.Conv2d,
        kernel_sizes=[[3, 3]] * n_stages,
        strides=[[1, 1]] + [[2, 2]] * (n_stages - 1),
        num_classes=2,
        n_conv_per_stage_decoder=decoder,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
        **{blocks: per_stage},
    )


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Median GPU time of a call."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def measure(work: str, module: nn.Module, x: Tensor, repeats: int, optimise: bool, compiled: bool = False) -> Row:
    """One row: training step (forward, backward, AdamW if `optimise`), inference, peak memory."""
    module = module.cuda().train()
    if isinstance(module, SliceMambaUNet):
        module.graphs.inference = False  # eager rows are to be eager
    # as an optimiser keeps them: to look for them in the module takes the host longer than to replay a block
    weights = list(module.parameters())
    parameters = sum(p.numel() for p in weights) / 1e6
    optimiser = torch.optim.AdamW(weights, 1e-4, fused=True) if optimise else None
    eager = torch.compile(module) if compiled else module
    slopes: dict[torch.Size, Tensor] = {}

    def slope(output: Tensor) -> Tensor:
        if output.shape not in slopes:
            slopes[output.shape] = torch.ones_like(output)
        return slopes[output.shape]

    def step(run: Callable[[Tensor], Tensor | list[Tensor]]) -> None:
        with torch.autocast("cuda"):
            output = run(x)
        outputs = output if isinstance(output, list) else [output]
        torch.autograd.backward(outputs, [slope(o) for o in outputs])
        if optimiser is not None:
            optimiser.step()
        for tensor in (*weights, x):
            tensor.grad = None

    step(eager)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step(eager)
    peak = torch.cuda.max_memory_allocated() / 2**30
    time_step = milliseconds(lambda: step(eager), repeats)
    # a whole network is more launches than a GPU's queue holds
    host = None if optimise else queueing_milliseconds(lambda: step(eager))
    graph_step = graph_host = None
    if not compiled:
        with torch.autocast("cuda"):
            graph = TrainingGraph(module, module.forward, x)
            graph_step = milliseconds(lambda: step(graph), repeats)
            graph_host = queueing_milliseconds(lambda: step(graph))
        del graph
    module.eval()

    def infer() -> None:
        with torch.inference_mode(), torch.autocast("cuda"):
            eager(x)

    time_inference = milliseconds(infer, repeats)
    graph_inference = None
    if not compiled:
        with torch.inference_mode(), torch.autocast("cuda"):
            recorded, *_ = NetworkGraphs.record(module, x)
            graph_inference = milliseconds(recorded.replay, repeats)
    times = (time_step, graph_step, host, graph_host, time_inference, graph_inference)
    return Row(work, *times, peak, parameters, PUBLISHED.get(work, ""))


def queueing_milliseconds(call: Callable[[], object]) -> float:
    """How long the host takes to queue a call, of five in a row, while the GPU is busy with something else; the best
    of 10."""
    times = []
    for _ in range(10):
        torch.cuda.synchronize()
        torch.cuda._sleep(150_000_000)
        start = time.perf_counter()
        for _ in range(IN_A_ROW):
            call()
        times.append(1e3 * (time.perf_counter() - start) / IN_A_ROW)
    torch.cuda.synchronize()
    return min(times)


FIRST_CALL = """
import time, torch
from nnunetv2_slicemamba.nets import BSS
module, x = BSS(96, thickness=(2, 4)).cuda(), torch.randn(2, 64, 64, 96, device="cuda", requires_grad=True)
torch.cuda.synchronize()
start = time.perf_counter()
with torch.autocast("cuda"):
    module(x).float().sum().backward()
torch.cuda.synchronize()
print(time.perf_counter() - start)
"""


def first_call_seconds() -> float:
    """A first forward and backward pass of a BSS in a new process whose kernel cache is empty."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SLICEMAMBA_CACHE": folder}
        command = [sys.executable, "-c", FIRST_CALL]
        return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


COLUMNS = {  # heading: field
    "step ms": "step_ms",
    "host ms": "host_ms",
    "graph ms": "graph_step_ms",
    "its host ms": "graph_host_ms",
    "inference ms": "inference_ms",
    "its graph ms": "graph_inference_ms",
    "peak GiB": "peak_gib",
    "parameters M": "parameters_m",
}


def print_table(rows: list[Row]) -> None:
    """All rows, with the device and the versions that they were measured with."""
    title = f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, fp16 autocast"
    table = Table("work", *COLUMNS, "published", title=title)
    for row in rows:
        values = [getattr(row, field) for field in COLUMNS.values()]
        table.add_row(row.work, *("" if v is None else f"{v:.2f}" for v in values), row.published)
    Console(width=160).print(table)


def blocks() -> list[tuple[str, Callable[[], nn.Module], tuple[int, ...]]]:
    sizes = [(32, 64, 96), (32, 32, 192), (32, 16, 384), (32, 8, 768), (12, 128, 96)]
    return [
        (f"BSS B{b} {s}x{s} C{c}", lambda c=c: BSS(c, thickness=(2, 4)), (b, s, s, c))  # type: ignore[misc]
        for b, s, c in sizes
    ]


def networks(quick: bool) -> list[tuple[str, Callable[[], nn.Module], tuple[int, ...]]]:
    small = (32, 3, 256, 256)
    listed = [("SliceMamba L B32 256x256", lambda: SliceMambaUNet(3, 2, **PAPER, deep_supervision=True), small)]
    for size, width in (("M", 48), ("S", 24)):
        kwargs = {**PAPER, "features_per_stage": [width * 2**i for i in range(4)]}
        listed.append(
            (
                f"SliceMamba {size} B32 256x256",
                lambda kwargs=kwargs: SliceMambaUNet(3, 2, **kwargs, deep_supervision=True),  # type: ignore[misc]
                small,
            )
        )
    listed.append(("PlainConvUNet B32 256x256", lambda: unet2d(PlainConvUNet), small))
    if not quick:
        large = (12, 3, 512, 512)
        listed.append(("ResidualEncoderUNet B32 256x256", lambda: unet2d(ResidualEncoderUNet), small))
        listed.append(("SliceMamba L B12 512x512", lambda: SliceMambaUNet(3, 2, **PAPER, deep_supervision=True), large))
        listed.append(("PlainConvUNet B12 512x512", lambda: unet2d(PlainConvUNet, 8), large))
    return listed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer networks")
    parser.add_argument("--blocks", action="store_true", help="no networks")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, as nnU-Net trains by default")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    work = [(*block, False) for block in blocks()]
    if not arguments.blocks:
        work += [(*network, True) for network in networks(arguments.quick)]
    rows = []
    for name, build, shape, optimise in work:
        for compiled in (False, True) if arguments.compile and optimise else (False,):
            module = build()
            x = torch.randn(*shape, device="cuda", requires_grad=not optimise)
            title = f"{name}, torch.compile" if compiled else name
            try:
                rows.append(measure(title, module, x, arguments.repeats, optimise, compiled))
                print(rows[-1], flush=True)
            except RuntimeError as error:
                print(f"{title}: {str(error).splitlines()[0]}", flush=True)
            del module, x
            gc.collect()
            torch.cuda.empty_cache()
    print_table(rows)
    print(f"first call of a BSS, forward and backward, nothing compiled before: {first_call_seconds():.1f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
