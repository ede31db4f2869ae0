"""GPU memory of training steps, measured beside the estimate of the planner's model.

    python benchmarks/memory_gpu.py [--seconds 150] [--json FILE]      # measures on a GPU, most telling shapes first
    python benchmarks/memory_gpu.py --fit FILE                         # fits the planner's model to it, on any machine
    python benchmarks/memory_gpu.py --check [--caps 8 24] [--sizes L S] [--seconds 150] [--csv FOLDER]

Measuring makes real trainers (final network and supernet) of the planner's networks and takes the peak of one training
step after the optimiser has all its state; "reserved at first" is that of the steps before, in which CUDA graphs are
recorded and libraries try their algorithms. --check lets the planner plan for GPUs of the given GB and trains what it
planned in processes that may not use more. Each training runs in a process of its own. To try either without a GPU:
--device cpu (no memory is read then).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import results
import torch
from memory_fit import fit_file
from memory_training import (
    DATASETS,
    TINY_DATASETS,
    Shape,
    describe,
    in_a_process,
    make_batch,
    make_trainer,
    plan,
    plans_of,
    synchronised,
    use_folders,
    warm_up,
)
from rich.console import Console
from rich.table import Table
from timing import add_csv, device_name

from nnunetv2_slicemamba.planning.memory import MemoryModel, bytes_per_sample, count_sample, count_static, static_bytes

THICK, THICKER = (3.0, 1.0, 1.0), (8.0, 1.0, 1.0)  # pooled once and not at all along the first axis by the embedding
GB = 2**30
STEPS = 3  # that --check trains
Item = TypeVar("Item")
# the most telling first: a run that is out of time leaves out the last
SHAPES = (
    Shape("L", (256, 256), 32, channels=3),
    Shape("S", (64, 64, 64), 2),
    Shape("L", (96, 96, 96), 2, classes=14),
    Shape("L", (256, 256), 8, channels=3, supernet=True),
    Shape("M", (12, 256, 224), 2, spacing=THICKER),
    Shape("S", (512, 512), 12, channels=3),
    Shape("M", (40, 56, 40), 16, classes=3, supernet=True),
    Shape("M", (256, 256), 16, channels=3, hybrid=True),
    Shape("M", (40, 56, 40), 9, classes=3, hybrid=True),
    Shape("L", (512, 512), 12, channels=3),
    Shape("L", (64, 64, 64), 4, supernet=True),
    Shape("L", (256, 256), 8, channels=3, supernet=True, block_graphs=True),
    Shape("L", (512, 512), 32, channels=3),
    Shape("S", (128, 128, 128), 2, classes=14),
    Shape("M", (320, 448), 10),
    Shape("L", (256, 256), 32, channels=3, checkpointing=True),
    Shape("S", (192, 160), 32, classes=4),
    Shape("L", (512, 512), 8, channels=3, supernet=True, hybrid=True),
    Shape("S", (96, 96, 96), 4, hybrid=True),
    Shape("M", (128, 128, 128), 2),
    Shape("L", (128, 384), 6, classes=8),
    Shape("L", (16, 192, 160), 4, spacing=THICK),
    Shape("M", (512, 512), 16, channels=3, supernet=True),
    Shape("L", (128, 128, 128), 2, channels=4, classes=4),
    Shape("S", (256, 256), 2, supernet=True),
    Shape("S", (40, 56, 40), 32, classes=3),
    Shape("M", (256, 256), 32, channels=3),
    Shape("L", (96, 96, 96), 4, checkpointing=True),
    Shape("M", (96, 160, 96), 3, classes=14, supernet=True),
    Shape("S", (20, 256, 224), 6, spacing=THICK, classes=5, supernet=True),
    Shape("L", (512, 512), 4),
    Shape("L", (256, 256), 2),
    Shape("M", (192, 160), 4, classes=20),
    Shape("L", (40, 56, 40), 9, classes=3),
    Shape("S", (768, 512), 8, channels=2),
    Shape("M", (128, 128, 128), 2, checkpointing=True, supernet=True),
    Shape("L", (384, 384), 16, channels=3, supernet=True),
    Shape("M", (16, 192, 160), 8, spacing=THICK),
    Shape("S", (96, 96, 96), 12),
    Shape("L", (10, 320, 256), 2, spacing=THICKER, supernet=True),
    Shape("L", (80, 320, 256), 2, classes=14, spacing=THICK, supernet=True),
    Shape("M", (1024, 768), 2, channels=3),
    Shape("L", (128, 160, 112), 2, channels=4, classes=4, supernet=True),
)
TINY = (
    Shape("S", (48, 40), 2, channels=3),
    Shape("S", (48, 40), 2, supernet=True, checkpointing=True),
    Shape("S", (48, 40), 2, hybrid=True),
    Shape("S", (8, 32, 32), 2, spacing=THICK, classes=3),
)


def measure(shape: Shape, device: torch.device) -> dict[str, Any]:
    """One row: the shape's counts, what the model says and, on a GPU, bytes of the steps' peaks."""
    sample = count_sample(shape.patch, shape.channels, shape.classes, shape.arch_kwargs)
    static = count_static(shape.channels, shape.classes, shape.arch_kwargs, shape.supernet)
    model = MemoryModel()
    row: dict[str, Any] = {"name": shape.name, "shape": vars(shape), "sample": vars(sample), "static": vars(static)}
    row["estimate"] = static.bytes(model) + shape.batch * sample.bytes(model)
    torch.backends.cudnn.benchmark = True  # as nnUNetv2_train
    trainer = make_trainer(plans_of(shape), "measured", describe(shape.channels, shape.classes), shape.supernet, device)
    batch = make_batch(trainer)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what building left, which happens on the CPU in nnU-Net
        torch.cuda.reset_peak_memory_stats(device)
    if shape.supernet and not shape.block_graphs:
        trainer.tried_to_record = True  # its blocks run without graphs
    warm_up(trainer, batch)
    synchronised(device)
    if device.type == "cuda":
        row["reserved_first_steps"] = torch.cuda.max_memory_reserved(device)
        torch.cuda.empty_cache()  # of the passes before recording a graph, for instance
        torch.cuda.reset_peak_memory_stats(device)
    trainer.train_step(batch)
    synchronised(device)
    if device.type == "cuda":
        row["allocated"] = torch.cuda.max_memory_allocated(device)
        row["reserved"] = torch.cuda.max_memory_reserved(device)
        free, total = torch.cuda.mem_get_info(device)
        row["outside"] = total - free - torch.cuda.memory_reserved(device)
        row["device"] = torch.cuda.get_device_name(device)
    return row


def while_time(work: Sequence[Item], seconds: float) -> Iterator[tuple[str, Item, float]]:
    """The items with their number ("2/43") and the seconds left, as long as the slowest one so far would fit."""
    start, slowest = time.monotonic(), 0.0
    for number, item in enumerate(work, 1):
        begun = time.monotonic()
        if begun - start + slowest > seconds:
            print(f"out of time: {len(work) - number + 1} of {len(work)} are left out", flush=True)
            return
        yield f"{number}/{len(work)}", item, max(10.0, seconds - (begun - start))
        slowest = max(slowest, time.monotonic() - begun)


def measure_all(shapes: Sequence[Shape], device: torch.device, seconds: float, file: Path | None) -> list[dict]:
    """Rows of as many shapes as the time allows; the file is written after each."""
    rows: list[dict[str, Any]] = []
    for number, shape, left in while_time(shapes, seconds):
        # one shape that fails must not cost the others
        rows.append({"name": shape.name} | in_a_process(measure, (shape, device), left))
        row = rows[-1]
        figures = f"{row['reserved'] / GB:.2f} GiB reserved" if "reserved" in row else row.get("error", "ran")
        print(f"{number} {shape.name}: {figures}", flush=True)
        if file:
            on = next((row["device"] for row in rows if "device" in row), "cpu")
            file.write_text(json.dumps({"device": on, "torch": torch.__version__, "rows": rows}, indent=1))
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the measured rows as a table, with the errors of the planner's present model."""
    columns = ("allocated GiB", "reserved at first", "reserved GiB", "estimate GiB", "error %")
    table = Table("training", *columns, title="one training step")
    errors = []
    for row in rows:
        if "reserved" not in row:
            said = f"{row['estimate'] / GB:.2f}" if "estimate" in row else ""
            table.add_row(row["name"], row.get("error", ""), "", "", said, "")
            continue
        error = 100 * (row["estimate"] / row["reserved"] - 1)
        if not row["shape"]["block_graphs"]:
            errors.append(error)
        figures = [f"{row[key] / GB:.2f}" for key in ("allocated", "reserved_first_steps", "reserved", "estimate")]
        table.add_row(row["name"], *figures, f"{error:+.1f}")
    Console(width=120).print(table)
    if errors:
        sizes = [abs(e) for e in errors]
        print(f"error of the present model: mean {sum(sizes) / len(sizes):.1f} %, largest {max(sizes):.1f} %")
        outside = [row["outside"] / GB for row in rows if "outside" in row]
        print(f"beside PyTorch's allocator: {min(outside):.2f} to {max(outside):.2f} GiB")


def train(
    plans: dict, configuration: str, description: dict, supernet: bool, device: torch.device, target: float
) -> dict[str, Any]:
    """Warm-up and STEPS steps; PyTorch may reserve what the target leaves beside what the model gives the driver."""
    result: dict[str, Any] = {"ok": True}
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        total = torch.cuda.get_device_properties(device).total_memory
        result["allowed"] = min(max(0.0, target * GB - MemoryModel().context), total)
        torch.cuda.set_per_process_memory_fraction(result["allowed"] / total, device)
    try:
        trainer = make_trainer(plans, configuration, description, supernet, device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        batch = make_batch(trainer)
        warm_up(trainer, batch)
        for _ in range(STEPS):
            trainer.train_step(batch)
        synchronised(device)
    except torch.cuda.OutOfMemoryError as error:
        result |= {"ok": False, "error": str(error).splitlines()[0]}
    if device.type == "cuda":
        result |= {"reserved": torch.cuda.max_memory_reserved(device), "device": device_name(device)}
    return result


def check(caps: list[float], sizes: list[str], device: torch.device, seconds: float) -> list[dict[str, Any]]:
    """Rows of every dataset, cap, size and network that the time allows: planned, then trained."""
    rows, tried = list[dict[str, Any]](), set()
    datasets = DATASETS if device.type == "cuda" else TINY_DATASETS
    work = [(name, size, cap, s) for size in sizes for cap in sorted(caps) for name in datasets for s in (True, False)]
    for number, (name, size, cap, supernet), left in while_time(work, seconds):
        plans, configuration, description = plan(name, datasets, size, cap)
        planned = plans["configurations"][configuration]
        patch, batch, kwargs = (planned["patch_size"], planned["batch_size"], planned["architecture"]["arch_kwargs"])
        if (training := (name, size, supernet, *patch, batch)) in tried:
            print(f"{number} {name}, {size}, {cap:g} GB: the same plan as for less memory", flush=True)
            continue
        tried.add(training)
        counted = (len(description["channel_names"]), len(description["labels"]), kwargs)
        needed = static_bytes(*counted, supernet=supernet) + batch * bytes_per_sample(patch, *counted)
        row = {"work": f"{name}, {size}, {'supernet' if supernet else 'final network'}", "estimate": needed}
        row["size"] = f"plan for {cap:g} GB: {'x'.join(map(str, patch))}, batch {batch}"
        rows.append(row | in_a_process(train, (plans, configuration, description, supernet, device, cap), left))
        print(f"{number} {row['work']}, {row['size']}: {'OK' if rows[-1]['ok'] else rows[-1]['error']}", flush=True)
    return rows


def show_check(rows: list[dict[str, Any]], folder: Path | None) -> None:
    """Prints what --check found and adds it to timings.csv in the folder."""
    table = Table("training", "plan", "estimate", "allowed", "reserved", "result", title=f"{STEPS} steps of each, GiB")
    figures: list[tuple[str, str, str, float | None, str]] = []
    for row in rows:
        gib = {key: row[key] / GB for key in ("estimate", "allowed", "reserved") if key in row}
        shown = [f"{gib[key]:.2f}" if key in gib else "-" for key in ("estimate", "allowed", "reserved")]
        table.add_row(row["work"], row["size"], *shown, "OK" if row["ok"] else row["error"][:40])
        if row["ok"] and "reserved" in gib:
            figures += [(row["work"], row["size"], key, gib[key], "GiB") for key in ("estimate", "reserved")]
    Console(width=140).print(table)
    print(f"{sum(row['ok'] for row in rows)} of {len(rows)} trained")
    if folder is not None and figures:
        results.write_timings(folder, "memory_gpu", next(row["device"] for row in rows if "device" in row), figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a few tiny shapes")
    parser.add_argument("--seconds", type=float, default=150, help="stop after this time with what there is")
    parser.add_argument("--json", type=Path, default=None, help="what --fit takes")
    parser.add_argument("--fit", type=Path, default=None, help="a file that --json wrote")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--caps", type=float, nargs="+", default=[8, 24], help="GB to plan for and to keep to")
    parser.add_argument("--sizes", nargs="+", choices=("S", "M", "L"), default=["L", "S"])
    add_csv(parser)
    arguments = parser.parse_args()
    # a process that asks CUDA itself whether there is a GPU cannot be forked any more
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if arguments.fit:
        fit_file(arguments.fit)
        return
    device = torch.device(arguments.device, 0) if arguments.device == "cuda" else torch.device("cpu")
    with tempfile.TemporaryDirectory() as root:
        use_folders(Path(root))
        if arguments.check:
            show_check(check(arguments.caps, arguments.sizes, device, arguments.seconds), arguments.csv)
        else:
            shapes = SHAPES if device.type == "cuda" else TINY
            show(measure_all(shapes, device, arguments.seconds, arguments.json))


if __name__ == "__main__":
    main()
