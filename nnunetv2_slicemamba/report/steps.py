"""State of every fold, and the commands that get what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnunetv2_slicemamba.common.names import DEFAULT_SUPERNET_TRAINER, final_trainer_name
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.planning.sizes import NETWORKS, PAPER, SIZES, plans_name_of

from .dataset import DatasetFacts, DatasetFolders
from .formats import folds_of
from .models import Fold, Model
from .plans import ConfigurationFacts

DONE, STARTED, MISSING = "done", "started", "missing"


@dataclass(frozen=True)
class StepRow:
    """A step of a model: its state and a few words per fold, in the order of `Steps.folds`."""

    model: str
    step: str
    states: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Remedy:
    """Something that is missing, and the commands that get it."""

    what: str
    commands: tuple[str, ...]


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
    remedies = _setup(folders, dataset, plans)
    # a plan without its data cannot be trained; the first thing to do is the only one to say
    if not remedies:
        for configuration in plans:
            if configuration.is_slicemamba:
                remedies.extend(_chain(folders.number, dataset, configuration, models))
        if dataset.n_test and not has_test_predictions:
            remedies.extend(_prediction(folders.number, models))
    return Steps(folds, tuple(rows), tuple(remedies))


def _chain_order(model: Model) -> tuple[bool, str, str, bool, str]:
    """SliceMamba's models first, a configuration's supernets before the networks that are chosen with them."""
    return (not model.is_slicemamba, model.plans_name, model.configuration, not model.is_supernet, model.trainer)


def _state(step: str, fold: Fold | None) -> tuple[str, str]:
    if fold is None:
        return MISSING, "not begun"
    if step == "validation":
        if fold.validation:
            return DONE, f"{len(fold.validation.cases)} cases"
        return MISSING, "not yet"
    if step == "search":
        search = fold.search
        if search is None:
            return MISSING, "not yet"
        if search.content is None:
            planned = search.planned_evaluations
            return STARTED, f"{len(search.records)} of {planned}" if planned else f"{len(search.records)} evaluations"
        if search.content.choice.how_chosen != "search":
            return DONE, f"set: {search.content.choice.how_chosen}"
        if not search.content.complete:
            planned = search.planned_evaluations
            return STARTED, f"{search.evaluations} of {planned}" if planned else "time budget over"
        return DONE, f"{search.evaluations} evaluations" if search.evaluations else "searched"
    training = fold.training
    if training is None:
        return (STARTED, "unreadable") if fold.problems else (MISSING, "no checkpoint")
    if training.finished:
        return DONE, f"{training.epochs} epochs"
    planned = training.planned_epochs
    return STARTED, f"epoch {training.epochs} of {planned}" if planned else f"epoch {training.epochs}"


def _setup(folders: DatasetFolders, dataset: DatasetFacts, plans: Sequence[ConfigurationFacts]) -> list[Remedy]:
    """Remedies for what is missing before any training."""
    number = folders.number
    ours = [one for one in plans if one.is_slicemamba]
    if not ours:
        has = f"{dataset.name} has no SliceMamba plans" if plans else f"{dataset.name} is not planned yet"
        command = shell_line("slicemamba", "plan", "-d", number, "--size", PAPER)
        return [Remedy(f"{has}; size {PAPER} is the paper's, S the smallest", (command,))]
    missing = [one for one in ours if not one.preprocessed]
    if len(missing) < len(ours):
        return []
    named = {plans_name_of(size, network): (size, network) for size in SIZES for network in NETWORKS}
    size, network = named.get(missing[0].plans_name, (PAPER, "paper"))
    flags = ["-d", number, "--size", size, "--network", network]
    flags += ["--activation-checkpointing"] if missing[0].activation_checkpointing else []
    command = shell_line("slicemamba", "plan", *flags, "-c", *(one.configuration for one in missing))
    return [Remedy("The preprocessed data are not here", (command,))]


def _chain(number: int, dataset: DatasetFacts, plan: ConfigurationFacts, models: Sequence[Model]) -> list[Remedy]:
    """Remedies for what is missing of the chain of one configuration."""
    same = [m for m in models if (m.plans_name, m.configuration) == (plan.plans_name, plan.configuration)]
    supernets, finals = [m for m in same if m.is_supernet], [m for m in same if m.is_final]
    where = f"{plan.plans_name}, {plan.configuration}"
    place = ("-d", number, "-c", plan.configuration)
    flags = ("-p", plan.plans_name)
    if not supernets and not finals:
        command = shell_line("slicemamba", "run", *place, "-f", *dataset.folds, *flags)
        return [Remedy(f"{where}: nothing is trained; this runs the whole chain", (command,))]
    remedies = []
    # a slicing from any supernet will do; who has none gets it from the first one
    chosen = {fold.name for model in supernets for fold in model.folds if fold.search and fold.search.content}
    for model in supernets:
        remedies.extend(_trainings(number, dataset, model, f"{model.trainer} ({where})", validate=False))
        trained = {fold.name for fold in model.folds if fold.training and fold.training.finished}
        # what is still to be trained is searched as soon as it is
        planned = _wanted(dataset, model) if model is supernets[0] else ()
        todo = [name for name in dict.fromkeys((*planned, *sorted(trained))) if name not in chosen]
        chosen.update(todo)
        commands = tuple(
            shell_line("slicemamba", "search", *place, "-f", fold, *flags, *_trainer_flag(model.trainer))
            for fold in todo
        )
        if commands:
            remedies.append(Remedy(f"{model.trainer} ({where}): no slicing for {folds_of(todo)}", commands))
    for model in finals:
        without = [name for name in _untrained(dataset, model) if name not in chosen]
        if without:
            remedies.append(_slicings(number, model, without, where))
        who = f"{model.trainer} ({where})"
        remedies.extend(_trainings(number, dataset, model, who, validate=True, told=without))
    if supernets and not finals:
        trainer = final_trainer_name(supernets[0].trainer)
        commands = tuple(
            shell_line("nnUNetv2_train", number, plan.configuration, fold, "-tr", trainer, *flags, "--npz")
            for fold in sorted(chosen)
        )
        remedies.append(Remedy(f"{where}: the chosen networks are not trained yet", commands))
    return remedies


def _slicings(number: int, model: Model, folds: Sequence[str], where: str) -> Remedy:
    """Final networks whose supernets are not here: trained elsewhere, or never."""
    settings = ("-d", number, "-c", model.configuration, "-p", model.plans_name)
    run = shell_line("slicemamba", "run", *settings, "-f", *folds, "-tr", model.trainer)
    what = f"{where}: no slicing for {folds_of(folds)}; this runs supernet, search and final training of"
    return Remedy(f"{what} {'it' if len(folds) == 1 else 'them'}", (run,))


def _wanted(dataset: DatasetFacts, model: Model) -> tuple[str, ...]:
    """The folds that a model should have: who trains on all cases does not want the folds."""
    return () if any(fold.name == "all" for fold in model.folds) else dataset.folds


def _untrained(dataset: DatasetFacts, model: Model) -> list[str]:
    """Wanted folds that have no checkpoint."""
    known = {fold.name: fold for fold in model.folds}
    return [name for name in _wanted(dataset, model) if name not in known or not known[name].training]


def _trainings(
    number: int, dataset: DatasetFacts, model: Model, who: str, validate: bool, told: Sequence[str] = ()
) -> list[Remedy]:
    """Trainings to begin, continue and validate. told: folds that another remedy trains."""

    def command(fold: str, *flags: str) -> str:
        network = ("-tr", model.trainer, "-p", model.plans_name)
        return shell_line("nnUNetv2_train", number, model.configuration, fold, *network, *flags)

    remedies = []
    absent = [name for name in _untrained(dataset, model) if name not in told]
    started = [fold.name for fold in model.folds if fold.training and not fold.training.finished]
    trained = [fold for fold in model.folds if fold.training and fold.training.finished]
    invalid = [fold.name for fold in trained if not fold.validation] if validate else []
    for names, words, *flags in (
        (absent, "not trained"),
        (started, "not finished, which --c continues,", "--c"),
        (invalid, "not validated", "--val"),
    ):
        if names:
            commands = tuple(command(name, *flags) for name in names)
            remedies.append(Remedy(f"{who}: {words} in {folds_of(names)}", commands))
    return remedies


def _prediction(number: int, models: Sequence[Model]) -> list[Remedy]:
    """Test cases are there, and no folder of predictions was passed."""
    for model in models:
        trained = [fold.name for fold in model.folds if fold.training and fold.training.finished]
        if model.is_final and trained:
            network = ("-c", model.configuration, "-tr", model.trainer, "-p", model.plans_name, "-f", *trained)
            predict = f'nnUNetv2_predict -d {number} -i "$nnUNet_raw"/Dataset{number:03d}_*/imagesTs ' + shell_line(
                "-o", "PREDICTIONS", *network
            )
            again = shell_line("slicemamba", "report", "-d", number, "--predictions", "PREDICTIONS")
            return [Remedy("No predictions of the test cases were passed to this report", (predict, again))]
    return []


def _trainer_flag(trainer: str) -> tuple[str, ...]:
    return () if trainer == DEFAULT_SUPERNET_TRAINER else ("-tr", trainer)
