"""The published experiment, trained from scratch: the paper's network and others in the paper's own protocol.

    python benchmarks/paper.py --suite DIR --work DIR --out DIR [--data isic2017 polyps] [--arms ARM ...]
        [--repeats 2] [--gpus 1] [--per-gpu 3] [--seconds 540]
    python benchmarks/paper.py --table [--out DIR]
    python benchmarks/paper.py --suite DIR --lay-out DIR       # the same cases for accuracy.py, in nnU-Net's protocol
    python benchmarks/paper.py --suite DIR --out DIR --summaries FILE ...    # its results, with the paper's metrics

Protocol: images of 256x256 stretched to 0..255, flips and rotations, batch 32, BCE and Dice loss at full resolution,
AdamW 1e-3 with weight decay 1e-2, a cosine down to 1e-5 and up again every 100 epochs, 300 epochs. Nothing is
pretrained. ISIC 2017: 7:3 of 2,000 images, drawn with a seed. Polyps: Kvasir and ClinicDB together, the polyp
benchmark's test images apart. Arms: see ARMS. `searched` needs the slicing that `supernet` found for the same data and
repeat. A run that has ended is not run again; one that was stopped goes on from its checkpoint in --work. Checkpoints
are too large to be carried to another machine, where a run begins anew.

nnU-Net's protocol: `accuracy.py --data isic2017=DIR/isic2017 polyps=DIR/polyps` on what --lay-out wrote; --summaries
takes its OUT/summaries/*.json.

Metrics are the paper's: of the pixels of all test images together. They are given after the last epoch, whose rate is
the highest of the cosine, after the latest epoch with the lowest rate (DSC alone), and after the epoch with the least
loss on the test images, which is what the published code reports. Rows are in paper.csv.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import results
import workshop
from accuracy_training import OUT_OF_TIME
from paper_data import DATA, lay_out, split_of
from paper_table import ARMS, SEARCHED, SUPERNET, table
from paper_training import Order, best_epoch, lowest_rate_epoch, pooled, pooled_at
from workshop import AtWork, Workshop

from nnunetv2_slicemamba.evaluation.confusion import Counts


@dataclass(frozen=True)
class PaperRun:
    """A training of an arm on a dataset. trial: fields of Order that are not the published ones."""

    data: str
    arm: str
    repeat: int
    suite: Path
    slicing: Any
    trial: Mapping[str, Any]

    @property
    def id(self) -> str:
        epochs = self.trial.get("epochs", Order.epochs)
        more = "".join(f"-{key}{value}" for key, value in self.trial.items() if key != "epochs")
        return f"{self.data}-{self.arm}-{epochs}{more}-{self.repeat}"


class PaperTraining(AtWork):
    """A training at work."""

    def __init__(self, run: PaperRun, shop: Workshop, gpu: str) -> None:
        super().__init__(run, shop, gpu, shop.work / "paper" / run.id)
        places = (str(run.suite), str(self.folder))
        self.order = Order(
            *places, run.data, run.arm, run.slicing, run.repeat, device=shop.device, until=shop.until, **run.trial
        )
        if not (self.folder / "checkpoint.pt").is_file():  # of an attempt that left nothing to go on from
            (self.folder / "notes.json").unlink(missing_ok=True)
        self.start("paper_training.py", asdict(self.order))

    def progress(self) -> str:
        """Progress of the training, in a line."""
        epochs = self.notes.get("epochs")
        if not epochs:
            return str(self.notes.get("phase", "starting"))
        dsc = ", ".join(f"{test} {pooled_at(epochs, test, len(epochs))['dsc']:.2f}" for test in epochs[-1]["tests"])
        return f"{self.notes['phase']}: {len(epochs)} of {self.order.epochs} epochs, DSC {dsc}"

    def end(self) -> str:
        """Ends what is left of the process and keeps what is known of the run; says what that is."""
        code, notes = self.stop(), self.notes
        state = "finished" if code == 0 else "unfinished" if code in (None, OUT_OF_TIME) else "failed"
        row = {
            "state": state,
            "cores": workshop.CORES,
            "beside": " ".join(sorted(self.beside - {self.run.id})),
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "commit": results.commit(),
            "note": self.last_line if state == "failed" else "",
        }
        results.write("paper", [{**one, **row} for one in rows_of(self.order, self.run.id, notes)], self.shop.out)
        return f"{state} {row['note'] or self.progress()}"


def rows_of(order: Order, run: str, notes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of paper.csv for a training, one per set of test images; one without results before its first epoch."""
    epochs, slicing = notes.get("epochs", []), notes.get("slicing", order.slicing)
    row = {
        **{"id": run, "data": order.data, "arm": order.arm, "repeat": order.repeat, "epochs": order.epochs},
        **{"epochs_done": len(epochs), "slicing": json.dumps(slicing) if slicing else None},
        **{"protocol": "paper", "fitness": notes.get("fitness"), "parameters": notes.get("parameters")},
        **{"train": notes.get("cases", {}).get("train"), "gpu": notes.get("gpu")},
        "peak_reserved_mib": notes.get("memory", {}).get("reserved"),
        "epoch_seconds": statistics.median(one["seconds"] for one in epochs) if epochs else None,
    }
    if not epochs:
        return [{**row, "test": ""}]
    found = []
    for test in epochs[-1]["tests"]:
        best = best_epoch(epochs, test)
        last, chosen = pooled_at(epochs, test, len(epochs)), pooled_at(epochs, test, best)
        low = lowest_rate_epoch(len(epochs))
        figures = {**last, **{f"chosen_{key}": value for key, value in chosen.items()}, "chosen_epoch": best}
        figures |= {"low_epoch": low, "low_dsc": pooled_at(epochs, test, low)["dsc"]}
        found.append({**row, "test": test, "cases": notes["cases"]["test"][test], **figures})
    return found


def rows_of_summary(file: Path, suite: Path) -> list[dict[str, Any]]:
    """Rows of paper.csv for a training in nnU-Net's protocol: FILE is accuracy.py's RUN.json, nnU-Net's summary."""
    run = file.stem
    data, _, rest = run.partition("-fold0-")
    candidate, budget, repeat = rest.rsplit("-", 2)
    cases = {
        Path(one["prediction_file"]).name.split(".")[0]: one for one in json.loads(file.read_text())["metric_per_case"]
    }
    found = []
    for test, names in split_of(suite, data).tests.items():
        counts = Counts(0, 0, 0, 0)
        for _, name in names:
            metrics = cases[name]["metrics"]["1"]
            counts += Counts(*(int(metrics[key]) for key in ("TP", "FP", "FN", "TN")))
        row = {"id": run, "data": data, "arm": candidate, "repeat": repeat, "test": test, "cases": len(names)}
        epochs = budget.partition("x")[0]
        row |= {"epochs": epochs, "epochs_done": epochs, "state": "finished", "protocol": "nnU-Net", **pooled(counts)}
        found.append(row)
    return found


def runs_of(arguments: argparse.Namespace, known: Mapping[str, results.Row]) -> list[PaperRun]:
    """The runs that are asked for, but for searched ones whose search has not ended; says which those are."""
    trial = {key: getattr(arguments, key) for key in ("epochs", "batch", "pixels", "size")}
    trial = {key: value for key, value in trial.items() if value != getattr(Order, key)}
    trial |= {"half": False} if arguments.float32 else {}
    found = []
    for repeat in range(1, arguments.repeats + 1):
        for arm in arguments.arms:
            for data in arguments.data:
                slicing = ARMS[arm][0]
                if arm == SEARCHED:
                    supernet = known.get(PaperRun(data, SUPERNET, repeat, arguments.suite, None, trial).id)
                    if supernet is None or supernet["state"] != "finished":
                        print(f"{data}-{arm}-{repeat} waits for the end of its search")
                        continue
                    slicing = json.loads(supernet["slicing"])
                found.append(PaperRun(data, arm, repeat, arguments.suite, slicing, trial))
    return found


def parse(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=Path, help="folder with isic2017, kvasir and clinicdb: images and masks each")
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--work", type=Path, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, default=results.RESULTS, help="folder for the results' tables")
    workshop.add_options(parser, per_gpu=3)
    parser.add_argument("--float32", action="store_true", help="train without autocast, as published")
    for name, default in (("epochs", 300), ("batch", 32), ("pixels", 256)):
        parser.add_argument(f"--{name}", type=int, default=default, help="of a trial")
    parser.add_argument("--size", default="L", choices=("S", "M", "L"), help="of a trial")
    parser.add_argument("--table", action="store_true", help="print the table only")
    parser.add_argument("--lay-out", type=Path, metavar="DIR", help="write the cases for accuracy.py")
    parser.add_argument("--summaries", nargs="+", type=Path, metavar="FILE", help="results of accuracy.py")
    found = parser.parse_args(given)
    if not found.table and found.suite is None:
        parser.error("--suite is missing: give the folder with isic2017, kvasir and clinicdb")
    if not (found.table or found.lay_out or found.summaries) and found.work is None:
        parser.error("--work is missing: give a folder for the checkpoints")
    return found


def main(given: Sequence[str] | None = None) -> int:
    """Exit code: 0 if every run is finished, 1 if one is not, 2 for arguments that cannot be worked with."""
    began, arguments = time.monotonic(), parse(given)
    missing: list[str] = []
    try:
        if arguments.lay_out:
            lay_out(arguments.suite, arguments.lay_out)
        elif arguments.summaries:
            rows = [row for file in arguments.summaries for row in rows_of_summary(file, arguments.suite)]
            results.write("paper", rows, arguments.out)
        elif not arguments.table:
            runs = runs_of(arguments, workshop.known_rows("paper", arguments.out))
            shop = Workshop.of(arguments, began, arguments.per_gpu)
            missing = workshop.finish(runs, shop, arguments.every, PaperTraining, "paper")
            missing += (
                ["searched ones"] if len(runs) < arguments.repeats * len(arguments.arms) * len(arguments.data) else []
            )
    except ValueError as error:
        print(f"error: {error}")
        return 2
    print(table(results.read("paper", arguments.out)))
    print(*(f"not finished: {run}" for run in missing), sep="\n")
    return int(bool(missing))


if __name__ == "__main__":
    workshop.run_main(main)
