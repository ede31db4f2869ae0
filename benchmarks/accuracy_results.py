"""What is kept of a run: one JSON file, made of nnU-Net's summary.json and the notes that were taken while it ran."""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accuracy_runs import Run
from accuracy_schedule import FAILED, FINISHED, Outcome, failure

SCHEMA_VERSION = 1
UNFINISHED = "unfinished"
SEED = "none is set: nnU-Net seeds neither weights nor augmentation, so two trainings of the same settings differ"
KEPT = Path(__file__).parent / "accuracy_results"
CHECKPOINTS = ("checkpoint_latest.pth", "checkpoint_best.pth")


@dataclass(frozen=True)
class RunFolder:
    """Where a run works: its own nnUNet_results, so that runs of the same trainer and plans do not meet."""

    run: Run
    root: Path

    @property
    def results(self) -> Path:
        return self.root / "nnUNet_results"

    @property
    def fold(self) -> Path:
        dataset, candidate = self.run.dataset, self.run.candidate
        model = f"{candidate.trainer}__{self.run.plans_name}__{dataset.configuration}"
        return self.results / dataset.folder / model / f"fold_{self.run.fold}"

    @property
    def summary(self) -> Path:
        return self.fold / "validation" / "summary.json"

    @property
    def slicing_file(self) -> Path:
        """What a supernet's search writes."""
        return self.fold / "slicing_search" / "best_slicing.json"

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"

    def search(self) -> dict[str, Any] | None:
        """The content of a supernet's slicing file; None while its search is not complete."""
        if not self.run.candidate.is_supernet or not self.slicing_file.is_file():
            return None
        content = json.loads(self.slicing_file.read_text())
        return content if content["complete"] else None

    def flags(self) -> list[str]:
        """For nnUNetv2_train: how to go on with what is there."""
        if (self.fold / "checkpoint_final.pth").is_file():
            return ["--val"]
        return ["--c"] if any((self.fold / name).is_file() for name in CHECKPOINTS) else []

    def notes(self) -> dict[str, Any]:
        return json.loads(self.state.read_text()) if self.state.is_file() else {}


def dice_of(summary: Mapping[str, Any], labels: Mapping[str, Any]) -> dict[str, Any]:
    """Mean Dice of nnU-Net's summary, and of each class mean, SD and range over the cases, absent ones (NaN) left out.

    "sd" is that over cases of a case's mean over its classes, "by_case" every class in every case, None where absent.
    labels: names of dataset.json.
    """
    names = {str(value): name for name, value in labels.items()}
    per_case = [{key: m["Dice"] for key, m in case["metrics"].items()} for case in summary["metric_per_case"]]
    cases = [Path(case["prediction_file"]).name.split(".")[0] for case in summary["metric_per_case"]]
    classes = {}
    for key in per_case[0]:
        values = [case[key] for case in per_case if not math.isnan(case[key])]
        classes[names.get(key, key)] = {
            "mean": statistics.fmean(values) if values else None,
            "sd": statistics.stdev(values) if len(values) > 1 else None,
            "lowest": min(values, default=None),
            "highest": max(values, default=None),
            "cases": len(values),
        }
    present = [[v for v in case.values() if not math.isnan(v)] for case in per_case]
    means = [statistics.fmean(values) for values in present if values]
    return {
        "mean": summary["foreground_mean"]["Dice"],
        "sd": statistics.stdev(means) if len(means) > 1 else None,
        "cases": len(per_case),
        "per_class": classes,
        "by_case": {
            name: {names.get(key, key): None if math.isnan(v) else v for key, v in case.items()}
            for name, case in zip(cases, per_case, strict=True)
        },
    }


def result_of(
    folder: RunFolder, outcome: Outcome, parallel: int, gpus: int, trial: Sequence[int] | None
) -> dict[str, Any]:
    """Everything that is kept of a run that was started, whatever came of it."""
    run, notes = folder.run, folder.notes()
    candidate = run.candidate
    search = folder.search()
    searched = search is not None or not candidate.is_supernet
    finished = outcome.ended == FINISHED and folder.summary.is_file() and searched
    done = notes.get("epochs_done", 0)
    seconds = notes.get("epoch_seconds") or []
    return {
        "schema_version": SCHEMA_VERSION,
        "name": run.name,
        "dataset": run.dataset.key,
        "candidate": candidate.name,
        "prediction": candidate.prediction,
        "state": "finished" if finished else FAILED if outcome.ended in (FAILED, FINISHED) else UNFINISHED,
        "dice": dice_of(json.loads(folder.summary.read_text()), notes["labels"]) if finished else None,
        "trainer": candidate.trainer,
        "plans": run.plans_name,
        "planned_by": " ".join(candidate.plans.command),
        "plans_changes": dict(candidate.changes),
        "slicing": run.slicing,
        "supernet": candidate.supernet,
        "search": search,
        "search_seconds": notes.get("search_seconds"),
        "configuration": run.dataset.configuration,
        "fold": run.fold,
        "epochs": notes.get("epochs"),
        "epochs_done": done,
        "iterations_per_epoch": notes.get("iterations_per_epoch"),
        "epoch_seconds": statistics.median(seconds) if seconds else None,
        **{key: notes.get(key) or [] for key in ("pseudo_dice", "train_losses", "val_losses")},
        "peak_memory_mib": notes.get("peak_memory_mib") or None,
        "parameters": notes.get("parameters"),
        "network": notes.get("network"),
        "patch_size": notes.get("patch_size"),
        "batch_size": notes.get("batch_size"),
        "compiled": notes.get("compiled"),
        "gpu": notes.get("gpu"),
        "cpu_cores": os.cpu_count(),
        "augmentation_processes": notes.get("augmentation_processes"),
        "versions": notes.get("versions"),
        "seed": SEED,
        "parallel": parallel,
        "gpus": gpus,
        "beside": list(outcome.beside),
        "seconds": outcome.seconds,
        "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "phase": notes.get("phase"),
        "failure": _failure(folder, outcome),
        "trial": list(trial) if trial else None,
    }


def _failure(folder: RunFolder, outcome: Outcome) -> list[str] | None:
    if outcome.ended != FAILED:
        return None
    # without having run there is no log of this attempt
    return (failure(folder.log) if outcome.seconds else []) or [outcome.why]


def write_result(result: Mapping[str, Any], folder: Path) -> Path:
    """NAME.json, replaced as a whole; what an earlier attempt came to stays in it as "earlier"."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{result['name']}.json"
    old = read_results([folder]).get(result["name"])
    earlier = []
    if old is not None:
        told = ("state", "ended", "epochs_done", "failure", "gpu", "dice")
        earlier = [*old.get("earlier", []), {key: old.get(key) for key in told}]
        if old["state"] == UNFINISHED:  # its epochs are among those that the result is about
            result = {**result, "beside": sorted({*old["beside"], *result["beside"]})}
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps({**result, "earlier": earlier}, indent=1) + "\n")
    os.replace(temporary, file)
    return file


def read_results(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Results by name; of the same name a finished one wins, else that of the later folder."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.json")):
            content = json.loads(file.read_text())
            if content.get("schema_version") != SCHEMA_VERSION:
                raise ValueError(f"{file} is no result of this version of accuracy.py; move it away")
            old = found.get(content["name"])
            if old is None or old["state"] != "finished" or content["state"] == "finished":
                found[content["name"]] = content
    return found


def is_finished(result: Mapping[str, Any] | None, trial: Sequence[int] | None) -> bool:
    """Whether a run need not be done again; a trial is no result, and a result no trial."""
    wanted = list(trial) if trial else None
    return result is not None and result["state"] == "finished" and result.get("trial") == wanted
