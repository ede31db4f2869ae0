"""Reader and writer of the measured results, the CSV tables in benchmarks/results.

    python benchmarks/results.py FOLDER      # takes over the tables that a benchmark wrote into FOLDER

runs.csv: a row per training. state: finished, unfinished, failed, or lost, of which nothing but a last line is left.
    dice: nnU-Net's mean over cases, then classes; dice_sd: over the cases. fitness: Dice of its slicing in a supernet.
cases.csv: Dice of every label in every validation case of a run; empty where truth and prediction both lack the label.
epochs.csv: nnU-Net's pseudo Dice and losses of every epoch of a run.
timings.csv: a row per measured time, rate or memory. date and commit: of the measurement, or of the page that told it.
paper.csv: a row per training of paper.py and set of test images, in percent. chosen: of the epoch with the least loss
    on these images, low: the latest one with the lowest rate. slicing, of a supernet: what its search chose.
arms.csv: a row per slicing that search_wide.py trains, and the part of it that it is trained for. step_ms: of a
    training step, added up; limit_ms: of the search with a budget; fixed_ms, least_ms: step_ms of the fixed and of the
    cheapest slicing; step_error: largest share by which a sum differs from a whole network's step.
searches.csv: a row per measurement of search_worth.py; gains are Dice points over a random path, above_random the
    number of searches whose path was better than a random one on the cases that did not choose it.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
Row = dict[str, str]
COLUMNS: dict[str, tuple[str, ...]] = {
    "runs": (
        *("id", "data", "fold", "configuration", "candidate", "repeat", "state"),
        *("dice", "dice_sd", "dice_per_label", "cases", "epochs", "iterations", "epochs_done"),
        *("planner", "plans", "plans_changes", "trainer", "trainer_settings", "slicing", "start_from", "fitness"),
        *("network", "parameters", "compiled", "batch", "patch"),
        *("gpu", "gpus", "cores", "augmenters", "places", "beside"),
        *("epoch_seconds", "seconds", "peak_reserved_mib", "peak_allocated_mib"),
        *("ended", "commit", "versions", "prediction", "note"),
    ),
    "cases": ("run", "case", "label", "dice"),
    "epochs": ("run", "epoch", "pseudo_dice", "train_loss", "val_loss"),
    "timings": (
        *("benchmark", "work", "size", "device", "figure", "repeat", "value", "unit", "date", "commit", "note"),
    ),
    "paper": (
        *("id", "data", "arm", "repeat", "test", "state", "protocol", "epochs", "epochs_done"),
        *("miou", "dsc", "acc", "spe", "sen", "chosen_epoch"),
        *("low_epoch", "low_dsc"),
        *("chosen_miou", "chosen_dsc", "chosen_acc", "chosen_spe", "chosen_sen"),
        *("slicing", "fitness", "parameters", "train", "cases", "gpu", "cores", "beside"),
        *("epoch_seconds", "peak_reserved_mib", "ended", "commit", "note"),
    ),
    "arms": (
        *("data", "part", "arm", "slicing", "fitness", "step_ms", "limit_ms", "fixed_ms", "least_ms", "step_error"),
        *("supernet", "cases", "device", "date", "commit"),
    ),
    "searches": (
        *("data", "fold", "supernet", "path", "searches", "cases", "gain_choosing", "gain_choosing_sd"),
        *("gain_others", "gain_others_sd", "above_random", "date", "commit"),
    ),
}
# new rows replace the old ones that agree with one of them in these columns
KEYS: dict[str, tuple[str, ...]] = {
    "runs": ("id",),
    "cases": ("run",),
    "epochs": ("run",),
    "timings": ("benchmark", "work", "size", "device", "figure", "date", "commit", "repeat"),
    "paper": ("id",),
    "arms": ("data", "arm"),
    "searches": ("data", "fold", "supernet", "path", "date", "commit"),
}


def read(table: str, folder: Path = RESULTS) -> list[Row]:
    """All rows of a table, every value as text; none where the folder lacks the table.

    Raises ValueError for a file with other columns.
    """
    file = folder / f"{table}.csv"
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        if tuple(rows.fieldnames or ()) != COLUMNS[table]:
            raise ValueError(f"{file} has the columns {rows.fieldnames}, {table}.csv must have {COLUMNS[table]}")
        return list(rows)


def write(table: str, new: Iterable[Mapping[str, Any]], folder: Path = RESULTS) -> None:
    """Adds rows to a table in place of those with the same key (KEYS); the file is replaced as a whole.

    None, NaN and what a row lacks become empty cells. Raises ValueError for a column that the table lacks.
    """
    rows = [{key: _text(value) for key, value in row.items()} for row in new]
    unknown = {key for row in rows for key in row} - set(COLUMNS[table])
    if unknown:
        raise ValueError(f"{table}.csv has no columns {sorted(unknown)}; its columns are {COLUMNS[table]}")
    replaced = {_key(table, row) for row in rows}
    kept = [row for row in read(table, folder) if _key(table, row) not in replaced]
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{table}.csv.part"
    with temporary.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS[table], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])
    os.replace(temporary, folder / f"{table}.csv")


def write_timings(
    folder: Path, benchmark: str, device: str, figures: Sequence[tuple[str, str, str, float | None, str]]
) -> None:
    """Adds a benchmark's figures to timings.csv in `folder`. figures: (work, size, figure, value, unit) each.

    What was measured before on the same day and commit stays, with a lower number in `repeat`.
    """
    names, day, rows = ("work", "size", "figure", "value", "unit"), time.strftime("%Y-%m-%d"), []
    known = [row for row in read("timings", folder) if row["benchmark"] == benchmark]
    for figure in figures:
        row = {"benchmark": benchmark, "device": device, "date": day, "commit": commit()}
        row |= dict(zip(names, map(_text, figure), strict=True))
        same = [key for key in KEYS["timings"] if key != "repeat"]
        row["repeat"] = str(1 + sum(all(old[key] == row[key] for key in same) for old in known))
        if row["value"]:
            rows.append(row)
    write("timings", rows, folder)


def number(value: str) -> float | None:
    """A cell as a number; None where it is empty."""
    return float(value) if value else None


def commit() -> str:
    """Short hash of the checked-out commit; empty where this is no clone."""
    command = ["git", "-C", str(RESULTS.parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _key(table: str, row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row.get(column, "") for column in KEYS[table])


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN: undefined
        return ""
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


if __name__ == "__main__":
    source = Path(sys.argv[1])
    for name in COLUMNS:
        found = read(name, source)
        if found:
            write(name, found)
            print(f"{name}.csv: {len(found)} rows")
