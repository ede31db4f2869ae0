"""Raw data, preprocessed data, split and plans of one dataset, each made once: `accuracy_prepare.py ORDER.json`.

ORDER.json: {"key": of the dataset, "source": folder, "processes": n, "runs": [as `planning_order` makes them],
"report": file}. nnU-Net's and our own commands run here one after the other in one process, which imports PyTorch
once. The report says which plans could not be made, and why; what is there already is left as it is.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accuracy_runs import DATASETS, PLANNERS, STOCK, Dataset, Run

ENTRIES = {
    "nnUNetv2_plan_and_preprocess": "plan_and_preprocess_entry",
    "nnUNetv2_plan_experiment": "plan_experiment_entry",
}


def planning_order(run: Run) -> dict[str, Any]:
    """What `main` needs to know of a run, as JSON values."""
    planner, changes = run.candidate.plans, dict(run.candidate.changes)
    return {"command": planner.command, "from": planner.plans_name, "plans": run.plans_name, "changes": changes}


def call(argv: Sequence[str]) -> None:
    """Runs `slicemamba` or a command of nnU-Net in this process; RuntimeError with its last lines if it fails."""
    print("$", *argv, flush=True)
    sys.argv = list(argv)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            _enter(argv)
    except SystemExit as end:
        if end.code not in (None, 0):
            last = " ".join(said.getvalue().split()[-20:])
            raise RuntimeError(f"'{' '.join(argv)}' exited with {end.code}: {last}") from end
    finally:
        print(said.getvalue(), file=sys.stderr, flush=True)


def _enter(argv: Sequence[str]) -> None:
    if argv[0] == "slicemamba":
        from nnunetv2_slicemamba.cli import main

        main(list(argv[1:]))
    else:
        from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as entries

        getattr(entries, ENTRIES[argv[0]])()


def lay_out_hippocampus(source: Path, target: Path) -> None:
    """Task04's imagesTr and labelsTr as nnU-Net raw data: images get nnU-Net's channel suffix, dataset.json is written.

    ValueError if images and labels are not of the same cases.
    """
    images, labels = (
        {file.name.removesuffix(".nii.gz").removesuffix(suffix): file for file in _volumes(source / folder)}
        for folder, suffix in (("imagesTr", "_0000"), ("labelsTr", ""))
    )
    if not images or images.keys() != labels.keys():
        single = sorted(images.keys() ^ labels.keys())[:4]
        raise ValueError(f"{source} needs imagesTr and labelsTr with the same cases; without a partner: {single}")
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    for case in images:
        shutil.copyfile(images[case], target / "imagesTr" / f"{case}_0000.nii.gz")
        shutil.copyfile(labels[case], target / "labelsTr" / f"{case}.nii.gz")
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": len(images),
        "file_ending": ".nii.gz",
    }
    (target / "dataset.json").write_text(json.dumps(description, indent=2))


def _volumes(folder: Path) -> list[Path]:
    # the official archive has a hidden companion of every file
    return sorted(file for file in folder.glob("*.nii.gz") if not file.name.startswith("."))


def lay_out(dataset: Dataset, source: Path, processes: int) -> None:
    """Raw data, as far as they are not there."""
    target = Path(os.environ["nnUNet_raw"]) / dataset.folder
    if dataset.key == "hippocampus":
        if not (target / "dataset.json").is_file():
            lay_out_hippocampus(source, target)
    else:  # continues by itself
        options = ("-d", str(dataset.number), "--name", dataset.name, "-np", str(processes))
        call(["slicemamba", "convert", dataset.key, str(source), *options])


def preprocess(dataset: Dataset, source: Path, processes: int) -> None:
    """Raw data, nnU-Net's fingerprint, default plans and preprocessed data, which all plans share, and its split."""
    folder = Path(os.environ["nnUNet_preprocessed"]) / dataset.folder
    done = folder / ".accuracy_preprocessed"
    if done.is_file():
        return
    lay_out(dataset, source, processes)
    n = str(processes)
    chosen = ("-d", str(dataset.number), "-c", dataset.configuration)
    call(["nnUNetv2_plan_and_preprocess", *chosen, "-np", n, "-npfp", n, "--no_pbar"])
    write_split(folder, dataset.configuration)
    done.touch()


def write_split(folder: Path, configuration: str) -> None:
    """nnU-Net's own split, before two trainings would write it at the same time."""
    file = folder / "splits_final.json"
    if file.is_file():
        return  # the source's
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    data = str(folder / f"{PLANNERS[STOCK].plans_name}_{configuration}")
    cases = sorted(infer_dataset_class(data).get_identifiers(data))
    splits = generate_crossval_split(cases, seed=12345, n_splits=5)
    plain = [{part: [str(case) for case in cases] for part, cases in split.items()} for split in splits]
    file.write_text(json.dumps(plain, indent=4))


def changed_plans(plans: Mapping[str, Any], configuration: str, changes: Mapping[str, Any], name: str) -> dict:
    """A copy of plans under another name with `changes` in the configuration's arch_kwargs.

    Lists with an entry per stage may be given for four stages: fewer keep the first ones, in the decoder the last, as
    the planner has it. ValueError where the configuration has no network of its own to change, or nothing changes.
    """
    copy = json.loads(json.dumps(plans)) | {"plans_name": name}
    architecture = copy["configurations"][configuration].get("architecture")
    if architecture is None:
        raise ValueError(f"the configuration {configuration} of {plans['plans_name']} inherits its network")
    kwargs = architecture["arch_kwargs"]
    n, before = kwargs["n_stages"], dict(kwargs)
    for key, value in changes.items():
        if isinstance(value, list) and isinstance(kwargs.get(key), list) and len(value) > n:
            value = value[-n:] if key.endswith("_decoder") else value[:n]
        kwargs[key] = value
    if kwargs == before:
        raise ValueError(f"{dict(changes)} changes nothing in a network of {n} stages, {plans['plans_name']} has it")
    return copy


def plan(dataset: Dataset, order: Mapping[str, Any], processes: int) -> None:
    """The plans of one run, unless they are there; those of the same planner are made once."""
    folder = Path(os.environ["nnUNet_preprocessed"]) / dataset.folder
    planned, wanted = folder / f"{order['from']}.json", folder / f"{order['plans']}.json"
    if not planned.is_file():
        command = [*order["command"], "-d", str(dataset.number)]
        if command[0] == "slicemamba":
            command += ["-c", dataset.configuration, "-np", str(processes)]
        call(command)
    if not wanted.is_file():
        content = changed_plans(
            json.loads(planned.read_text()), dataset.configuration, order["changes"], order["plans"]
        )
        wanted.write_text(json.dumps(content, indent=4))


def main(order: dict[str, Any]) -> None:
    # errors of `slicemamba` arrive as exceptions, with their text
    os.environ["SLICEMAMBA_DEBUG"] = "1"
    dataset, processes = DATASETS[order["key"]], order["processes"]
    failed: dict[str, str] = {}
    preprocess(dataset, Path(order["source"]), processes)
    for run in order["runs"]:
        if run["plans"] in failed:
            continue
        try:
            plan(dataset, run, processes)
        except Exception as error:
            traceback.print_exc()
            failed[run["plans"]] = f"{type(error).__name__}: {error}"
    Path(order["report"]).write_text(json.dumps({"failed": failed}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
