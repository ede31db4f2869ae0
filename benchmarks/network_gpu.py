"""Blocks and whole networks on a GPU: time and memory of a training step and of inference, beside nnU-Net's networks.

    python benchmarks/network_gpu.py [--quick] [--fused] [--json FILE]

Prints one table; with --fused the SliceMamba rows are timed with the fused block off and on, in the same run. Random
data, fp16 autocast, medians after warm-up, GPU time by events; memory is the peak of PyTorch's allocator over one step.
"published" is the published implementation on an H100, for orientation only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from nnunetv2_slicemamba.nets import BSS, SliceMambaUNet

PAPER = {
    "n_stages": 4,
    "features_per_stage": [96, 192, 384, 768],
    "strides": [[4, 4], [2, 2], [2, 2], [2, 2]],
    "n_blocks_per_stage": [2, 2, 9, 2],
    "n_blocks_per_stage_decoder": [2, 2, 2, 1],
}
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
    inference_ms: float
    peak_gib: float
    parameters_m: float
    published: str
    fused_step_ms: float | None = None
    fused_inference_ms: float | None = None
    fused_peak_gib: float | None = None


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
    parameters = sum(p.numel() for p in module.parameters()) / 1e6
    optimiser = torch.optim.AdamW(module.parameters(), 1e-4, fused=True) if optimise else None
    run = torch.compile(module) if compiled else module

    def loss_of(output: Tensor | list[Tensor]) -> Tensor:
        outputs = output if isinstance(output, list) else [output]
        return sum((o.float().square().mean() for o in outputs), start=torch.zeros((), device="cuda"))

    def step() -> None:
        with torch.autocast("cuda"):
            output = run(x)
            loss = loss_of(output)
        loss.backward()
        if optimiser is not None:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        else:
            module.zero_grad(set_to_none=True)

    def infer() -> None:
        with torch.inference_mode(), torch.autocast("cuda"):
            run(x)

    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    peak = torch.cuda.max_memory_allocated() / 2**30
    time_step = milliseconds(step, repeats)
    module.eval()
    time_inference = milliseconds(infer, repeats)
    return Row(work, time_step, time_inference, peak, parameters, PUBLISHED.get(work, ""))


def measure_both(work: str, module: nn.Module, x: Tensor, repeats: int, optimise: bool, compiled: bool = False) -> Row:
    """`measure` with the fused block off and on."""
    results = []
    for setting in ("0", "1"):
        os.environ["SLICEMAMBA_FUSED"] = setting
        torch.compiler.reset()  # the setting is a constant of a compiled graph
        results.append(measure(work, module, x, repeats, optimise, compiled))
    plain, fused = results
    return replace(
        plain,
        fused_step_ms=fused.step_ms,
        fused_inference_ms=fused.inference_ms,
        fused_peak_gib=fused.peak_gib,
    )


def figures_of(row: Row, both: bool) -> tuple[str, ...]:
    """The row's cells between its name and "published"; pairs "off / on" if `both` were timed."""
    pairs = (
        (row.step_ms, row.fused_step_ms),
        (row.inference_ms, row.fused_inference_ms),
        (row.peak_gib, row.fused_peak_gib),
    )
    cells = []
    for off, on in pairs:
        cells += [f"{off:.2f}", *(["" if on is None else f"{on:.2f}"] if both else [])]
    return *cells, f"{row.parameters_m:.1f}"


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
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, as nnU-Net trains by default")
    parser.add_argument("--fused", action="store_true", help="also with SLICEMAMBA_FUSED=1, in columns of their own")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    work = [(*block, False) for block in blocks()] + [(*network, True) for network in networks(arguments.quick)]
    rows = []
    for name, build, shape, optimise in work:
        for compiled in (False, True) if arguments.compile and optimise else (False,):
            module = build()
            x = torch.randn(*shape, device="cuda", requires_grad=not optimise)
            title = f"{name}, torch.compile" if compiled else name
            try:
                timed = measure_both if arguments.fused and name.startswith(("BSS", "SliceMamba")) else measure
                rows.append(timed(title, module, x, arguments.repeats, optimise, compiled))
                print(rows[-1], flush=True)
            except RuntimeError as error:
                print(f"{title}: {str(error).splitlines()[0]}", flush=True)
            del module, x
            gc.collect()
            torch.cuda.empty_cache()
    title = f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, fp16 autocast"
    columns = ["step ms", "inference ms", "peak GiB"]
    if arguments.fused:
        columns = [name for column in columns for name in (column, f"fused {column}")]
    table = Table("work", *columns, "parameters M", "published", title=title)
    for row in rows:
        table.add_row(row.work, *figures_of(row, arguments.fused), row.published)
    Console(width=180 if arguments.fused else 140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
