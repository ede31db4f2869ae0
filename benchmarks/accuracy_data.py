"""A dataset made ready for a training of accuracy.py: raw data, split, preprocessed data and plans, each made once."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
ENTRIES = {
    "nnUNetv2_plan_and_preprocess": "plan_and_preprocess_entry",
    "nnUNetv2_plan_experiment": "plan_experiment_entry",
}


def configuration_of(source: Path) -> str:
    """The configuration to train where none is given: 3d_fullres for volumes, 2d for images.

    Raises ValueError for a folder that holds neither nnU-Net raw data nor images and masks.
    """
    if (source / "dataset.json").is_file():
        ending = json.loads((source / "dataset.json").read_text())["file_ending"]
        return "2d" if ending in ENDINGS else "3d_fullres"
    if (source / "images").is_dir() and (source / "masks").is_dir():
        return "2d"
    raise ValueError(f"{source} has neither dataset.json (nnU-Net raw data) nor folders images and masks")


def read_splits(source: Path) -> list[dict[str, list[str]]] | None:
    """The dataset's own folds, of splits_final.json or, with a single one, split.json; None without either."""
    for name in ("splits_final.json", "split.json"):
        if (source / name).is_file():
            content = json.loads((source / name).read_text())
            return content if isinstance(content, list) else [content]
    return None


def lay_out(source: Path, target: Path, processes: int) -> None:
    """Writes nnU-Net raw data into `target`: links to raw data, or PNG copies of images and binary masks.

    Masks are foreground above 127. Images that no fold of the dataset's own split names are left out. Raises ValueError
    for images without mask.
    """
    if (source / "dataset.json").is_file():
        target.mkdir(parents=True, exist_ok=True)
        for folder in ("imagesTr", "labelsTr"):
            (target / folder).unlink(missing_ok=True)
            (target / folder).symlink_to((source / folder).resolve())
        shutil.copyfile(source / "dataset.json", target / "dataset.json")
        return
    images, masks = (
        {file.stem: file for file in (source / folder).iterdir() if file.suffix.lower() in ENDINGS}
        for folder in ("images", "masks")
    )
    splits = read_splits(source)
    named = {name for split in splits or () for part in split.values() for name in part}
    names = sorted(named or images)
    missing = [name for name in names if name not in images or name not in masks]
    if missing:
        raise ValueError(f"{source}: {len(missing)} cases lack image or mask, such as {missing[:3]}")
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    pairs = [(images[name], masks[name], target, name) for name in names]
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(write_pair, *zip(*pairs, strict=True), chunksize=16))
    content = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "foreground": 1},
        "numTraining": len(names),
        "file_ending": ".png",
    }
    (target / "dataset.json").write_text(json.dumps(content, indent=1))


def write_pair(image: Path, mask: Path, target: Path, name: str) -> None:
    """Writes a case in nnU-Net's layout."""
    with Image.open(image) as opened:
        opened.convert("RGB").save(target / "imagesTr" / f"{name}_0000.png", compress_level=1)
    with Image.open(mask) as opened:
        foreground = np.asarray(opened.convert("L")) > 127
    Image.fromarray(foreground.astype(np.uint8)).save(target / "labelsTr" / f"{name}.png", compress_level=1)


def preprocess(dataset: str, source: Path, configuration: str, processes: int) -> None:
    """Raw data, nnU-Net's fingerprint, default plans and preprocessed data, which all plans share, and the split."""
    folder = Path(os.environ["nnUNet_preprocessed"]) / dataset
    done = folder / f".accuracy_{configuration}"
    if done.is_file():
        return
    raw = Path(os.environ["nnUNet_raw"]) / dataset
    if not (raw / "dataset.json").is_file():
        lay_out(source, raw, processes)
    n = str(processes)
    chosen = ("-d", dataset[7:10], "-c", configuration)
    call(["nnUNetv2_plan_and_preprocess", *chosen, "-np", n, "-npfp", n, "--no_pbar"])
    file, splits = folder / "splits_final.json", read_splits(source)
    if splits is None:
        # nnU-Net's own, before two trainings would write it at the same time
        from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
        from nnunetv2.utilities.crossval_split import generate_crossval_split

        data = str(folder / f"nnUNetPlans_{configuration}")
        drawn = generate_crossval_split(sorted(infer_dataset_class(data).get_identifiers(data)), seed=12345, n_splits=5)
        splits = [{part: [str(case) for case in cases] for part, cases in split.items()} for split in drawn]
    file.write_text(json.dumps(splits, indent=1))
    done.touch()


def changed_plans(plans: Mapping[str, Any], configuration: str, changes: Mapping[str, Any], name: str) -> dict:
    """A copy of plans under another name with `changes` in the configuration, and in the network's arch_kwargs.

    Raises ValueError for a key that the configuration lacks.
    """
    copy = json.loads(json.dumps(plans)) | {"plans_name": name}
    planned = copy["configurations"][configuration]
    for key, value in changes.items():
        if key == "arch_kwargs":
            planned["architecture"]["arch_kwargs"].update(value)
        elif key in planned:
            planned[key] = value
        else:
            raise ValueError(f"the configuration {configuration} of {plans['plans_name']} has no {key!r}")
    return copy


def call(argv: Sequence[str]) -> None:
    """Runs `slicemamba` or a command of nnU-Net in this process; raises RuntimeError if it exits with an error."""
    print("$", *argv, flush=True)
    sys.argv = list(argv)
    try:
        if argv[0] == "slicemamba":
            from nnunetv2_slicemamba.cli import main as slicemamba

            slicemamba(list(argv[1:]))
        else:
            from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as entries

            getattr(entries, ENTRIES[argv[0]])()
    except SystemExit as end:
        if end.code not in (None, 0):
            raise RuntimeError(f"'{' '.join(argv)}' exited with {end.code}") from end


def prepare(order: Mapping[str, Any]) -> None:
    """Data and plans of a training; see accuracy_training.py for `order`.

    Trainings of the same dataset wait for each other. Raises ValueError for a fold that the split lacks.
    """
    dataset, configuration, n = order["dataset"], order["configuration"], order["processes"]
    folder = Path(os.environ["nnUNet_preprocessed"]) / dataset
    planned, wanted = folder / f"{order['planned']}.json", folder / f"{order['plans']}.json"
    with FileLock(folder.with_name(f"{dataset}.lock")):
        preprocess(dataset, Path(order["source"]), configuration, n)
        folds = len(json.loads((folder / "splits_final.json").read_text()))
        if order["fold"] >= folds:
            raise ValueError(f"{dataset} has {folds} folds, fold {order['fold']} is asked for")
        if not planned.is_file():
            ours = order["planner"][0] == "slicemamba"
            call([*order["planner"], "-d", dataset[7:10], *(("-c", configuration, "-np", str(n)) if ours else ())])
        if wanted != planned:
            content = changed_plans(json.loads(planned.read_text()), configuration, order["changes"], order["plans"])
            text = json.dumps(content, indent=1)
            if not wanted.is_file() or wanted.read_text() != text:
                wanted.write_text(text)
