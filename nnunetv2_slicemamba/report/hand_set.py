"""Slicings that were set without a search, wherever they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnunetv2_slicemamba.common.names import DEFAULT_SUPERNET_TRAINER
from nnunetv2_slicemamba.search import SlicingFile, SlicingFileError, read_slicing_file
from nnunetv2_slicemamba.search.choosing.of_folder import SET
from nnunetv2_slicemamba.slicing.candidates import candidate_text
from nnunetv2_slicemamba.slicing.find import SET_FOLDER

from .dataset import DatasetFolders
from .models import Model


@dataclass(frozen=True)
class HandSet:
    """A fold's slicing that was set without a search. trainer: the supernet's in whose folder it lies, or the usual."""

    plans_name: str
    configuration: str
    fold: str
    content: SlicingFile
    trainer: str = DEFAULT_SUPERNET_TRAINER

    @property
    def value(self) -> str:
        """What `slicemamba slicing --set` takes to set it again."""
        return set_value(self.content)


def set_value(content: SlicingFile) -> str:
    """What `slicemamba slicing --set` takes for a choice that no search made; FILE where only the user knows."""
    choice = content.choice
    if SET in choice.details:
        return str(choice.details[SET])
    if choice.how_chosen == "random":
        return f"random:{choice.seed}"
    if choice.how_chosen == "fixed":
        return candidate_text(choice.slicing[0])
    return "consensus" if choice.how_chosen == "consensus" else "FILE"


def read_hand_set(
    folders: DatasetFolders, models: Sequence[Model], wanted: Sequence[str] | None
) -> tuple[tuple[HandSet, ...], tuple[tuple[str, str], ...]]:
    """The slicings that were set without a search, and (place, problem) of those that cannot be read.

    models: those found; of supernets' folders, the ones that hold nothing but slicings are read. wanted:
    configurations, None for all.
    """
    found = {
        (model.plans_name, model.configuration, fold.name): HandSet(
            model.plans_name, model.configuration, fold.name, fold.search.content, model.trainer
        )
        for model in models
        if model.holds_slicings_only
        for fold in model.folds
        if fold.search and fold.search.content
    }
    problems = []
    files = sorted((folders.results / SET_FOLDER).glob("*__*/fold_*.json")) if folders.results else []
    for file in files:
        plans_name, _, configuration = file.parent.name.partition("__")
        fold = file.stem.removeprefix("fold_")
        if wanted is not None and configuration not in wanted:
            continue
        try:
            found[plans_name, configuration, fold] = HandSet(plans_name, configuration, fold, read_slicing_file(file))
        except SlicingFileError as error:
            problems.append((f"{SET_FOLDER}/{file.parent.name}", str(error).replace(f"{folders.results}/", "")))
    return tuple(found.values()), tuple(problems)
