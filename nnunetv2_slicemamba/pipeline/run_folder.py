"""The folder of a run with several steps at once; nothing slow is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunetv2_slicemamba.common.folder_lock import FolderInUseError, require_unused
from nnunetv2_slicemamba.common.json_reading import JsonKind

STEPS_FOLDER, RUN_FILE = "steps", "run.json"
_FOLD = {"dataset": str, "configuration": str, "plans_name": str, "folds": [str]}
_SETTINGS = {"trainer": str, "supernet_trainer": str, "device": str, "search_arguments": [str], "npz": bool}
RUN_JSON = JsonKind(
    "a run's description",
    {
        **_FOLD,
        "settings": {**_SETTINGS, "quiet?": bool, "predict": bool, "search?": bool},
        "command": str,
        "process": int,
        "host": str,
        "started": str,
        "planning?": {"size": str, "network": str, "gpu_memory": float, "holdout": (float, None)},
        "jobs?": {str: str},
    },
    "Delete it; 'slicemamba run' writes it anew, and takes no finished step again",
)


@dataclass(frozen=True)
class RunFolder:
    """nnUNet_results/DATASET/steps/TRAINER__PLANS__CONFIG: what a run of several steps at once has asked for, and logs.

    run.json describes the run, and has the jobs of one that was submitted to SLURM. Every step that was begun has a
    folder of its name with its logs and records. The folder of the dataset's runs and the run's own are locked while
    a process runs or submits the steps.
    """

    path: Path

    @property
    def file(self) -> Path:
        """The run's description."""
        return self.path / RUN_FILE

    @property
    def is_at_work(self) -> bool:
        """Whether a process runs the steps now."""
        try:
            require_unused(self.path)
        except FolderInUseError:
            return True
        return False

    def step(self, name: str) -> Path:
        """The folder of a step's logs and records."""
        return self.path / name
