"""Trainings of a comparison: their states, and the command that runs each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_slicemamba.common.checkpoint_names import FINAL, UNFINISHED
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_plans
from nnunetv2_slicemamba.common.nnunet_files import PLANS_JSON, SUMMARY_JSON
from nnunetv2_slicemamba.comparison.folder import ComparisonFolder
from nnunetv2_slicemamba.slicing.candidates import Slicing
from nnunetv2_slicemamba.slicing.trained import trained_slicing

NEW, CONTINUE, VALIDATE, FINISHED = "to train", "to continue", "to validate", "finished"
REMEDY = "Move its folder away to train anew, or restore the file: nnUNet_preprocessed has the same plans"
_FLAGS = {NEW: [], CONTINUE: ["--c"], VALIDATE: ["--val"]}


@dataclass(frozen=True)
class ArmTraining:
    """One training of one arm, and its state: NEW, CONTINUE, VALIDATE or FINISHED."""

    folder: ComparisonFolder
    arm: str
    repeat: int
    state: str

    @property
    def name(self) -> str:
        """Name for people: arm and repeat."""
        return f"{self.arm}, repeat {self.repeat}"

    @property
    def lock_file(self) -> Path:
        """File that is locked while this training runs."""
        return self.folder.arm_folder(self.arm) / f".repeat_{self.repeat}.lock"

    def arguments(self, device: str) -> list[str]:
        """Arguments of nnUNetv2_train."""
        selection = self.folder.selection
        return [
            *(selection.dataset, selection.configuration, str(selection.fold)),
            *("-tr", self.folder.trainer, "-p", selection.plans_name, "-device", device),
            *_FLAGS[self.state],
        ]

    def variables(self) -> dict[str, str]:
        """Environment variables of nnUNetv2_train."""
        return {
            "nnUNet_results": str(self.folder.results_root(self.arm, self.repeat)),
            "SLICEMAMBA_SLICING": str(self.folder.slicing_file(self.arm)),
        }


def trainings_of(folder: ComparisonFolder, slicings: dict[str, Slicing], repeats: int) -> list[ArmTraining]:
    """Every training of the arms, repeat after repeat, so that all arms have one training before one has two.

    slicings: of the arms by name. Raises InputError if what lies in a folder does not belong to the comparison.
    """
    return [
        ArmTraining(folder, arm, repeat, state_of(folder.fold_folder(arm, repeat), folder, slicing))
        for repeat in range(repeats)
        for arm, slicing in slicings.items()
    ]


def state_of(fold_folder: Path, folder: ComparisonFolder, slicing: Slicing) -> str:
    """State of the training in a result folder; InputError if its plans or slicing are not the arm's."""
    trained = (fold_folder / FINAL).is_file()
    checkpoint = next((fold_folder / name for name in (FINAL, *UNFINISHED) if (fold_folder / name).is_file()), None)
    if checkpoint is None:
        return NEW
    _check_plans(fold_folder.parent / "plans.json", folder)
    _check_slicing(checkpoint, slicing)
    if not trained:
        return CONTINUE
    return FINISHED if SUMMARY_JSON.is_readable(fold_folder / "validation" / "summary.json") else VALIDATE


def _check_plans(file: Path, folder: ComparisonFolder) -> None:
    if not file.is_file():
        return
    selection = folder.selection
    then = sha256_of_plans(PLANS_JSON.read(file, REMEDY), selection.configuration)
    if then != folder.settings["plans_sha256"]:
        raise InputError(
            f"{file.parent} was trained with other plans {selection.plans_name!r} than nnUNet_preprocessed has now "
            f"(SHA-256 {then[:12]}... there, {folder.settings['plans_sha256'][:12]}... now); restore the plans, or "
            "give another --output"
        )


def _check_slicing(checkpoint: Path, slicing: Slicing) -> None:
    if trained_slicing(checkpoint) != slicing:
        raise InputError(
            f"{checkpoint} was trained with another slicing than its arm has; move the folder {checkpoint.parent} away "
            "to train it anew, or give another --output"
        )


def listed_states(trainings: Sequence[ArmTraining]) -> str:
    """Numbers of trainings per state, in words."""
    counts = {state: sum(t.state == state for t in trainings) for state in (FINISHED, VALIDATE, CONTINUE, NEW)}
    return ", ".join(f"{number} {state}" for state, number in counts.items() if number)
