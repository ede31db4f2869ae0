"""Fit of the planner's memory model, in bytes per counted thing, to measured trainings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import least_squares

from nnunetv2_slicemamba.planning.memory import MemoryModel, Sample, Static

FITTED = tuple(field.name for field in fields(MemoryModel) if field.name != "context")
# how strongly what the measurements leave open stays at the values that the model has by default
PRIOR = 0.005
PRESENT = MemoryModel()


@dataclass(frozen=True)
class Measured:
    """A training's counts and what PyTorch's allocator reserved for it, in bytes."""

    name: str
    batch: int
    sample: Sample
    static: Static
    reserved: float

    def estimate(self, model: MemoryModel) -> float:
        return self.static.bytes(model) + self.batch * self.sample.bytes(model)


def relative_errors(measured: Sequence[Measured], model: MemoryModel) -> NDArray[np.float64]:
    """(trainings,) estimate / reserved - 1."""
    return np.array([m.estimate(model) / m.reserved - 1 for m in measured])


def fit(measured: Sequence[Measured], start: MemoryModel = PRESENT) -> MemoryModel:
    """The non-negative coefficients with the least squared relative errors; `context` stays as it is in `start`."""
    scale = np.array([getattr(start, name) for name in FITTED])

    def model_of(factors: NDArray[np.float64]) -> MemoryModel:
        return MemoryModel(**dict(zip(FITTED, map(float, factors * scale), strict=True)), context=start.context)

    def residuals(factors: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([relative_errors(measured, model_of(factors)), PRIOR * (factors - 1)])

    found = least_squares(residuals, np.ones(len(FITTED)), bounds=(0, np.inf), x_scale=1.0)
    return model_of(found.x)


def leave_one_out(measured: Sequence[Measured], start: MemoryModel = PRESENT) -> NDArray[np.float64]:
    """(trainings,) relative error of each by the model that is fitted to the others."""
    errors = []
    for i, left_out in enumerate(measured):
        others = [m for j, m in enumerate(measured) if j != i]
        errors.append(relative_errors([left_out], fit(others, start))[0])
    return np.array(errors)


def read(file: Path) -> tuple[list[Measured], float | None]:
    """Measured trainings of a file of memory_gpu.py, and the bytes that the driver took beside them, if known."""
    every: list[dict[str, Any]] = json.loads(file.read_text())["rows"]
    rows = [row for row in every if "reserved" in row and not row["shape"].get("block_graphs")]
    measured = [
        Measured(row["name"], row["shape"]["batch"], Sample(**row["sample"]), Static(**row["static"]), row["reserved"])
        for row in rows
    ]
    outside = [row["outside"] for row in rows if "outside" in row]
    return measured, max(outside) if outside else None


def fit_file(file: Path) -> None:
    """Prints coefficients, errors before and after, and those of left-out trainings."""
    measured, outside = read(file)
    if len(measured) <= len(FITTED):
        raise SystemExit(
            f"error: {file} has {len(measured)} measured trainings, a fit of {len(FITTED)} coefficients needs more: "
            f"measure on a GPU with python benchmarks/memory_gpu.py --json FILE"
        )
    start = PRESENT if outside is None else replace(PRESENT, context=float(outside))
    model = fit(measured, start)
    before, after = relative_errors(measured, PRESENT), relative_errors(measured, model)
    left_out = leave_one_out(measured, start)
    table = Table("training", "reserved GiB", "before %", "fitted %", "left out %", title=str(file))
    for m, *errors in zip(measured, before, after, left_out, strict=True):
        table.add_row(m.name, f"{m.reserved / 2**30:.2f}", *(f"{100 * e:+.1f}" for e in errors))
    for what, reduce in (("mean", np.mean), ("largest", np.max)):
        table.add_row(what, "", *(f"{100 * reduce(np.abs(e)):.1f}" for e in (before, after, left_out)))
    Console(width=120).print(table)
    print("class MemoryModel, in nnunetv2_slicemamba/planning/memory.py:")
    for field in fields(model):
        value = getattr(model, field.name)
        bytes_or_gib = f"{value / 2**30:.3f} * 2**30" if field.name in ("workspace", "context") else f"{value:.2f}"
        print(f"    {field.name}: float = {bytes_or_gib}")
