"""A small real nnU-Net workspace, and commands run in it as a user runs them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from nnunetv2_slicemamba.demo.layout import DATA
from tests.end_to_end.zygote import Zygote

BIN = Path(sys.executable).parent
DATASET = "Dataset511_TinyNuclei"
PLANS = "nnUNetSliceMambaSPlans"
SUPERNET = "SliceMambaSupernetTrainer_1epoch"
FINAL = "SliceMambaTrainer_1epoch"


ZYGOTE = Zygote()


class Done(NamedTuple):
    """How a command ended; `stdout` has standard error too."""

    returncode: int
    stdout: str


@dataclass
class Workspace:
    """Three nnU-Net folders below `root`, and nothing else of nnU-Net's in the environment but `variables`."""

    root: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw" / DATASET

    @property
    def preprocessed(self) -> Path:
        return self.root / "nnUNet_preprocessed" / DATASET

    def results(self, trainer: str) -> Path:
        return self.root / "nnUNet_results" / DATASET / f"{trainer}__{PLANS}__2d"

    def environment(self, changed: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """The environment of a command; None removes a variable."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("nnUNet_", "SLICEMAMBA_", "PYTHONPATH"))}
        folders = {name: str(self.root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        # one process of each kind: on few cores their imports cost more than they save
        quick = {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1"}
        values: dict[str, str | None] = {**kept, **folders, **quick, **self.variables, **(changed or {})}
        return {key: value for key, value in values.items() if value is not None}

    def call(self, command: str, *arguments: object, changed: Mapping[str, str | None] | None = None) -> Done:
        """Runs a console script as a user would, in a process of its own."""
        return Done(*ZYGOTE.run(BIN / command, [*map(str, arguments)], self.environment(changed), self.root))

    def run(self, command: str, *arguments: object, changed: Mapping[str, str | None] | None = None) -> str:
        """As `call`, but the command must succeed; returns its output."""
        done = self.call(command, *arguments, changed=changed)
        assert done.returncode == 0, f"{command} {arguments} exited with {done.returncode}:\n{done.stdout[-4000:]}"
        return done.stdout


def make_workspace(
    root: Path, n_train: int = 10, n_test: int = 2, folds: Sequence[Sequence[int]] = ((0, 1), (2, 3))
) -> Workspace:
    """Crops of 64x64 pixels of the shipped nuclei as raw data; folds: indices of the validation cases."""
    workspace = Workspace(root)
    source = DATA / "nuclei2d"
    box = (64, 64, 128, 128)
    names = [f"tiny_{i:03d}" for i in range(n_train + n_test)]
    for i, name in enumerate(names):
        part = "Tr" if i < n_train else "Ts"
        for kind, original, copy in (
            ("images", f"nuclei_{i:03d}_0000.png", f"{name}_0000.png"),
            ("labels", f"nuclei_{i:03d}.png", f"{name}.png"),
        ):
            folder = workspace.raw / f"{kind}{part}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.open(source / f"{kind}Tr" / original).crop(box).save(folder / copy)
    description = {
        "channel_names": {"0": "fluorescence"},
        "labels": {"background": 0, "nucleus": 1},
        "numTraining": n_train,
        "file_ending": ".png",
    }
    (workspace.raw / "dataset.json").write_text(json.dumps(description))
    splits = [
        {"train": [n for j, n in enumerate(names[:n_train]) if j not in fold], "val": [names[j] for j in fold]}
        for fold in folds
    ]
    (workspace.raw / "splits_final.json").write_text(json.dumps(splits))
    for name in ("nnUNet_preprocessed", "nnUNet_results"):
        (root / name).mkdir(parents=True, exist_ok=True)
    return workspace
