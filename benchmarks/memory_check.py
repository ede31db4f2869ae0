"""Do plans for a GPU of a given size train on one? Plans of the real planner, in processes that may use no more."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from memory_process import in_a_process
from memory_training import DATASET, describe, make_batch, make_trainer, synchronised, warm_up
from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.planning.memory import MemoryModel, bytes_per_sample, static_bytes
from nnunetv2_slicemamba.planning.planner import PLANNERS

GB = 2**30
STEPS = 3
# name -> configuration, channels, classes, median shape, spacing, cases
DATASETS: dict[str, tuple[str, int, int, tuple[int, ...], tuple[float, ...], int]] = {
    "skin 2D 512x512": ("2d", 3, 2, (1, 512, 512), (999.0, 1.0, 1.0), 2000),
    "hippocampus 3D": ("3d_fullres", 1, 3, (36, 50, 35), (1.0, 1.0, 1.0), 260),
    "CT 3D": ("3d_fullres", 1, 14, (140, 480, 480), (3.0, 0.76, 0.76), 500),
}
TINY = {"tiny 2D": ("2d", 3, 2, (1, 40, 48), (999.0, 1.0, 1.0), 20)}


def plan(name: str, datasets: dict[str, Any], size: str, target: float) -> tuple[dict, str, dict]:
    """(plans, configuration, dataset.json) of the planner for a fingerprint that tells of such images."""
    configuration, channels, classes, shape, spacing, cases = datasets[name]
    description = describe(channels, classes) | {"numTraining": cases}
    intensities = dict.fromkeys(("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0)
    fingerprint = {
        "shapes_after_crop": [list(shape)],
        "spacings": [list(spacing)],
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {str(i): intensities for i in range(channels)},
    }
    raw, preprocessed = (Path(os.environ[f"nnUNet_{part}"]) / DATASET for part in ("raw", "preprocessed"))
    for folder, file, content in (
        (raw, "dataset.json", description),
        (preprocessed, "dataset_fingerprint.json", fingerprint),
    ):
        folder.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plans = PLANNERS[size](DATASET, target).plan_experiment()
    for warning in caught:
        if "more than the" in str(warning.message):
            print(f"{name}, {size}, {target:g} GB: {warning.message}", flush=True)
    return json.loads(json.dumps(plans)), configuration, description


def train(
    plans: dict, configuration: str, description: dict, supernet: bool, device: torch.device, target: float
) -> dict[str, Any]:
    """Warm-up and three steps; PyTorch may reserve what the target leaves beside what the model gives the driver."""
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
        result["warm_up_steps"] = warm_up(trainer, batch)
        for _ in range(STEPS):
            trainer.train_step(batch)
        synchronised(device)
    except torch.cuda.OutOfMemoryError as error:
        result |= {"ok": False, "error": str(error).splitlines()[0]}
    if device.type == "cuda":
        result["reserved"] = torch.cuda.max_memory_reserved(device)
        result["retries"] = torch.cuda.memory_stats(device).get("num_alloc_retries", 0)
    return result


def check(caps: list[float], sizes: list[str], device: torch.device, seconds: float, file: Path | None) -> None:
    """Plans and trains every dataset, cap, size and network that the time allows, and shows how it went."""
    start, slowest, rows, tried = time.monotonic(), 0.0, [], set()
    datasets = DATASETS if device.type == "cuda" else TINY
    work = [
        (name, size, cap, supernet)
        for size in sizes
        for cap in sorted(caps)
        for name in datasets
        for supernet in (True, False)
    ]
    for number, (name, size, cap, supernet) in enumerate(work, 1):
        begun = time.monotonic()
        if begun - start + slowest > seconds:
            print(f"out of time: {len(work) - number + 1} trainings are left out", flush=True)
            break
        plans, configuration, description = plan(name, datasets, size, cap)
        planned = plans["configurations"][configuration]
        training = (name, size, supernet, *planned["patch_size"], planned["batch_size"])
        if training in tried:
            print(f"{number}/{len(work)} {name}, {size}, {cap:g} GB: the same plan as for less memory", flush=True)
            continue
        tried.add(training)
        counted = (
            len(description["channel_names"]),
            len(description["labels"]),
            planned["architecture"]["arch_kwargs"],
        )
        needed = static_bytes(*counted, supernet=supernet)
        needed += planned["batch_size"] * bytes_per_sample(planned["patch_size"], *counted)
        row = {"dataset": name, "size": size, "target": cap, "supernet": supernet, "estimate": needed}
        row |= {"patch_size": planned["patch_size"], "batch_size": planned["batch_size"]}
        limit = max(10.0, seconds - (time.monotonic() - start))
        rows.append(row | in_a_process(train, (plans, configuration, description, supernet, device, cap), limit))
        slowest = max(slowest, time.monotonic() - begun) if number > 1 else 0.0
        if file:
            file.write_text(json.dumps(rows, indent=1))
        print(f"{number}/{len(work)} {verdict(rows[-1])}, {time.monotonic() - begun:.1f} s", flush=True)
    columns = ("dataset", "size", "network", "patch", "batch", "target GB", "estimate", "allowed", "reserved", "result")
    table = Table(*columns, title=f"{STEPS} training steps of what was planned")
    for row in rows:
        patch = "x".join(map(str, row["patch_size"]))
        network = "supernet" if row["supernet"] else "final"
        figures = (str(row["batch_size"]), f"{row['target']:g}", f"{row['estimate'] / GB:.2f}")
        figures += tuple(f"{row[key] / GB:.2f}" if key in row else "-" for key in ("allowed", "reserved"))
        table.add_row(row["dataset"], row["size"], network, patch, *figures, "OK" if row["ok"] else row["error"][:40])
    Console(width=140).print(table)
    print(f"{sum(row['ok'] for row in rows)} of {len(rows)} trained")


def verdict(row: dict[str, Any]) -> str:
    network = "supernet" if row["supernet"] else "final network"
    outcome = "OK" if row["ok"] else row["error"]
    return f"{row['dataset']}, {row['size']}, {network}, {row['target']:g} GB: {outcome}"
