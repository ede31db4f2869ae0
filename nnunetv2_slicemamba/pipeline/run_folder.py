"""The folder of a run with several steps at once; nothing slow is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunetv2_slicemamba.common.folder_lock import FolderInUseError, require_unused
from nnunetv2_slicemamba.common.json_reading import JsonKind

STEPS_FOLDER, RUN_FILE = "steps", "run.json"
_TRAINING, _OLDER_TRAINING = "_training", "_final"
_FOLD = {"dataset": str, "configuration": str, "plans_name": str, "folds": [str]}
_SETTINGS = {"trainer": str, "supernet_trainer": str, "device": str, "search_arguments": [str], "npz": bool}
# who runs or has submitted the steps, of runs and of comparisons
BEGUN = {"command": str, "process": int, "host": str, "started": str, "jobs?": {str: str}}
BEGUN_JSON = JsonKind("a description of steps at once", BEGUN, "Delete it; the command that began them writes it anew")
RUN_JSON = JsonKind(
    "a run's description",
    {
        **_FOLD,
        "settings": {**_SETTINGS, "quiet?": bool, "predict": bool, "search?": bool, "sliced?": bool},
        **BEGUN,
        "planning?": {"size": str, "network": str, "gpu_memory": float, "holdout": (float, None)},
    },
    "Delete it; 'slicemamba run' writes it anew, and takes no finished step again",
)


@dataclass(frozen=True)
class RunFolder:
    """nnUNet_results/DATASET/steps/TRAINER__PLANS__CONFIG: what a run of several steps at once has asked for, and logs.

    Of a comparison it is the folder `steps` beside its arms. run.json describes the run, and has the jobs of one that
    was submitted to SLURM. Every step that was begun has a folder of its name with its logs and records. The folder of
    the dataset's runs and the run's own are locked while a process runs or submits the steps.
    """

    path: Path

    @property
    def file(self) -> Path:
        """The run's description."""
        return self.path / RUN_FILE

    @property
    def title(self) -> str:
        """Name for people."""
        return f"comparison in {self.path.parent}" if self.path.name == STEPS_FOLDER else self.path.name

    @property
    def is_at_work(self) -> bool:
        """Whether a process runs the steps now."""
        try:
            require_unused(self.path)
        except FolderInUseError:
            return True
        return False

    def step(self, name: str) -> Path:
        """The folder of a step's logs and records; a run that an earlier version began goes on in the one it made."""
        older = self.path / older_name(name)
        return older if older.is_dir() else self.path / name


def older_name(name: str) -> str:
    """The name that earlier versions gave a step: the training of a fold was fold_0_final."""
    return name.removesuffix(_TRAINING) + _OLDER_TRAINING if name.endswith(_TRAINING) else name
