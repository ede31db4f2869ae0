"""Trains networks on datasets at equal budget and keeps the Dice of every case: SliceMamba beside nnU-Net's own.

    python benchmarks/accuracy.py --data kvasir=DIR acdc=DIR --candidates stock l-hybrid --work DIR --out DIR
        [--folds 0 1] [--repeats 2] [--budget 20x250] [--batch kvasir=20] [--gpus 2] [--per-gpu 2] [--seconds 540]

A dataset is a folder of nnU-Net raw data, or one with `images` and `masks` (binary). Its split is split.json ({"train",
"val"}) or splits_final.json in it, else nnU-Net's own five folds. NAME:CONFIGURATION=DIR trains another configuration
than 3d_fullres of volumes or 2d of images. Built-in candidates: stock (nnU-Net's default), resenc-m, resenc-l,
resenc-xl, and this package's s, m, l, s-hybrid, m-hybrid, l-hybrid. --more FILE brings further ones:

    {"l-hybrid-deep": {"base": "l-hybrid", "arch": {"n_blocks_per_stage": [2, 2, 18, 2]}, "prediction": "0.002 above"},
     "m-slow": {"base": "m-hybrid", "settings": {"initial_lr": 0.0003}, "trainer": "MyTrainer"}}

benchmarks/candidates/residual.json holds those of the residual network: with blocks and without, scans, recipes,
averaged weights. --trainers names a folder with trainer classes of one's own. A run that is finished, in --out or in
benchmarks/results, is not run again; one that was stopped continues where --work has its checkpoint. Trainings end by
themselves, with a checkpoint, before --seconds are over, and carry.py takes them to another machine. Every run that was
started has a row in runs.csv of --out, with its Dice in cases.csv, its losses in epochs.csv and nnU-Net's summary.json
in `summaries`; `python benchmarks/results.py OUT` takes the tables over.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import results
import workshop
from accuracy_data import configuration_of
from accuracy_runs import CANDIDATES, Data, Run, check_definitions, read_candidates
from accuracy_training import CURVES, OUT_OF_TIME
from workshop import AtWork, Workshop

CHECKPOINTS = ("checkpoint_latest.pth", "checkpoint_best.pth")


class Training(AtWork):
    """A training at work. script: what its process runs."""

    script = "accuracy_training.py"

    def __init__(self, run: Run, shop: Workshop, gpu: str) -> None:
        """Starts preparation, training and validation on a GPU, or goes on with them."""
        super().__init__(run, shop, gpu, shop.work / "runs" / run.id)
        dataset = shop.dataset(run.data.name)
        model = f"{run.candidate.trainer}__{run.plans}__{run.data.configuration}"
        self.fold = self.folder / "nnUNet_results" / dataset / model / f"fold_{run.fold}"
        flags: list[str] = []
        if (self.fold / "checkpoint_final.pth").is_file():
            flags = ["--val"]
        elif any((self.fold / name).is_file() for name in CHECKPOINTS):
            flags = ["--c"]
        else:  # of an attempt that left nothing to go on from
            (self.folder / "notes.json").unlink(missing_ok=True)
        budget = {"num_epochs": run.epochs, "num_iterations_per_epoch": run.iterations}
        order = {
            "dataset": dataset,
            "source": str(run.data.source),
            "configuration": run.data.configuration,
            "fold": run.fold,
            "trainer": run.candidate.trainer,
            "device": shop.device,
            "planner": run.candidate.planner,
            "planned": run.candidate.plans,
            "plans": run.plans,
            "changes": run.changes,
            "slicing": run.slicing,
            "settings": {**budget, **run.candidate.settings},
            "flags": flags,
            "processes": shop.processes,
            "notes": str(self.folder / "notes.json"),
            "until": shop.until,
            **self.more(),
        }
        (self.folder / "nnUNet_results").mkdir(parents=True, exist_ok=True)
        self.start(self.script, order)

    def more(self) -> dict[str, Any]:
        """Entries of the order that only another script reads."""
        return {}

    def end(self) -> str:
        """Ends what is left of the process and its workers and keeps what is known of the run; says what that is."""
        code = self.stop()
        notes, summary = self.notes, self.fold / "validation" / "summary.json"
        epochs, out = notes.get("epochs", {}), self.shop.out
        seconds = epochs.get("seconds", [])
        # the epochs of a run that goes on are among those of its result
        before = [row for row in results.read("runs", out) if row["id"] == self.run.id and row["state"] == "unfinished"]
        beside = self.beside.union(*(row["beside"].split() for row in before)) - {self.run.id}
        row = {
            **self.run.row(),
            **notes.get("columns", {}),
            **{f"peak_{key}_mib": round(value, 1) for key, value in notes.get("memory", {}).items()},
            "state": "unfinished" if code in (None, OUT_OF_TIME) else "failed",
            "epochs_done": len(seconds),
            "epoch_seconds": statistics.median(seconds) if seconds else None,
            "seconds": round(time.monotonic() - self.began, 1),
            "gpus": len(self.shop.gpus),
            "cores": workshop.CORES,
            "places": self.shop.places,
            "beside": " ".join(sorted(beside)),
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "commit": results.commit(),
        }
        if code == 0 and summary.is_file():
            dice = dice_by_case(json.loads(summary.read_text()), notes["labels"])
            row |= {"state": "finished", **dice_columns(dice)}
            cases = [{"case": c, "label": k, "dice": v} for c, labels in dice.items() for k, v in labels.items()]
            results.write("cases", [{"run": self.run.id, **case} for case in cases], out)
            (out / "summaries").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(summary, out / "summaries" / f"{self.run.id}.json")
        elif row["state"] == "failed":
            row["note"] = self.last_line
        results.write("runs", [row], out)
        curves = [{key: epochs[key][n] for key in CURVES} for n in range(len(seconds))]
        results.write("epochs", [{"run": self.run.id, "epoch": n, **c} for n, c in enumerate(curves, 1)], out)
        return f"{row['state']}, Dice {row['dice']:.4f}" if "dice" in row else f"{row['state']} {row.get('note', '')}"

    def progress(self) -> str:
        """Progress of the training, in a line."""
        notes = self.notes
        epochs = notes.get("epochs")
        if not epochs:
            return str(notes.get("phase", "starting"))
        done = f"{len(epochs['seconds'])} of {self.run.epochs} epochs, pseudo Dice {epochs['pseudo_dice'][-1]:.4f}"
        return f"{notes['phase']}: {done}, {epochs['seconds'][-1]:.1f} s"


def dice_by_case(summary: Mapping[str, Any], labels: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Dice of every label in every case of nnU-Net's summary.json, NaN where truth and prediction both lack it.

    labels: names and values of dataset.json; regions and labels without name keep nnU-Net's key.
    """
    names, found = {str(value): name for name, value in labels.items()}, {}
    for case in summary["metric_per_case"]:
        dice = {names.get(key, key): metrics["Dice"] for key, metrics in case["metrics"].items()}
        found[Path(case["prediction_file"]).name.split(".")[0]] = dice
    return found


def dice_columns(dice: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Columns of runs.csv: mean over the cases, then the labels, as nnU-Net's; SD over the cases of their means."""

    def mean(values: Sequence[float]) -> float:
        present = [value for value in values if not math.isnan(value)]
        return statistics.fmean(present) if present else math.nan

    labels = {label: mean([case[label] for case in dice.values()]) for label in next(iter(dice.values()))}
    cases = [value for value in (mean(list(case.values())) for case in dice.values()) if not math.isnan(value)]
    return {
        **{"dice": mean(list(labels.values())), "dice_sd": statistics.stdev(cases) if len(cases) > 1 else None},
        "dice_per_label": " ".join(f"{label}={value:.6f}" for label, value in labels.items()),
        "cases": len(dice),
    }


def datasets(given: Sequence[str], batches: Sequence[str]) -> list[Data]:
    """The values of --data and --batch. Raises ValueError for what is none."""
    batch = dict(value.split("=", 1) for value in batches)
    found = []
    for value in given:
        name, _, folder = value.partition("=")
        name, _, configuration = name.partition(":")
        if not name.replace("-", "").isalnum() or not Path(folder).is_dir():
            raise ValueError(f"--data {value}: give NAME=FOLDER, the name of letters, digits and '-'")
        source = Path(folder).resolve()
        number = int(batch.pop(name)) if name in batch else None
        found.append(Data(name, source, configuration or configuration_of(source), number))
    if batch:
        raise ValueError(f"--batch names {', '.join(batch)}, which --data does not")
    return found


def parse(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--candidates", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--folds", nargs="+", type=int, default=[0])
    parser.add_argument("--repeats", type=int, default=1, help="trainings of each candidate on each fold")
    parser.add_argument("--budget", default="20x250", metavar="EPOCHSxITERATIONS")
    parser.add_argument("--batch", nargs="+", default=[], metavar="NAME=N", help="batch size of all plans of a dataset")
    parser.add_argument("--more", type=Path, default=None, help="JSON file of further candidates")
    parser.add_argument("--trainers", type=Path, default=None, help="folder of further trainer classes")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and trainings")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results' tables")
    workshop.add_options(parser, per_gpu=2)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Exit code: 0 if every run is finished, 1 if one is not, 2 for arguments that cannot be worked with."""
    began, arguments = time.monotonic(), parse(given)
    try:
        candidates = read_candidates(arguments.more) if arguments.more else CANDIDATES
        unknown = [name for name in arguments.candidates if name not in candidates]
        if unknown:
            raise ValueError(f"there are no candidates {', '.join(unknown)}; there are {', '.join(candidates)}")
        epochs, _, iterations = arguments.budget.partition("x")
        runs = [
            Run(data, candidates[name], fold, repeat, int(epochs), int(iterations))
            for repeat in range(1, arguments.repeats + 1)
            for fold in arguments.folds
            for name in dict.fromkeys(arguments.candidates)
            for data in datasets(arguments.data, arguments.batch)
        ]
        check_definitions(runs, workshop.known_rows("runs", arguments.out))
    except ValueError as error:
        print(f"error: {error}")
        return 2
    shop = Workshop.of(arguments, began, arguments.per_gpu, arguments.trainers)
    missing = workshop.finish(runs, shop, arguments.every, Training)
    print(f"finished: {len(runs) - len(missing)} of {len(runs)}", *missing, sep="\n  not finished: ")
    return int(bool(missing))


if __name__ == "__main__":
    workshop.run_main(main)
