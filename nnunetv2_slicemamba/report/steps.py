"""State of every fold, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .dataset import DatasetFacts, DatasetFolders
from .formats import plural
from .hand_set import HandSet
from .models import Fold, Model
from .plans import ConfigurationFacts
from .remedies import Remedy, find_remedies

DONE, STARTED, MISSING = "done", "started", "missing"


@dataclass(frozen=True)
class StepRow:
    """A step of a model: its state and a few words per fold, in the order of `Steps.folds`."""

    model: str
    step: str
    states: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Steps:
    """State of all folds, and what to do next.

    folds: those of the splits and any others found. rows: a table of them. remedies: in the order to follow.
    """

    folds: tuple[str, ...]
    rows: tuple[StepRow, ...]
    remedies: tuple[Remedy, ...]


def find_steps(
    folders: DatasetFolders,
    dataset: DatasetFacts,
    plans: Sequence[ConfigurationFacts],
    models: Sequence[Model],
    hand_set: Sequence[HandSet],
    has_test_predictions: bool,
) -> Steps:
    """The state of everything, and what to do next."""
    found = {fold.name for model in models for fold in model.folds}
    # `all` and folds of other splits are shown where they exist, and not missed where they do not
    folds = (*dataset.folds, *sorted(found - set(dataset.folds)))
    rows: list[StepRow] = []
    for model in sorted(models, key=_chain_order):
        steps = ["training", "search"] if model.is_supernet else ["training", "validation"]
        rows.extend(
            StepRow(model.identifier, step, tuple(_state(step, model.fold(f)) for f in folds)) for step in steps
        )
    remedies = find_remedies(folders, dataset, plans, models, hand_set, has_test_predictions)
    return Steps(folds, tuple(rows), remedies)


def _chain_order(model: Model) -> tuple[bool, str, str, bool, str]:
    """SliceMamba's models first, a configuration's supernets before the networks that are chosen with them."""
    return (not model.is_slicemamba, model.plans_name, model.configuration, not model.is_supernet, model.trainer)


def _state(step: str, fold: Fold | None) -> tuple[str, str]:
    if fold is None:
        return MISSING, "not begun"
    if step == "validation":
        if fold.validation:
            return DONE, plural(len(fold.validation.cases), "case")
        return MISSING, "not yet"
    if step == "search":
        search = fold.search
        if search is None:
            return MISSING, "not yet"
        if search.content is None:
            planned = search.planned_evaluations
            return STARTED, f"{len(search.records)} of {planned}" if planned else plural(
                len(search.records), "evaluation"
            )
        if search.content.choice.how_chosen != "search":
            return DONE, f"set: {search.content.choice.how_chosen}"
        if not search.content.complete:
            planned = search.planned_evaluations
            return STARTED, f"{search.evaluations} of {planned}" if planned else "time budget over"
        return DONE, plural(search.evaluations, "evaluation") if search.evaluations else "searched"
    training = fold.training
    if training is None:
        return (STARTED, "unreadable") if fold.problems else (MISSING, "no checkpoint")
    if training.finished:
        return DONE, plural(training.epochs, "epoch")
    planned = training.planned_epochs
    return STARTED, f"epoch {training.epochs} of {planned}" if planned else f"epoch {training.epochs}"
