"""Trainings in nnUNet_results, with what each of their folds has reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_slicemamba.common.checkpoints import CheckpointError
from nnunetv2_slicemamba.common.names import fold_order, names_supernet_trainer
from nnunetv2_slicemamba.common.nnunet_files import DEBUG_JSON
from nnunetv2_slicemamba.slicing.holdout_file import Holdout, HoldoutError, holdout_path, read_holdout

from .dataset import DatasetFacts, DatasetFolders
from .results import CaseDice, DiceSummary, Spread, SummaryError, read_summary, spread
from .searches import Search, read_search
from .trainings import TrainingProgress, newest_checkpoint, read_progress

SUMMARY = Path("validation") / "summary.json"
# fewer finished epochs than these are a trial of the commands, not a result
FEWEST_EPOCHS = 10


@dataclass(frozen=True)
class Fold:
    """A fold's folder. training, validation, search, holdout: None if it has none. problems: what is unreadable."""

    name: str
    folder: Path
    training: TrainingProgress | None
    validation: DiceSummary | None
    search: Search | None
    problems: tuple[str, ...]
    holdout: Holdout | None = None


@dataclass(frozen=True)
class Model:
    """A TRAINER__PLANS__CONFIG folder. folds: those that exist, in order."""

    trainer: str
    plans_name: str
    configuration: str
    folds: tuple[Fold, ...]

    @property
    def identifier(self) -> str:
        """The folder's name."""
        return f"{self.trainer}__{self.plans_name}__{self.configuration}"

    @property
    def is_slicemamba(self) -> bool:
        """True for the trainers of this package."""
        return self.trainer.startswith("SliceMamba")

    @property
    def is_supernet(self) -> bool:
        """True for the trainers of a supernet."""
        return names_supernet_trainer(self.trainer)

    @property
    def is_baseline(self) -> bool:
        """True for nnU-Net's default network, trained for however many epochs."""
        return self.trainer.startswith("nnUNetTrainer") and self.plans_name == "nnUNetPlans"

    @property
    def holds_slicings_only(self) -> bool:
        """True for a supernet's folder that only keeps slicings which were set without it."""
        return self.is_supernet and all(
            fold.training is None
            and not fold.problems
            and fold.holdout is None
            and fold.search is not None
            and not fold.search.records
            and fold.search.content is not None
            and not fold.search.is_searched
            for fold in self.folds
        )

    @property
    def trial_epochs(self) -> int | None:
        """Epochs of the longest training where all are trials; None for a real training, and without any."""
        epochs = [fold.training.epochs for fold in self.folds if fold.training]
        return max(epochs) if epochs and max(epochs) < FEWEST_EPOCHS else None

    @property
    def is_final(self) -> bool:
        """A SliceMamba network with a slicing of its own, not a supernet."""
        return self.is_slicemamba and not self.is_supernet

    @property
    def validated(self) -> tuple[Fold, ...]:
        """The folds with a validation."""
        return tuple(fold for fold in self.folds if fold.validation)

    @property
    def dice(self) -> Spread:
        """Mean foreground Dice over the validated folds."""
        return spread(fold.validation.foreground for fold in self.folds if fold.validation)

    @property
    def cases(self) -> tuple[CaseDice, ...]:
        """The validation cases of all folds."""
        return tuple(case for fold in self.folds if fold.validation for case in fold.validation.cases)

    def fold(self, name: str) -> Fold | None:
        """The fold of this name, None if it does not exist."""
        return next((fold for fold in self.folds if fold.name == name), None)


def model_folders(folders: DatasetFolders, wanted: Sequence[str] | None) -> list[Path]:
    """The result folders of the wanted configurations (None for all), by name. Other folders are nnU-Net's own."""
    if folders.results is None:
        return []
    return [
        folder
        for folder in sorted(folders.results.iterdir())
        if folder.is_dir()
        and len(folder.name.split("__")) == 3
        and (wanted is None or folder.name.split("__")[2] in wanted)
        and any(folder.glob("fold_*"))
    ]


def read_models(
    found: Sequence[Path], dataset: DatasetFacts, report: Callable[[str], None] = lambda text: None
) -> tuple[Model, ...]:
    """The models in these folders: final SliceMamba trainers first, then others, supernets last.

    report: is called with what is read next.
    """
    models = []
    for folder in found:
        trainer, plans_name, configuration = folder.name.split("__")
        folds = []
        for path in sorted(folder.glob("fold_*"), key=lambda path: fold_order(path.name.removeprefix("fold_"))):
            report(f"{folder.name}, {path.name}")
            folds.append(read_fold(path, dataset))
        models.append(Model(trainer, plans_name, configuration, tuple(folds)))
    return tuple(sorted(models, key=lambda model: (model.is_supernet, not model.is_slicemamba, model.identifier)))


def read_fold(folder: Path, dataset: DatasetFacts) -> Fold:
    """Reads everything in a fold's folder; what cannot be read becomes a problem, not an error."""
    problems: list[str] = []
    training, validation = None, None
    checkpoint = newest_checkpoint(folder)
    if checkpoint is not None:
        try:
            training = read_progress(checkpoint, DEBUG_JSON.read_if_there(folder / "debug.json"))
        except ValueError as error:
            problems.append(_shortened(error, folder))
            if not isinstance(error, CheckpointError):
                training = read_progress(checkpoint)
    if (folder / SUMMARY).is_file():
        try:
            validation = read_summary(folder / SUMMARY, dataset)
        except SummaryError as error:
            problems.append(_shortened(error, folder))
    search = read_search(folder)
    if search:
        problems.extend(_shortened(problem, folder) for problem in search.problems)
    holdout = None
    try:
        holdout = read_holdout(holdout_path(folder))
    except HoldoutError as error:
        problems.append(_shortened(error, folder))
    return Fold(folder.name.removeprefix("fold_"), folder, training, validation, search, tuple(problems), holdout)


def _shortened(problem: object, folder: Path) -> str:
    """Without the part of the paths that is the machine's and not the model's."""
    return str(problem).replace(f"{folder.parent.parent}/", "")
