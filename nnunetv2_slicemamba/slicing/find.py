"""Places of a fold's slicing: the file that was set by hand, and those in the folders of supernets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetv2_slicemamba.common.names import DEFAULT_SUPERNET_TRAINER, names_supernet_trainer
from nnunetv2_slicemamba.common.shell import shell_line

SLICING_VARIABLE = "SLICEMAMBA_SLICING"
SEARCH_FOLDER = "slicing_search"
SET_FOLDER = "slicings"
SLICING_FILE = "best_slicing.json"
STUDY_FILE = "study.db"


class SlicingNotFoundError(FileNotFoundError):
    """Missing slicing file of a fold."""


class NothingChosenError(SlicingNotFoundError):
    """Missing slicing file where no search is on its way: no supernet of these plans was begun for any fold."""


class SeveralSlicingsError(ValueError):
    """More than one slicing file for a fold: `files`."""

    def __init__(self, message: str, files: list[Path]) -> None:
        super().__init__(message)
        self.files = files


def slicing_search_folder(fold_folder: str | Path) -> Path:
    """Folder that a search writes to, in the supernet's nnUNet_results/DATASET/TRAINER__PLANS__CONFIG/fold_X."""
    return Path(fold_folder) / SEARCH_FOLDER


def slicing_file_for_training(
    results_dataset_folder: str | Path,
    plans: str,
    configuration: str,
    fold: int | str,
    environ: Mapping[str, str] | None = None,
) -> Path:
    """The slicing file that a fold is trained with: $SLICEMAMBA_SLICING if that is set, else find_slicing_file's.

    environ: None stands for the process's environment. Raises SlicingNotFoundError if the variable names no file, and
    as find_slicing_file does.
    """
    named = (os.environ if environ is None else environ).get(SLICING_VARIABLE, "")
    if not named:
        return find_slicing_file(results_dataset_folder, plans, configuration, fold)
    path = Path(os.path.expanduser(named))  # which leaves "~" where there is no home
    if not path.is_file():
        raise SlicingNotFoundError(
            f"{SLICING_VARIABLE} is {named}, which is no file; name a {SLICING_FILE}, or unset {SLICING_VARIABLE} to "
            "use the fold's own"
        )
    return path


def set_slicing_file(results_dataset_folder: str | Path, plans: str, configuration: str, fold: int | str) -> Path:
    """The file of a fold's slicing that was set by hand, which need not be there.

    It lies beside the trainers' folders: nnUNet_results/DATASET/slicings/PLANS__CONFIG/fold_X.json.
    """
    return Path(results_dataset_folder) / SET_FOLDER / f"{plans}__{configuration}" / f"fold_{fold}.json"


def find_slicing_file(results_dataset_folder: str | Path, plans: str, configuration: str, fold: int | str) -> Path:
    """A fold's slicing file: the one that was set by hand, else searched_slicing_file's, with its errors.

    results_dataset_folder: nnUNet_results/DATASET. plans: name of the plans. fold: a number, or "all".
    """
    by_hand = set_slicing_file(results_dataset_folder, plans, configuration, fold)
    if by_hand.is_file():
        return by_hand
    return searched_slicing_file(results_dataset_folder, plans, configuration, fold)


def searched_slicing_file(results_dataset_folder: str | Path, plans: str, configuration: str, fold: int | str) -> Path:
    """The best_slicing.json of a fold, in the folder of whichever supernet trainer has one.

    Raises SlicingNotFoundError, with the commands that make one; NothingChosenError, which is one, if there is no
    supernet either; SeveralSlicingsError, which lists them.
    """
    folder = Path(results_dataset_folder)
    supernets = supernet_folders(folder, plans, configuration)
    files = [slicing_search_folder(supernet / f"fold_{fold}") / SLICING_FILE for supernet in supernets]
    found = [file for file in files if file.is_file()]
    if not found and not supernets:
        raise NothingChosenError(_how_to_get_one(folder, plans, configuration, fold, []))
    if not found:
        raise SlicingNotFoundError(_how_to_get_one(folder, plans, configuration, fold, supernets))
    if len(found) > 1:
        listed = "".join(f"\n  {path}" for path in found)
        raise SeveralSlicingsError(
            f"{len(found)} supernets have a slicing for {folder.name}, {configuration}, fold {fold}:{listed}\n"
            f"{SLICING_VARIABLE}=FILE decides: set it to one of them, or delete the others",
            found,
        )
    return found[0]


def supernet_folders(results_dataset_folder: str | Path, plans: str, configuration: str) -> list[Path]:
    """The folders TRAINER__PLANS__CONFIG of supernets that were begun, for whichever folds."""
    folder = Path(results_dataset_folder)
    found = []
    for trainer_folder in sorted(folder.iterdir()) if folder.is_dir() else []:
        trainer, *rest = trainer_folder.name.split("__")
        if rest == [plans, configuration] and names_supernet_trainer(trainer):
            found.append(trainer_folder)
    return found


def _how_to_get_one(folder: Path, plans: str, configuration: str, fold: int | str, supernets: Sequence[Path]) -> str:
    where = ("-d", folder.name, "-c", configuration, "-f", fold, "-p", plans)
    why = f"there is neither {set_slicing_file(folder, plans, configuration, fold)} nor a searched {SLICING_FILE}"
    if supernets:
        why = f"a search seems to be on its way, in {' and '.join(map(str, supernets))}"
    trainers = [supernet.name.partition("__")[0] for supernet in supernets]
    trainer = () if not trainers or DEFAULT_SUPERNET_TRAINER in trainers else ("-tr", trainers[0])
    return (
        f"no slicing for {folder.name}, {configuration}, fold {fold}: {why}. Get one in one of three ways:\n"
        f"  {shell_line('slicemamba', 'search', *where, *trainer)}\n"
        "      searches it with the fold's trained supernet\n"
        f"  {shell_line('slicemamba', 'slicing', *where, '--set', '2x4')}\n"
        "      sets it without a search (2x4x2 in 3D; random:SEED, consensus and a file work too)\n"
        f"  export {SLICING_VARIABLE}=FILE\n"
        f"      names any {SLICING_FILE} for this training"
    )
