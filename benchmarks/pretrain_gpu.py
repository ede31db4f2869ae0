"""ImageNet pretraining on GPUs: images a second of the paper's encoder beside timm's Swin-T, in the same run.

    python benchmarks/pretrain_gpu.py [--batch 128] [--precision fp16] [--images FOLDER --workers 16] [--processes 2]
        [--csv FOLDER]

Prints one table. A step is what `slicemamba pretrain` does: mixup, forward, backward, clipping, AdamW, moving average.
Images are random and lie on the GPU already; with --images SliceMamba is also fed by the real loader (ImageNet's
layout). Medians after warm-up; memory is the peak of PyTorch's allocator. --processes 2 first measures SliceMamba with
two processes, a GPU each, as torchrun starts them: the images of both count.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any

import results
import timm
import torch
from network_gpu import POOLING
from rich.console import Console
from rich.table import Table
from timing import add_csv, by_torchrun, device_name
from torch import Tensor, nn

from nnunetv2_slicemamba.planning.architecture import architecture_kwargs
from nnunetv2_slicemamba.pretraining.classifier import SliceMambaClassifier
from nnunetv2_slicemamba.pretraining.images import Images, Loading, find_images
from nnunetv2_slicemamba.pretraining.processes import Processes, processes
from nnunetv2_slicemamba.pretraining.recipe import Recipe
from nnunetv2_slicemamba.pretraining.training import Training

SWIN = "swin_tiny_patch4_window7_224"
# as many as ImageNet, so that the schedule is the real one; nothing reads them
CLASSES, N_TRAIN, N_VALIDATION = 1000, 1281167, 50000


# figures of a row, in its order, and their units
FIGURES = {"images": "1/s", "step": "ms", "peak": "GiB", "parameters": "M"}


@dataclass
class Row:
    """One network on one kind of device."""

    work: str
    device: str
    images_a_second: float
    step_ms: float
    peak_gib: float
    parameters_m: float

    @property
    def values(self) -> tuple[float, ...]:
        """Values of FIGURES."""
        return self.images_a_second, self.step_ms, self.peak_gib, self.parameters_m


class RandomImages(Loading):
    """Stands for the loader: the same random batch on the device again and again."""

    def __init__(self, recipe: Recipe, process: Processes) -> None:
        self.images = Images(Path(), CLASSES, N_TRAIN, N_VALIDATION)
        self.recipe, self.processes, self.workers = recipe, process, 0
        self.images_per_step = recipe.batch_size * recipe.accumulate * process.world
        self.steps_per_epoch = N_TRAIN // self.images_per_step
        size = (recipe.batch_size, 3, recipe.image_size, recipe.image_size)
        self.batch = (
            torch.randint(256, size, dtype=torch.uint8, device=process.device),
            torch.randint(CLASSES, (recipe.batch_size,), device=process.device),
        )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        yield from repeat(self.batch)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(work: str, network: nn.Module, loading: Loading, blocks: int, steps: int) -> Row:
    """Median over `blocks` of the time of `steps` steps, after as many for warm-up."""
    process, recipe = loading.processes, loading.recipe
    device = process.device
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    training = Training(network, recipe, loading.images.classes, loading, process)
    training.wrapped.train()
    batches = chain.from_iterable(loading.epoch(epoch) for epoch in count())
    times = []
    for block in range(blocks + 1):
        if device.type == "cuda" and block == 1:
            torch.cuda.reset_peak_memory_stats(device)
        process.wait()
        synchronise(device)
        start = time.perf_counter()
        for _ in range(steps):
            training._step(batches)
            training.state.step += 1
        synchronise(device)
        times.append((time.perf_counter() - start) / steps)
    seconds = statistics.median(times[1:])
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    on = f"{process.world} x " * (process.world > 1) + device_name(device)
    return Row(work, on, loading.images_per_step / seconds, 1e3 * seconds, peak, parameters)


def by_processes(arguments: argparse.Namespace) -> list[Row]:
    """The rows of SliceMamba alone, measured by this program started --processes times by torchrun."""
    names = ("batch", "size", "precision", "steps", "blocks", "device", "workers", "images")
    options = {name: getattr(arguments, name) for name in names}
    found = by_torchrun(__file__, arguments.processes, {**options, "only-slicemamba": True})
    return [Row(**row) for row in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128, help="images per process and step")
    parser.add_argument("--size", type=int, default=224, help="pixels; Swin-T takes 224")
    parser.add_argument("--precision", default="fp16", choices=("fp16", "bf16", "fp32"))
    parser.add_argument("--steps", type=int, default=20, help="steps in a block")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=Path, default=None, help="ImageNet's layout: also with the real loader")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--processes", type=int, default=1, help="also SliceMamba's encoder on so many GPUs")
    parser.add_argument("--only-slicemamba", action="store_true", help="leave timm's network out")
    parser.add_argument("--json", type=Path, default=None, help=argparse.SUPPRESS)
    add_csv(parser)
    arguments = parser.parse_args()
    shared = by_processes(arguments) if arguments.processes > 1 else []
    torch.backends.cudnn.benchmark = True
    recipe = Recipe(batch_size=arguments.batch, precision=arguments.precision, image_size=arguments.size)
    slicing = [(2, 2), (2, 4), (4, 2), (4, 4)] * 5 + [(2, 4), (4, 2)]

    def slicemamba(classes: int = CLASSES) -> nn.Module:
        return SliceMambaClassifier(classes, architecture_kwargs(POOLING, "L"), slicing, recipe.drop_path)

    with processes(arguments.device) as process:
        work: list[tuple[str, Any, Any]] = [
            ("SliceMamba L's encoder", slicemamba, lambda: RandomImages(recipe, process)),
            (
                f"timm {SWIN}",
                lambda: timm.create_model(SWIN, num_classes=CLASSES, drop_path_rate=0.2, img_size=arguments.size),
                lambda: RandomImages(recipe, process),
            ),
        ]
        if arguments.only_slicemamba:
            work = work[:1]
        if arguments.images is not None:
            found = find_images(arguments.images)
            work.append(
                (
                    "SliceMamba L's encoder, real loader",
                    lambda: slicemamba(found.classes),
                    lambda: Loading(found, recipe, process, arguments.workers),
                )
            )
        rows = []
        for name, build, load in work:
            rows.append(measure(name, build(), load(), arguments.blocks, arguments.steps))
            if process.first:
                print(rows[-1], flush=True)
            gc.collect()
            if process.device.type == "cuda":
                torch.cuda.empty_cache()
        if not process.first:
            return
        if arguments.json:
            arguments.json.write_text(json.dumps([asdict(row) for row in rows]))
            return
        size = f"{recipe.batch_size} images of {recipe.image_size}x{recipe.image_size} a process, {recipe.precision}"
        table = Table("work", "device", *FIGURES, title=f"PyTorch {torch.__version__}, {size}")
        for row in rows + shared:
            figures = [
                (row.work, size, name, value, unit)
                for (name, unit), value in zip(FIGURES.items(), row.values, strict=True)
            ]
            table.add_row(row.work, row.device, *(f"{figure[3]:,.1f} {figure[4]}" for figure in figures))
            if arguments.csv is not None:
                results.write_timings(arguments.csv, "pretrain_gpu", row.device, figures)
        console = Console(width=130)
        console.print(table)
        for row in shared:
            (alone,) = (one.images_a_second for one in rows if one.work == row.work)
            console.print(f"{row.work}: {row.images_a_second / alone:.2f} times the images of one", highlight=False)


if __name__ == "__main__":
    main()
