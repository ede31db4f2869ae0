"""Stands in for nnUNetv2_train in a process of its own: puts a prepared checkpoint and validation where it would.

What it puts there is real: checkpoints by torch.save, summaries by nnU-Net's evaluation of label files (see
comparison_workspace). It is chosen by the slicing in SLICEMAMBA_SLICING and by the results folder, as a training would
differ by them. STAND_IN_ENDS=checkpoint dies after the first checkpoint, before_validation after the last.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path


def train() -> None:
    dataset, configuration, fold, *flags = sys.argv[1:]
    trainer, plans = (flags[flags.index(flag) + 1] for flag in ("-tr", "-p"))
    results = Path(os.environ["nnUNet_results"])
    chosen = json.loads(Path(os.environ["SLICEMAMBA_SLICING"]).read_text())["slicing"]
    prepared = Path(os.environ["STAND_IN_PREPARED"])
    key = "_".join("x".join(map(str, thickness)) for thickness in chosen)
    model = results / dataset / f"{trainer}__{plans}__{configuration}"
    folder = model / f"fold_{fold}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(prepared / "calls.txt", "a") as calls:
        print(f"{results.parent.name}/{results.name} {' '.join(f for f in flags if f in ('--c', '--val'))}", file=calls)
    shutil.copy(Path(os.environ["nnUNet_preprocessed"]) / dataset / f"{plans}.json", model / "plans.json")
    ends = os.environ.get("STAND_IN_ENDS")
    if "--val" not in flags:
        name = "checkpoint_latest.pth" if ends == "checkpoint" else "checkpoint_final.pth"
        (folder / "checkpoint_latest.pth").unlink(missing_ok=True)
        shutil.copy(prepared / key / "checkpoint.pth", folder / name)
    if ends:
        sys.exit(1)
    (folder / "validation").mkdir(exist_ok=True)
    shutil.copy(prepared / key / results.name / "summary.json", folder / "validation")
