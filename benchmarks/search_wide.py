"""Benchmark of a search among wide candidates: its order of slicings, and its choices beside fixed and random ones.

    python benchmarks/search_wide.py --data isic2017-1000=DIR kvasir-998=DIR --work DIR --out DIR
        [--parts budget front] [--batch isic2017-1000=20] [--gpus 2] [--per-gpu 4] [--seconds 560]
    python benchmarks/search_wide.py --table [--out DIR]

For every data set, with the recommended network and `slicemamba plan --candidates wide`:

1. One job on a GPU of its own (search_wide_job.py): a fifth of the training cases are set aside, the supernet trains,
   and three searches choose on these cases: for the front of Dice and training step, for Dice alone, and for Dice
   within 60 % of the fixed network's step. Where even the cheapest architecture takes more, the limit is the cheapest
   one's step and 60 % of what the fixed one takes above it. The slicings to train are written to arms.csv.
2. Trainings, several on a GPU, as accuracy.py runs them. Part `budget`: the three slicings searched, fixed and without
   scans are trained twice; the cheapest, the one searched for Dice alone and five random ones at the budget once. Part
   `front`: 20 slicings spread over the front, once each.

What was expected is in candidates/wide.json, written before. Everything goes on where it stopped: a data set in
arms.csv of --out or of benchmarks/results is not searched again, a finished run not trained again. A supernet's
checkpoint is large: it stays in --work. Where --work is lost before arms.csv is written, it is trained anew.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import results
import search_wide_table
import workshop
from accuracy import Training, datasets
from accuracy_runs import Candidate, Data, Run, check_definitions
from workshop import Workshop

PLANS = "nnUNetSliceMambaWidePlans"
PLANNER = ("slicemamba", "plan", "--network", "residual", "--candidates", "wide", "-overwrite_plans_name", PLANS)
SUPERNET = Candidate("wide-supernet", PLANNER, PLANS, "SliceMambaSupernetTrainer")
FINAL = Candidate("wide", PLANNER, PLANS, "SliceMambaTrainer")
PARTS = ("budget", "front")
TWICE = ("searched", "fixed", "no-scan")
SEARCH = {"holdout": 0.2, "share": 0.6, "population": 50, "generations": 20, "front": 20, "random": 5}


class SupernetJob(Training):
    """A supernet's training and its searches at work. search: entries of SEARCH."""

    script = "search_wide_job.py"
    search: Mapping[str, Any] = SEARCH

    def more(self) -> dict[str, Any]:
        return {"data": self.run.data.name, "out": str(self.shop.out), **self.search}

    def progress(self) -> str:
        phase = str(self.notes.get("phase", ""))
        return phase if phase.startswith("search") else super().progress()


def arms_of(folder: Path) -> dict[str, list[results.Row]]:
    """The rows of arms.csv by data set; those of `folder` count before those of benchmarks/results."""
    found: dict[str, list[results.Row]] = {}
    for place in (results.RESULTS, folder):
        rows = results.read("arms", place)
        found |= {row["data"]: [one for one in rows if one["data"] == row["data"]] for row in rows}
    return found


def trainings(data: Data, arms: Sequence[results.Row], parts: Sequence[str], epochs: int, iterations: int) -> list[Run]:
    """The trainings of a data set's arms, in the order of the parts; second ones come behind all first ones."""
    found = []
    for part in parts:
        own = [row for row in arms if row["part"] == part]
        for repeat in (1, 2):
            for row in own:
                if repeat == 2 and row["arm"] not in TWICE:
                    continue
                columns = {"fitness": results.number(row["fitness"]), "start_from": row["supernet"]}
                name = f"{FINAL.name}-{row['arm']}"
                candidate = replace(FINAL, name=name, slicing=row["slicing"], columns=columns)
                found.append(Run(data, candidate, repeat=repeat, epochs=epochs, iterations=iterations))
    return found


def in_turns(lists: Sequence[Sequence[Run]]) -> list[Run]:
    """The first of every list, then the second of every list, and so on."""
    longest = max(map(len, lists), default=0)
    return [one[i] for i in range(longest) for one in lists if i < len(one)]


def parse(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=[], metavar="NAME=DIR")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="trainings, in this order")
    parser.add_argument("--batch", nargs="+", default=[], metavar="NAME=N", help="batch size of a data set's plans")
    parser.add_argument("--budget", default="20x250", metavar="EPOCHSxITERATIONS", help="of every training")
    parser.add_argument("--work", type=Path, help="folder for data, trainings and searches")
    parser.add_argument("--out", type=Path, default=results.RESULTS, help="folder for the results' tables")
    workshop.add_options(parser, per_gpu=4)
    parser.add_argument("--table", action="store_true", help="print the tables only")
    for name in ("population", "generations", "front", "random"):
        parser.add_argument(f"--{name}", type=int, default=SEARCH[name], help="of a trial")
    found = parser.parse_args(given)
    if not found.table and not (found.data and found.work):
        parser.error("--data and --work are missing: give NAME=DIR and a folder for data and trainings")
    return found


def measure(arguments: argparse.Namespace, began: float) -> list[str]:
    """Runs what there is time for; what is not finished. Raises ValueError for arguments that cannot be worked with."""
    data = datasets(arguments.data, arguments.batch)
    epochs, iterations = map(int, arguments.budget.split("x"))
    shop = Workshop.of(arguments, began, per_gpu=1)  # supernets have a GPU of their own
    SupernetJob.search = {**SEARCH, **{name: getattr(arguments, name) for name in SEARCH if name in arguments}}
    unsearched = [one for one in data if one.name not in arms_of(shop.out)]
    workshop.work_off(
        [Run(one, SUPERNET, 0, 1, epochs, iterations) for one in unsearched], shop, arguments.every, SupernetJob
    )
    arms = arms_of(shop.out)
    runs = in_turns(
        [trainings(one, arms[one.name], arguments.parts, epochs, iterations) for one in data if one.name in arms]
    )
    check_definitions(runs, workshop.known_rows("runs", shop.out))
    missing = [f"searches of {one.name}" for one in data if one.name not in arms]
    return missing + workshop.finish(runs, replace(shop, per_gpu=arguments.per_gpu), arguments.every, Training)


def main(given: Sequence[str] | None = None) -> int:
    """Exit code: 0 if everything is finished, 1 if something is not, 2 for arguments that cannot be worked with."""
    began, arguments = time.monotonic(), parse(given)
    missing: list[str] = []
    try:
        if not arguments.table:
            missing = measure(arguments, began)
    except ValueError as error:
        print(f"error: {error}")
        return 2
    print(search_wide_table.ranking(arguments.out), search_wide_table.budget(arguments.out), sep="\n\n")
    print(*(f"not finished: {one}" for one in missing), sep="\n")
    return int(bool(missing))


if __name__ == "__main__":
    workshop.run_main(main)
