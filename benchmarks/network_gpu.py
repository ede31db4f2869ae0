"""Blocks and whole networks on a GPU: time and memory of a training step and of inference, beside nnU-Net's networks.

    python benchmarks/network_gpu.py [--quick | --blocks] [--networks WORD ...] [--compile] [--csv FOLDER]

Prints one table and the time of a first call with nothing compiled before. Random data, fp16 autocast, medians after
warm-up, GPU time by events. "graph" is the same work replayed as a CUDA graph, as the trainers and prediction do it,
for nnU-Net's networks too; memory is the peak of PyTorch's allocator over one eager step; "host" is how long Python
takes to queue the step before it, blocks only if eager.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import results
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from rich.console import Console
from rich.table import Table
from timing import add_csv, device_name, gpu_milliseconds, queueing_milliseconds
from torch import Tensor, nn

from nnunetv2_slicemamba.nets import BSS, SlicedNetwork, SliceMambaResidualUNet, SliceMambaUNet
from nnunetv2_slicemamba.nets.cuda_graphs import TrainingGraph
from nnunetv2_slicemamba.nets.network_graphs import NetworkGraphs
from nnunetv2_slicemamba.planning.architecture import architecture_kwargs
from nnunetv2_slicemamba.planning.residual import residual_kwargs

# strides of nnU-Net's plans for the paper's network: the first three make its patch embedding of 4
POOLING = ((1, 1), *5 * ((2, 2),))
# where a residual network has its S3 blocks
BLOCKS = {"blocks from stride 8": 8, "blocks from stride 4": 4, "without blocks": 0}


@dataclass
class Row:
    """Milliseconds of a training step and of inference, eager and as a graph, with the host's; GiB at the peak."""

    work: str
    size: str
    step: float
    graph_step: float | None
    host: float | None
    graph_host: float | None
    inference: float
    graph_inference: float | None
    peak: float
    parameters: float


# heading and, in timings.csv, figure: field and unit
FIGURES = {
    "step": ("step", "ms"),
    "host, step": ("host", "ms"),
    "step as a graph": ("graph_step", "ms"),
    "host, step as a graph": ("graph_host", "ms"),
    "inference": ("inference", "ms"),
    "inference as a graph": ("graph_inference", "ms"),
    "peak": ("peak", "GiB"),
    "parameters": ("parameters", "M"),
}


def nnunet_network(
    cls: type[nn.Module], channels: int, classes: int, strides: Sequence[Any], kernels: Sequence[Any], widest: int
) -> nn.Module:
    """nnU-Net's default network or, as `cls`, its residual one, for the strides and kernels of its stages.

    widest: most channels of a stage, of 32 doubled from stage to stage.
    """
    n, axes = len(strides), len(strides[0])
    plain = cls is PlainConvUNet
    blocks = {"n_conv_per_stage": [2] * n} if plain else {"n_blocks_per_stage": [1, 3, 4, *[6] * n][:n]}
    return cls(
        input_channels=channels,
        n_stages=n,
        features_per_stage=[min(widest, 32 * 2**i) for i in range(n)],
        conv_op=nn.Conv2d if axes == 2 else nn.Conv3d,
        kernel_sizes=kernels,
        strides=strides,
        num_classes=classes,
        n_conv_per_stage_decoder=[2 if plain else 1] * (n - 1),
        conv_bias=True,
        norm_op=nn.InstanceNorm2d if axes == 2 else nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
        **blocks,
    )


def residual_network(
    channels: int,
    classes: int,
    strides: Sequence[Any],
    kernels: Sequence[Any],
    widest: int,
    from_stride: int,
    **options: Any,
) -> nn.Module:
    """nnU-Net's default network with S3 blocks from a stride on; 0: without them. options: in place of the plans'."""
    n = len(strides)
    planned = {
        "n_stages": n,
        "features_per_stage": [min(widest, 32 * 2**i) for i in range(n)],
        "strides": strides,
        "kernel_sizes": kernels,
        "n_conv_per_stage": [2] * n,
        "n_conv_per_stage_decoder": [2] * (n - 1),
        "norm_op_kwargs": {"eps": 1e-5},
    }
    kwargs = residual_kwargs(planned, from_stride) | options
    return SliceMambaResidualUNet(channels, classes, deep_supervision=True, **kwargs)


def residual2d(from_stride: int) -> nn.Module:
    """The residual network in 2D at nnU-Net's default widths."""
    return residual_network(3, 2, [[1, 1], *[[2, 2]] * 6], [[3, 3]] * 7, 512, from_stride)


def unet2d(cls: type[nn.Module], n_stages: int = 7) -> nn.Module:
    """nnU-Net's 2D networks at its default widths."""
    return nnunet_network(cls, 3, 2, [[1, 1], *[[2, 2]] * (n_stages - 1)], [[3, 3]] * n_stages, 512)


def slicemamba2d(size: str) -> nn.Module:
    """The paper's network in 2D, or one of the smaller sizes."""
    return SliceMambaUNet(3, 2, **architecture_kwargs(POOLING, size), deep_supervision=True)


def measure(
    work: str, size: str, module: nn.Module, x: Tensor, repeats: int, optimise: bool, compiled: bool = False
) -> Row:
    """One row: training step (forward, backward, AdamW if `optimise`), inference, peak memory."""
    module = module.cuda().train()
    if isinstance(module, SlicedNetwork):
        module.graphs.inference = False  # eager rows are to be eager
    # as an optimiser keeps them: to look for them in the module takes the host longer than to replay a block
    weights = list(module.parameters())
    parameters = sum(p.numel() for p in weights) / 1e6
    optimiser = torch.optim.AdamW(weights, 1e-4, fused=True) if optimise else None
    eager = torch.compile(module) if compiled else module
    grads: dict[torch.Size, Tensor] = {}

    def grad_output(output: Tensor) -> Tensor:
        if output.shape not in grads:
            grads[output.shape] = torch.ones_like(output)
        return grads[output.shape]

    def step(run: Callable[[Tensor], Tensor | list[Tensor]]) -> None:
        with torch.autocast("cuda"):
            output = run(x)
        outputs = output if isinstance(output, list) else [output]
        torch.autograd.backward(outputs, [grad_output(o) for o in outputs])
        if optimiser is not None:
            optimiser.step()
        for tensor in (*weights, x):
            tensor.grad = None

    step(eager)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step(eager)
    peak = torch.cuda.max_memory_allocated() / 2**30
    time_step = gpu_milliseconds(lambda: step(eager), repeats)
    # a whole network is more launches than a GPU's queue holds
    host = None if optimise else queueing_milliseconds(lambda: step(eager))
    graph_step = graph_host = None
    if not compiled:
        with torch.autocast("cuda"):
            graph = TrainingGraph(module, module.forward, (x,))
            graph_step = gpu_milliseconds(lambda: step(graph), repeats)
            graph_host = queueing_milliseconds(lambda: step(graph))
        del graph
    module.eval()

    def infer() -> None:
        with torch.inference_mode(), torch.autocast("cuda"):
            eager(x)

    time_inference = gpu_milliseconds(infer, repeats)
    graph_inference = None
    if not compiled:
        with torch.inference_mode(), torch.autocast("cuda"):
            recorded, *_ = NetworkGraphs.record(module, x)
            graph_inference = gpu_milliseconds(recorded.replay, repeats)
    times = (time_step, graph_step, host, graph_host, time_inference, graph_inference)
    return Row(work, size, *times, peak, parameters)


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


def keep(benchmark: str, row: Row, folder: Path | None) -> None:
    """Prints a row and adds it to timings.csv in the folder, so that an end of the benchmark does not lose it."""
    print(row, flush=True)
    if folder is not None:
        figures = [(row.work, row.size, name, getattr(row, field), unit) for name, (field, unit) in FIGURES.items()]
        results.write_timings(folder, benchmark, device_name(torch.device("cuda")), figures)


def show(rows: Sequence[Row]) -> None:
    """Prints all rows as a table."""
    heads = [f"{figure} {unit}" for figure, (_, unit) in FIGURES.items()]
    title = f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, fp16 autocast"
    table = Table("work", "size", *heads, title=title)
    for row in rows:
        values = [getattr(row, field) for field, _ in FIGURES.values()]
        table.add_row(row.work, row.size, *("" if value is None else f"{value:.2f}" for value in values))
    Console(width=180).print(table)


Work = tuple[str, str, Callable[[], nn.Module], tuple[int, ...]]


def blocks() -> list[Work]:
    """Work, size, what builds it and its input's shape, of single blocks."""
    sizes = [(32, 64, 96), (32, 32, 192), (32, 16, 384), (32, 8, 768), (12, 128, 96)]
    return [("BSS", f"B{b} {s}x{s} C{c}", partial(BSS, c, thickness=(2, 4)), (b, s, s, c)) for b, s, c in sizes]


def networks(quick: bool, batch: int) -> list[Work]:
    """Work, size, what builds it and its input's shape, of whole networks; batch: of 256x256."""
    small, large = (f"B{batch} 256x256", (batch, 3, 256, 256)), ("B12 512x512", (12, 3, 512, 512))
    builders: list[tuple[str, Callable[[], nn.Module], tuple[str, tuple[int, ...]]]] = [
        *((f"SliceMamba {size}", partial(slicemamba2d, size), small) for size in "LMS"),
        *((f"residual L, {name}", partial(residual2d, stride), small) for name, stride in BLOCKS.items()),
        ("nnU-Net PlainConvUNet", partial(unet2d, PlainConvUNet), small),
    ]
    if not quick:
        builders += [
            ("nnU-Net ResidualEncoderUNet", partial(unet2d, ResidualEncoderUNet), small),
            ("SliceMamba L", partial(slicemamba2d, "L"), large),
            ("nnU-Net PlainConvUNet", partial(unet2d, PlainConvUNet, 8), large),
        ]
    return [(work, size, build, shape) for work, build, (size, shape) in builders]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer networks")
    parser.add_argument("--blocks", action="store_true", help="no networks")
    parser.add_argument("--networks", nargs="+", metavar="WORD", help="only networks whose name has one of these words")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32, help="images of 256x256")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, as nnU-Net trains by default")
    add_csv(parser)
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    wanted = arguments.networks or [""]
    listed = [] if arguments.networks else [(*block, False) for block in blocks()]
    if not arguments.blocks:
        found = networks(arguments.quick, arguments.batch)
        listed += [(*network, True) for network in found if any(word in network[0] for word in wanted)]
    rows = []
    for work, size, build, shape, optimise in listed:
        for compiled in (False, True) if arguments.compile and optimise else (False,):
            module = build()
            x = torch.randn(*shape, device="cuda", requires_grad=not optimise)
            title = f"{work}, torch.compile" if compiled else work
            try:
                rows.append(measure(title, size, module, x, arguments.repeats, optimise, compiled))
                keep("network_gpu", rows[-1], arguments.csv)
            except RuntimeError as error:
                print(f"{title}, {size}: {str(error).splitlines()[0]}", flush=True)
            del module, x
            gc.collect()
            torch.cuda.empty_cache()
    show(rows)
    print(f"first call of a BSS, forward and backward, nothing compiled before: {first_call_seconds():.1f} s")


if __name__ == "__main__":
    main()
