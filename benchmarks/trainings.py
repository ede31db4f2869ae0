"""Trainings of runs.csv with the Dice of their cases, as the pages' tables compare them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import results
from numpy.typing import NDArray
from results import Row, number

from nnunetv2_slicemamba.comparison.statistics import Difference, paired_difference

# the candidate that others are compared with: nnU-Net's default network, its augmentation on the CPU or on the GPU
REFERENCES = ("stock", "stock-gpu")
NOT_RUN = "Not run yet."
Cells = Sequence[str]
Table = NDArray[np.float64]  # (trainings, labels, cases), NaN where undefined
# the trainings of two candidates on each fold
Pairs = Iterable[tuple[Sequence[Row], Sequence[Row]]]


class Trainings:
    """The trainings of runs.csv, with the Dice of their cases."""

    def __init__(self, folder: Path = results.RESULTS) -> None:
        self.runs = results.read("runs", folder)
        self._dice: dict[str, dict[tuple[str, str], float]] = {}
        # several tables show the same pairs
        self._differences: dict[tuple[tuple[str, ...], ...], Difference | None] = {}
        for row in results.read("cases", folder):
            value = number(row["dice"])
            self._dice.setdefault(row["run"], {})[row["label"], row["case"]] = math.nan if value is None else value

    def on_folds(self, first: bool) -> Trainings:
        """Those on fold 0, on which networks were chosen, or those on all others."""
        some = copy.copy(self)
        some.runs = [row for row in self.runs if (row["fold"] == "0") == first]
        return some

    def groups(self, compared: bool = True) -> dict[tuple[str, str], list[Row]]:
        """Runs of the same data and the same number of iterations, those with the reference among them or the others.

        Keys: (data, budget as "20 epochs of 250 iterations").
        """
        found: dict[tuple[str, str], list[Row]] = {}
        for row in self.runs:
            key = (row["data"], f"{row['epochs']} epochs of {row['iterations']} iterations")
            found.setdefault(key, []).append(row)
        return {key: rows for key, rows in found.items() if compared == (reference_of(rows) is not None)}

    def table(self, runs: Sequence[Row]) -> Table | None:
        """Dice of those runs whose cases are known; None where that is none of them."""
        known = [self._dice[row["id"]] for row in runs if row["id"] in self._dice]
        if not known:
            return None
        labels, cases = (sorted({key[i] for key in known[0]}) for i in (0, 1))
        found = np.array([[[dice[label, case] for case in cases] for label in labels] for dice in known])
        # all statistics are means, which can be taken beforehand where all Dice are defined
        return found if np.isnan(found).any() else found.mean(axis=(0, 1))[None, None]

    def known(self, runs: Sequence[Row]) -> int:
        """Number of runs whose cases are known."""
        return sum(row["id"] in self._dice for row in runs)

    def paired(self, pairs: Pairs) -> tuple[Table, Table] | None:
        """Dice of two candidates in the same cases; None where a fold has no known cases for one of them.

        Of several folds the cases are put side by side, each with the mean over its trainings.
        """
        tables = [(self.table(one), self.table(other)) for one, other in pairs]
        both = [(one, other) for one, other in tables if one is not None and other is not None]
        if not both or len(both) < len(tables):
            return None
        if len(both) == 1:
            return both[0]
        one, other = (np.concatenate([pair[i].mean(axis=0) for pair in both], axis=-1)[None] for i in (0, 1))
        return one, other

    def difference(self, pairs: Pairs) -> Difference | None:
        """Difference between two candidates with its 95 % bootstrap interval over the cases; None as in `paired`."""
        pairs = list(pairs)
        key = tuple(tuple(row["id"] for row in runs) for pair in pairs for runs in pair)
        if key not in self._differences:
            found = self.paired(pairs)
            self._differences[key] = None if found is None else paired_difference(*found)
        return self._differences[key]

    def interval(self, pairs: Pairs) -> str:
        """The interval of `difference` as text, "-" without one."""
        found = self.difference(pairs)
        return "-" if found is None or math.isnan(found.low) else f"{points(found.low)} to {points(found.high)}"


def reference_of(runs: Iterable[Row]) -> str | None:
    """The candidate among the finished runs that the others are compared with; None without one."""
    names = {row["candidate"] for row in runs if row["state"] == "finished"}
    return next((name for name in REFERENCES if name in names), None)


def finished(runs: Iterable[Row]) -> dict[str, dict[int, list[Row]]]:
    """Finished runs with a Dice, by candidate and fold."""
    found: dict[str, dict[int, list[Row]]] = {}
    for row in runs:
        if row["state"] == "finished" and row["dice"]:
            found.setdefault(row["candidate"], {}).setdefault(int(row["fold"]), []).append(row)
    return found


def mean_dice(runs: Sequence[Row]) -> float:
    return fmean(float(row["dice"]) for row in runs)


def points(difference: float) -> str:
    """A difference of Dice in points, which are hundredths."""
    return f"{100 * difference:+.2f}"


def percent(dice: float) -> str:
    return f"{100 * dice:.2f}"


def markdown(head: Cells, rows: Sequence[Cells]) -> str:
    if not rows:
        return NOT_RUN
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
