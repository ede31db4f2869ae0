"""One data set's wide supernet and its three searches, and the slicings to train that come of them, for search_wide.py.

    python benchmarks/search_wide_job.py ORDER.json

ORDER.json has the keys of accuracy_training.py's, and: data, the name in the tables; out, the folder of the tables;
holdout, part of the training cases that the searches choose on; share, of the fixed network's training step, which is
the budget; population and generations of the searches; front and random, how many slicings are taken of the front and
drawn at the budget. All steps are this package's own commands.

What was begun goes on where the same folders are there. Rows are written when the last search has ended.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import accuracy_training
import results
from accuracy_data import call, prepare
from accuracy_training import Notes

from nnunetv2_slicemamba.comparison.arms import parse_arms, resolve_arms
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.search.evaluation.step_costs import StepCosts, read_step_costs
from nnunetv2_slicemamba.search.ledger.ledger import NoSearchError, read_ledger
from nnunetv2_slicemamba.search.proposals.ranking import non_dominated_fronts
from nnunetv2_slicemamba.search.records import Record, best_record
from nnunetv2_slicemamba.slicing.candidates import Slicing, candidate_text
from nnunetv2_slicemamba.slicing.file import read_slicing_file
from nnunetv2_slicemamba.slicing.fixed import fixed_slicing

TRAINER = "SliceMambaSupernetTrainer"
DRAWS = 20  # at the budget, of which the first different ones are trained
FRONT, BUDGET, DICE = "front", "budget", "dice"  # the searches, and the parts of the benchmark


def spread_over_front(records: Sequence[Record], number: int) -> list[Record]:
    """`number` evaluations of the Pareto front and, where it has fewer, of the fronts behind it, evenly by rising cost.

    All where there are fewer. The cheapest and the dearest are always among them.
    """
    taken: list[Record] = []
    for front in non_dominated_fronts([record for record in records if not math.isnan(record.fitness)]):
        if len(taken) >= number:
            break
        taken += front
    taken.sort(key=lambda record: (record.cost, record.fitness))
    if len(taken) <= number:
        return taken
    return [taken[round(i * (len(taken) - 1) / (number - 1))] for i in range(number)]


def limit_of(costs: StepCosts, fixed: float, share: float) -> float:
    """Milliseconds of the budget: the share of the fixed network's step, which is `fixed` as a sum.

    Where even the cheapest architecture takes more, it is the cheapest one's step and the share of what `fixed` is
    above it. Rounded up to a thousandth.
    """
    wanted = share * costs.fixed
    limit = wanted if wanted >= costs.cheapest else costs.cheapest + share * max(fixed - costs.cheapest, 0)
    return math.ceil(1000 * limit) / 1000


class Job:
    """The supernet's folder of an order, and the searches in it."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        names = (order["dataset"], order["configuration"], str(order["fold"]), order["plans"])
        self.folder = SupernetFolder(select(*names).with_blocks(), TRAINER)
        flags = zip(("-d", "-c", "-f", "-p", "-tr"), (*names, TRAINER), strict=True)
        self.flags = [text for pair in flags for text in pair]

    def train(self) -> None:
        """Sets the holdout aside and trains the supernet, or goes on with it."""
        if not self.folder.holdout_file.is_file():
            call(["slicemamba", "holdout", *self.flags, "--fraction", str(self.order["holdout"])])
        if not self.folder.summary.is_file():
            accuracy_training.main(self.order)

    def records(self, name: str) -> list[Record]:
        """The evaluations of a search; none before it."""
        try:
            return read_ledger(self.folder.study, name)[1]
        except NoSearchError:
            return []

    def search(self, name: str, *more: str) -> None:
        """Runs a search, or goes on with it; the time of a whole one goes into timings.csv."""
        is_new, began = not self.records(name), time.perf_counter()
        size = ("--population", str(self.order["population"]), "--generations", str(self.order["generations"]))
        command = ["search", *self.flags, "--study", name, "-device", self.order["device"], *size, *more]
        print("$ slicemamba", *command, flush=True)
        code = subprocess.run([sys.executable, "-m", "nnunetv2_slicemamba", *command]).returncode
        if code:
            sys.exit(code)  # the command's own message stays the log's last
        seconds, records = time.perf_counter() - began, self.records(name)
        if is_new:
            work, size = f"wide, for {name}", f"{self.cases} cases of {self.order['data']}"
            n = f"{len(records):,} architectures"
            alone = sum(record.seconds for record in records)
            figures = [(work, size, f"command, {n}", seconds, "s"), (work, size, f"evaluations, {n}", alone, "s")]
            results.write_timings(Path(self.order["out"]), "search_wide", self.device, figures)

    @property
    def costs(self) -> StepCosts:
        """The step costs, which the first search measures."""
        found = read_step_costs(self.folder)
        assert found is not None
        return found

    @property
    def fixed(self) -> float:
        """Milliseconds of the fixed slicing's step, added up."""
        selection = self.folder.selection
        slicing = fixed_slicing(selection.n_blocks, selection.n_dims)
        return self.costs.measure(tuple(map(selection.candidates.index, slicing)))

    @property
    def limit(self) -> float:
        """Milliseconds of the budget."""
        return limit_of(self.costs, self.fixed, self.order["share"])

    @property
    def cases(self) -> int:
        """Number of cases that the searches choose on."""
        return len(json.loads(self.folder.holdout_file.read_text())["cases"])

    @property
    def device(self) -> str:
        """Short name of the device, as the notes of the training have it."""
        columns = json.loads(Path(self.order["notes"]).read_text())["columns"]
        return str(columns["gpu"])

    def arms(self) -> list[tuple[str, str, Slicing]]:
        """(part, arm, slicing) of everything to train, once all searches have ended, that with a budget as the last."""
        selection = self.folder.selection
        candidates = selection.candidates

        def path(record: Record) -> Slicing:
            return tuple(candidates[index] for index in record.architecture)

        best = best_record(self.records(DICE))
        assert best is not None
        fixed = "x".join(map(str, fixed_slicing(1, selection.n_dims)[0]))
        found = [
            (BUDGET, "searched", read_slicing_file(self.folder.slicing_file).slicing),
            (BUDGET, "fixed", resolve_arms(parse_arms(fixed), selection, TRAINER)[fixed].slicing),
        ]
        drawn = resolve_arms(parse_arms(f"random-at-budget:{DRAWS}"), selection, TRAINER)
        different: dict[Slicing, str] = {}
        for arm, content in drawn.items():
            different.setdefault(content.slicing, arm.replace("_", "-"))
        found += [(BUDGET, arm, one) for one, arm in list(different.items())[: self.order["random"]]]
        controls = resolve_arms(parse_arms("no-scan,cheapest"), selection, TRAINER)
        found += [(BUDGET, arm, content.slicing) for arm, content in controls.items()]
        found.append((BUDGET, "dice-alone", path(best)))
        front = spread_over_front(self.records(FRONT), self.order["front"])
        return [*found, *((FRONT, f"front-{i:02d}", path(record)) for i, record in enumerate(front, 1))]

    def write(self) -> None:
        """The rows of arms.csv."""
        costs, candidates = self.costs, self.folder.selection.candidates
        known = {r.architecture: r.fitness for name in (FRONT, BUDGET, DICE) for r in self.records(name)}
        whole = {
            **{"data": self.order["data"], "supernet": Path(self.order["notes"]).parent.name, "cases": self.cases},
            **{"limit_ms": self.limit, "fixed_ms": self.fixed, "least_ms": costs.cheapest},
            **{"step_error": costs.error, "device": self.device},
            **{"date": time.strftime("%Y-%m-%d"), "commit": results.commit()},
        }
        rows = []
        for part, arm, slicing in self.arms():
            architecture = tuple(map(candidates.index, slicing))
            own = {"fitness": known.get(architecture), "step_ms": costs.measure(architecture)}
            words = " ".join(map(candidate_text, slicing))
            rows.append({"part": part, "arm": arm, "slicing": words, **own, **whole})
        results.write("arms", rows, Path(self.order["out"]))


def main(order: dict[str, Any]) -> None:
    prepare(order)
    job = Job(order)
    job.train()
    notes = Notes(Path(order["notes"]))
    for phase in (FRONT, DICE, BUDGET):
        notes.write(phase=f"search for {phase}")
        if phase == FRONT:
            job.search(FRONT, "--objective", "dice-step")
        elif phase == DICE:
            job.search(DICE)
        else:
            job.search(BUDGET, "--max-step-ms", f"{job.limit:.3f}")
    job.write()
    notes.write(phase="done")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
