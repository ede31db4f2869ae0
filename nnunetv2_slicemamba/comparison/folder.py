"""Folder of a comparison, and the check that what lies there belongs to it.

ROOT/settings.json says what is compared; ROOT/ARM/slicing.json is an arm's slicing; ROOT/ARM/repeat_0 is the
nnUNet_results of one training, so that nnU-Net's own commands work on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.folders import InputError, is_writable, require_folder
from nnunetv2_slicemamba.common.hashing import sha256_of_plans
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.names import is_number
from nnunetv2_slicemamba.comparison.arms import Arm
from nnunetv2_slicemamba.planning.first_stage import require_first_stage
from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.slicing.file import SlicingFile, read_slicing_file, write_slicing_file

SETTINGS_FILE = "settings.json"
RESULTS_FILE = "comparison.json"
ARM_FILE = "arm.json"
SLICING = "slicing.json"
SCHEMA_VERSION = 1
_SETTINGS = JsonKind("the settings of a comparison", dict, "Restore it, or give another --output")
_ARM = JsonKind(
    "the file of a comparison's arm", {"kind": str, "value": str, "place": int}, "Move the arm's folder away"
)


@dataclass(frozen=True)
class ComparisonFolder:
    """Folder of one comparison.

    selection, trainer: what every arm trains. root: the folder that holds the arms. first_stage_trainer: whose first
    stage a cascade's arms read, None for that of `trainer`.
    """

    selection: Selection
    trainer: str
    root: Path
    first_stage_trainer: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that must be the same for all arms; plain JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.selection.dataset,
            "configuration": self.selection.configuration,
            "plans_name": self.selection.plans_name,
            "plans_sha256": sha256_of_plans(self.selection.plans, self.selection.configuration),
            "batch_size": self.selection.configuration_manager.batch_size,  # the hash leaves it out
            "fold": self.selection.fold,
            "trainer": self.trainer,
        }

    def arm_folder(self, arm: str) -> Path:
        """Folder of one arm."""
        return self.root / arm

    def slicing_file(self, arm: str) -> Path:
        """File with the slicing of one arm."""
        return self.arm_folder(arm) / SLICING

    def results_root(self, arm: str, repeat: int) -> Path:
        """Folder that serves one training as nnUNet_results."""
        return self.arm_folder(arm) / f"repeat_{repeat}"

    def fold_folder(self, arm: str, repeat: int) -> Path:
        """Result folder of one training, as nnU-Net names it."""
        own = self.selection.fold_folder(self.trainer)
        return self.results_root(arm, repeat) / own.relative_to(require_folder("nnUNet_results"))

    @property
    def _first_trainer(self) -> str:
        return self.first_stage_trainer or self.trainer

    @property
    def first_stage(self) -> Path | None:
        """Result folder of a cascade's first stage, whose predictions all arms read; None without a cascade."""
        stage = self.selection.configuration_manager.previous_stage_name
        if stage is None:
            return None
        return replace(self.selection, configuration=stage).configuration_folder(self._first_trainer)

    def require_first_stage(self) -> None:
        """Raises InputError, naming what makes them, if a cascade's first stage has not predicted for the second."""
        require_first_stage(self.selection, self._first_trainer)

    def link_first_stage(self, arm: str, repeat: int) -> None:
        """Links a cascade's first stage into the results of one training: nnU-Net looks for its predictions there."""
        if self.first_stage is None:
            return
        # named as nnU-Net names it after the arms' trainer
        name = self.first_stage.name.partition("__")[2]
        link = self.results_root(arm, repeat) / self.selection.dataset / f"{self.trainer}__{name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.unlink(missing_ok=True)  # to where the results were before
            link.symlink_to(self.first_stage.absolute(), target_is_directory=True)

    def arms(self) -> list[Arm]:
        """The arms that are there, searches first, then in the order in which they were first named."""
        found = []
        for file in self.root.glob(f"*/{ARM_FILE}"):
            content = _ARM.read(file)
            try:
                found.append((content["place"], Arm(file.parent.name, content["kind"], content["value"])))
            except ValueError as error:
                raise InputError(f"{file} is not {_ARM.name} ({error}). {_ARM.remedy}") from error
        return [arm for _, arm in sorted(found, key=lambda item: (item[0], item[1].name))]

    def repeats(self, arm: str) -> list[int]:
        """Numbers of the trainings of an arm that have a folder."""
        numbers = (path.name.removeprefix("repeat_") for path in self.arm_folder(arm).glob("repeat_*"))
        return sorted(int(number) for number in numbers if is_number(number))

    def check(self, contents: Mapping[str, SlicingFile]) -> None:
        """Refuses a folder of another comparison, and arms that meant another slicing when they were begun.

        Raises InputError naming both and the remedy.
        """
        self.check_settings()
        for arm, content in contents.items():
            file = self.slicing_file(arm)
            if file.is_file() and (old := read_slicing_file(file)).slicing != content.slicing:
                raise InputError(
                    f"the arm {arm!r} was begun with another slicing than it means now ({file}, of {old.created}): "
                    f"move {file.parent} away to train it anew, give another --output, or compare the new one beside "
                    "it (NAME=FILE)"
                )

    def check_settings(self) -> None:
        """Refuses a folder of another comparison."""
        file = self.root / SETTINGS_FILE
        if file.is_file():
            old, now = _SETTINGS.read(file), self.settings
            different = [key for key in now if old.get(key) != now[key]]
            if different:
                listed = "; ".join(f"{key} {old.get(key)} there, {now[key]} now" for key in different)
                raise InputError(f"{self.root} holds another comparison: {listed}. Give another --output")
        elif self.root.is_dir() and any(self.root.iterdir()):
            raise InputError(f"{self.root} is not empty and holds no comparison; give another --output")

    def write(self, arms: list[Arm], contents: Mapping[str, SlicingFile]) -> None:
        """Writes settings and slicings that are not there yet; `check` comes first."""
        self.root.mkdir(parents=True, exist_ok=True)
        if not is_writable(self.root):
            raise InputError(f"{self.root} is not writable; give another --output")
        if not (self.root / SETTINGS_FILE).is_file():
            write_json(self.root / SETTINGS_FILE, self.settings)
        place = len(self.arms())
        for arm in arms:
            if not self.slicing_file(arm.name).is_file():
                write_slicing_file(contents[arm.name], self.slicing_file(arm.name))
            if not (self.arm_folder(arm.name) / ARM_FILE).is_file():
                entry = {"kind": arm.kind, "value": arm.value, "place": place}
                write_json(self.arm_folder(arm.name) / ARM_FILE, entry)
                place += 1


def comparison_folder(selection: Selection, trainer: str, output: Path | None) -> ComparisonFolder:
    """The folder of a comparison: `output`, else nnUNet_results/DATASET/comparison/TRAINER__PLANS__CONFIG/fold_X."""
    default = selection.configuration_folder(trainer)
    root = output or default.parent / "comparison" / default.name / f"fold_{selection.fold}"
    if root.exists() and not root.is_dir():
        raise InputError(f"--output {root} is a file; give a folder")
    return ComparisonFolder(selection, trainer, root.absolute())
