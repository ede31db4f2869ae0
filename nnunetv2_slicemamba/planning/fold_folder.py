"""Result folders of one fold: a trainer's, and a supernet trainer's with the search in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nnunetv2_slicemamba.common.checkpoint_names import FINAL, UNFINISHED
from nnunetv2_slicemamba.common.names import is_number
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.slicing.find import SLICING_FILE, STUDY_FILE, slicing_search_folder
from nnunetv2_slicemamba.slicing.holdout_file import holdout_path


@dataclass(frozen=True)
class FoldFolder:
    """nnUNet_results/DATASET/TRAINER__PLANS__CONFIG/fold_X, which need not exist yet.

    selection: dataset, plans, configuration and fold. trainer: class name of the trainer.
    """

    selection: Selection
    trainer: str

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.selection.fold_folder(self.trainer)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of the finished training."""
        return self.path / FINAL

    @property
    def is_trained(self) -> bool:
        """True if the training has ended."""
        return self.checkpoint.is_file()

    @property
    def is_in_training(self) -> bool:
        """True if a training has begun and not ended."""
        return not self.is_trained and any((self.path / name).is_file() for name in UNFINISHED)

    @property
    def plans_file(self) -> Path:
        """The plans that the trainer was given, as nnU-Net keeps them beside the folds."""
        return self.path.parent / "plans.json"

    @property
    def summary(self) -> Path:
        """nnU-Net's summary of the fold's validation."""
        return self.path / "validation" / "summary.json"

    @property
    def train_command(self) -> str:
        """The nnU-Net command that trains this fold, or continues its training."""
        selection = self.selection
        work = (selection.dataset, selection.configuration, selection.fold)
        flags = ("-tr", self.trainer, "-p", selection.plans_name, *(["--c"] if self.is_in_training else []))
        return shell_line("nnUNetv2_train", *work, *flags)


def finals_root(selection: Selection, trainer: str) -> Path:
    """The folder of the finals of all folds' searches; those of a fold lie in `fold_X_...`. trainer: of the finals."""
    own = selection.configuration_folder(trainer)
    return own.parent / "finals" / own.name


@dataclass(frozen=True)
class SupernetFolder(FoldFolder):
    """The result folder of a fold's supernet, with the fold's slicing search in it."""

    @property
    def search(self) -> Path:
        """The folder in which the search keeps and writes everything."""
        return slicing_search_folder(self.path)

    @property
    def slicing_file(self) -> Path:
        """best_slicing.json, the fold's chosen slicing."""
        return self.search / SLICING_FILE

    @property
    def study(self) -> Path:
        """The Optuna study of the search's evaluations."""
        return self.search / STUDY_FILE

    @property
    def holdout_file(self) -> Path:
        """holdout.json, the training cases that are set aside for the search."""
        return holdout_path(self.path)

    @property
    def folds(self) -> dict[int | str, SupernetFolder]:
        """The folders of all folds that the supernet's trainer has begun, by fold."""
        found: dict[int | str, SupernetFolder] = {}
        for folder in sorted(self.path.parent.glob("fold_*")):
            name = folder.name.removeprefix("fold_")
            fold = int(name) if is_number(name) else name
            found[fold] = replace(self, selection=replace(self.selection, fold=fold))
        return found
