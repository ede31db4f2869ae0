"""Packer of a candidate's finished folds as one model: a zip for nnU-Net with a model card in it.

    python benchmarks/models.py WORK FILE.zip --data hippocampus-260 --candidate res-s3-from4-expand1-adamw
        --budget 1000x250 [--repeat 1] [--dataset Dataset004_Hippocampus]
        [--about "licence=CC BY-SA 4.0" "reference=..."]

WORK is the --work of accuracy.py, or what `carry.py pack --finished` and `carry.py unpack` brought from one. --dataset
is the dataset's name in the zip. --about adds entries to the model's dataset.json, which the card tells: name, source,
reference, licence.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import carry
from accuracy_data import call

from nnunetv2_slicemamba.common.commands import environment

FINAL, SPLIT = carry.CHECKPOINTS[0], "__"  # nnU-Net's names: TRAINER__PLANS__CONFIGURATION


def finished_folds(work: Path, runs: str) -> dict[str, Path]:
    """Folders of the folds that have a final checkpoint and its validation, by fold. runs: pattern of the runs' names.

    Raises ValueError if there are none, or if they are not of the same plans.
    """
    found = [file.parent for file in sorted((work / "runs").glob(f"{runs}/nnUNet_results/*/*/fold_*/{FINAL}"))]
    folds = {folder.name.removeprefix("fold_"): folder for folder in found if (folder / carry.SUMMARY).is_file()}
    if not folds:
        raise ValueError(f"{work / 'runs'} has no finished {runs}; accuracy.py trains them")
    plans = {(folder.parent.name, (folder.parent / "plans.json").read_text()) for folder in folds.values()}
    if len(plans) > 1:
        raise ValueError(f"the folds of {runs} have different plans; they are no ensemble")
    return folds


def lay_out(folds: dict[str, Path], dataset: str, about: dict[str, str], target: Path) -> list[str]:
    """Writes nnU-Net's folders for the folds of a model into `target`; the arguments of `slicemamba` that name it."""
    one = next(iter(folds.values())).parent
    model, prepared = target / "nnUNet_results" / dataset / one.name, target / "nnUNet_preprocessed" / dataset
    for folder in (model, prepared, target / "nnUNet_raw"):
        folder.mkdir(parents=True)
    trainer, plans, configuration = one.name.split(SPLIT)
    description: dict[str, Any] = {**json.loads((one / "dataset.json").read_text()), **about}
    planned: dict[str, Any] = {**json.loads((one / "plans.json").read_text()), "dataset_name": dataset}
    for folder, name in ((model, "plans"), (prepared, plans)):
        (folder / f"{name}.json").write_text(json.dumps(planned, indent=1))
        (folder / "dataset.json").write_text(json.dumps(description, indent=1))
    for fold, folder in folds.items():
        (model / f"fold_{fold}").symlink_to(folder.resolve())
    return ["-d", dataset, "-c", configuration, "-p", plans, "-tr", trainer, "-f", *folds]


def main(given: Sequence[str] | None = None) -> int:
    """Exit code: 0, 2 for folds that cannot be packed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--candidate", required=True)
    parser.add_argument("--budget", required=True, metavar="EPOCHSxITERATIONS")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--dataset", metavar="NAME", help="name in the zip; default: that of the training")
    parser.add_argument("--about", nargs="+", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args(given)
    runs = f"{arguments.data}-fold*-{arguments.candidate}-{arguments.budget}-{arguments.repeat}"
    try:
        folds = finished_folds(arguments.work, runs)
        about = dict(entry.split("=", 1) for entry in arguments.about)
    except ValueError as error:
        print(f"error: {error}")
        return 2
    dataset = arguments.dataset or next(iter(folds.values())).parents[1].name
    with tempfile.TemporaryDirectory() as folder:
        model = lay_out(folds, dataset, about, Path(folder))
        places = {name: str(Path(folder) / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        os.environ.update({**environment(), **places})
        call(["slicemamba", "export", *model, "--format", "zip", "-o", str(arguments.file.resolve())])
    return 0


if __name__ == "__main__":
    sys.exit(main())
