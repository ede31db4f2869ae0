"""Worth of a search's choice on cases that did not make it.

    python benchmarks/search_worth.py -d 501 -c 2d -f 0 -p PLANS -tr SliceMambaSupernetTrainer [--device cuda]
        [--population 50 --generations 20] [--splits 4] [--keep FILE] [--json FILE] [--csv FOLDER]

Takes a fold's trained supernet and all cases that it has not seen: the fold's validation cases and, if it was trained
with one, its holdout. Several times they are drawn into two halves. The whole search runs on one half, and the path
that it chose is looked at on the other; then the other way round. What it gained over the mean of the search's first,
random generation is shown on the cases that chose, which is what a report on them would say, and on the others, which
is what it is worth.

Every path that a search asks for is evaluated once, on all cases. --keep FILE takes them down as they are made; the
same command continues. --csv adds the gains to searches.csv in FOLDER.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import results
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from timing import add_csv

from nnunetv2_slicemamba.common.json_lines import read_json_lines
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.search import Architecture, Fingerprint, SearchSettings, open_ledger, run_search
from nnunetv2_slicemamba.search.evaluation.path_evaluation import PathCounts
from nnunetv2_slicemamba.search.fitness import mean_foreground_dice
from nnunetv2_slicemamba.search.records import Done, Evaluation, Task, tasks_of
from nnunetv2_slicemamba.search.run import PreparedSearch, prepare_search
from nnunetv2_slicemamba.search.workers.base import BatchedWorkers, More, no_more

POINTS = 100  # Dice points in a Dice of 1


class CountsPaths(Protocol):
    """The part of PathEvaluation that is used here."""

    def count_paths(self, tasks: Sequence[Task], go_on: Callable[[], bool]) -> Iterator[PathCounts]:
        """The voxels of each path, as they are finished."""


class Counts:
    """Voxels of every path evaluated so far: (cases, classes, 3), see fitness.dice_per_case.

    file: where they are kept, None for nowhere. of: the supernet and the cases; others' in the file are not seen.
    """

    def __init__(self, evaluation: Callable[[], CountsPaths], file: Path | None, of: str) -> None:
        self._evaluation, self._file, self._of = evaluation, file, of
        self.known: dict[Architecture, NDArray[np.int64]] = {}
        if file is not None and file.is_file():
            for entry in read_json_lines(file, {"of": str, "path": [int], "counts": list}):
                if entry["of"] == of:
                    self.known[tuple(entry["path"])] = np.array(entry["counts"], dtype=np.int64)

    def of(self, architectures: Sequence[Architecture], go_on: Callable[[], bool]) -> Iterator[tuple[int, float]]:
        """(position, seconds) of the architectures as their counts are known."""
        missing = []
        for position, architecture in enumerate(architectures):
            if architecture in self.known:
                yield position, 0.0
            else:
                missing.append(position)
        if not missing:
            return
        for counted in self._evaluation().count_paths(tasks_of(architectures[i] for i in missing), go_on):
            position = missing[counted.task.index]
            self.known[architectures[position]] = counted.counts
            if self._file is not None:
                entry = {"of": self._of, "path": architectures[position], "counts": counted.counts.tolist()}
                with self._file.open("a", encoding="utf-8") as lines:
                    lines.write("\n" + json.dumps(entry))  # first the break: the line before may be half a line
            yield position, counted.seconds

    def dice(self, architecture: Architecture, cases: Sequence[int]) -> float:
        """Mean foreground Dice of a path that is known, over some of the cases."""
        return mean_foreground_dice(self.known[architecture][list(cases)]).fitness


@dataclass(frozen=True)
class Half:
    """The evaluator of a search that sees some of the cases."""

    counts: Counts
    cases: Sequence[int]

    def evaluate(
        self, tasks: Sequence[Task], go_on: Callable[[], bool] = lambda: True, more: More = no_more
    ) -> Iterator[Done]:
        for position, seconds in self.counts.of([task.architecture for task in tasks], go_on):
            task = tasks[position]
            yield Done(task, Evaluation(self.counts.dice(task.architecture, self.cases)), seconds)


@dataclass(frozen=True)
class Outcome:
    """One search. Dice on the cases that chose, and on the others: of the random generation's mean and its best path,
    and of the path that the whole search chose. agreement: Spearman's rho of the random paths' Dice on both."""

    split: int
    paths: int
    random_choosing: float
    random_others: float
    best_random_choosing: float
    best_random_others: float
    chosen_choosing: float
    chosen_others: float
    agreement: float

    def gain(self, what: str, where: str) -> float:
        """Dice points of "best_random" or "chosen" over a random path, on the "choosing" cases or the "others"."""
        return POINTS * (getattr(self, f"{what}_{where}") - getattr(self, f"random_{where}"))


def halves(n_cases: int, split: int) -> tuple[list[int], list[int]]:
    """Two halves of the cases, drawn with the split's number as seed."""
    order = np.random.default_rng(split).permutation(n_cases).tolist()
    return sorted(order[: n_cases // 2]), sorted(order[n_cases // 2 :])


def search_on(
    counts: Counts, choosing: Sequence[int], others: Sequence[int], split: int, fingerprint: Fingerprint
) -> tuple[Outcome, list[Architecture]]:
    """Searches with some cases and looks at the others; returns the random generation's paths, too."""
    settings = fingerprint.settings
    with tempfile.TemporaryDirectory() as folder, open_ledger(Path(folder) / "study.db", fingerprint) as ledger:
        result = run_search(BatchedWorkers(Half(counts, choosing)), settings, ledger)
    first = [record for record in result.records if record.generation == 0]
    best = max(first, key=lambda record: record.fitness)
    elsewhere = [counts.dice(record.architecture, others) for record in first]
    outcome = Outcome(
        split=split,
        paths=len(result.records),
        random_choosing=statistics.fmean(record.fitness for record in first),
        random_others=statistics.fmean(elsewhere),
        best_random_choosing=best.fitness,
        best_random_others=counts.dice(best.architecture, others),
        chosen_choosing=result.best.fitness,
        chosen_others=counts.dice(result.best.architecture, others),
        agreement=float(spearmanr([record.fitness for record in first], elsewhere).statistic),
    )
    return outcome, [record.architecture for record in first]


def study(
    counts: Counts, n_cases: int, splits: int, fingerprint: Fingerprint, console: Console
) -> tuple[list[Outcome], list[Architecture]]:
    """Two searches per split, and the random generation that they share, having the same seed."""
    outcomes: list[Outcome] = []
    first: list[Architecture] = []
    for split in range(splits):
        one, other = halves(n_cases, split)
        for choosing, others in ((one, other), (other, one)):
            got, first = search_on(counts, choosing, others, split, fingerprint)
            outcomes.append(got)
            console.print(
                f"split {split}: {got.paths} paths on {len(choosing)} cases; the chosen one gains "
                f"{got.gain('chosen', 'choosing'):+.2f} there, {got.gain('chosen', 'others'):+.2f} on the other "
                f"{len(others)}; {len(counts.known)} paths evaluated so far",
                highlight=False,
                soft_wrap=True,
            )
    return outcomes, first


def gains(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Rows of searches.csv: of the path chosen, and of the best random one where it is another."""
    paths = {"chosen": f"chosen by a search from {max(o.paths for o in outcomes):,}"}
    if any(o.chosen_choosing != o.best_random_choosing for o in outcomes):  # else there was nothing but that generation
        paths = {"best_random": "the best of the random generation", **paths}
    rows = []
    for what, path in paths.items():
        row: dict[str, Any] = {"path": path, "searches": len(outcomes)}
        for where in ("choosing", "others"):
            values = [outcome.gain(what, where) for outcome in outcomes]
            sd = statistics.stdev(values) if len(values) > 1 else math.nan
            row |= {f"gain_{where}": statistics.fmean(values), f"gain_{where}_sd": sd}
        rows.append(row | {"above_random": sum(outcome.gain(what, "others") > 0 for outcome in outcomes)})
    return rows


def tabulate(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """The rows of `gains` as a table on the terminal."""
    table = Table("path", "gain on the cases that chose", "gain on the others", "above random there", title=title)
    for row in rows:
        shown = [f"{row[f'gain_{where}']:+.2f} ± {row[f'gain_{where}_sd']:.2f}" for where in ("choosing", "others")]
        table.add_row(row["path"], *shown, f"{row['above_random']} of {row['searches']}")
    return table


def unseen(prepared: PreparedSearch) -> list[str]:
    """Names of the cases that the supernet was not trained on: of the holdout, if there is one, and of validation.

    Of fold "all", whose validation cases are the training's, only the holdout.
    """
    trainer = prepared.fold.nnunet_trainer
    (trained, judged), (_, validation) = trainer.do_split(), trainer.full_split()
    own = judged if trainer.holdout is not None else []
    return sorted({*own, *validation} - {*trained})  # as nnU-Net orders what it loads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True, help="dataset, by ID or name")
    parser.add_argument("-c", required=True, help="configuration")
    parser.add_argument("-f", default="0", help="fold")
    parser.add_argument("-p", default="nnUNetSliceMambaPlans", help="plans")
    parser.add_argument("-tr", default="SliceMambaSupernetTrainer", help="the supernet's trainer")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--population", type=int, default=50)
    parser.add_argument("--generations", type=int, default=20)
    parser.add_argument("--splits", type=int, default=4, help="times that the cases are halved")
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument("--keep", type=Path, default=None, help="file for what was evaluated, to continue")
    parser.add_argument("--json", type=Path, default=None)
    add_csv(parser)
    given = parser.parse_args()
    console = Console(width=120)
    selection = select(given.d, given.c, given.f, given.p)
    settings = SearchSettings(given.population, given.generations, seed=given.seed)
    prepared = prepare_search(SupernetFolder(selection, given.tr), settings, torch.device(given.device))
    prepared.fold.case_names = names = unseen(prepared)
    if len(names) < 4:
        raise SystemExit(f"the supernet has {len(names)} unseen cases, two halves need at least 4")

    def evaluation() -> CountsPaths:
        prepared.fold.load()
        return prepared.fold.evaluation

    identity = hashlib.sha256(json.dumps([prepared.fingerprint.supernet_checkpoint_sha256, names]).encode()).hexdigest()
    counts = Counts(evaluation, given.keep, identity)
    outcomes, first = study(counts, len(names), given.splits, prepared.fingerprint, console)
    title = f"{selection.dataset}, fold {given.f}, {given.tr}: {len(outcomes)} searches, halves of {len(names)} cases"
    rows = gains(outcomes)
    console.print(tabulate(rows, f"{title}; Dice points, mean ± SD over the searches"))
    if given.csv:
        of = {"data": selection.dataset, "fold": given.f, "supernet": f"{given.tr}, {given.p}", "cases": len(names)}
        of |= {"date": time.strftime("%Y-%m-%d"), "commit": results.commit()}
        results.write("searches", [{**row, **of} for row in rows], given.csv)
    on_all = [POINTS * counts.dice(path, range(len(names))) for path in first]
    console.print(
        f"Random paths have a Dice of {statistics.fmean(on_all):.2f} ± {statistics.pstdev(on_all):.2f} on all cases. "
        f"Their order on one half agrees with that on the other by a Spearman's rho of "
        f"{statistics.fmean(o.agreement for o in outcomes):.2f}.",
        highlight=False,
        soft_wrap=True,
    )
    if given.json:
        content = {"trainer": given.tr, "cases": names, "settings": settings.as_dict(), "random_dice": on_all}
        given.json.write_text(json.dumps({**content, "searches": [asdict(o) for o in outcomes]}, indent=1))


if __name__ == "__main__":
    main()
