"""Commands that get what is missing of a dataset's trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnunetv2_slicemamba.common.names import DEFAULT_SUPERNET_TRAINER, final_trainer_name
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.planning.sizes import NETWORKS, PAPER, SIZES, plans_name_of
from nnunetv2_slicemamba.slicing.candidates import candidate_text
from nnunetv2_slicemamba.slicing.fixed import fixed_text

from .dataset import DatasetFacts, DatasetFolders
from .formats import folds_of
from .hand_set import HandSet
from .models import Model
from .plans import ConfigurationFacts


@dataclass(frozen=True)
class Remedy:
    """Something that is missing, and the commands that get it."""

    what: str
    commands: tuple[str, ...]


def find_remedies(
    folders: DatasetFolders,
    dataset: DatasetFacts,
    plans: Sequence[ConfigurationFacts],
    models: Sequence[Model],
    hand_set: Sequence[HandSet],
    has_test_predictions: bool,
) -> tuple[Remedy, ...]:
    """What is missing, in the order to get it. hand_set: slicings that were set without a search."""
    remedies = _setup(folders, dataset, plans)
    # a plan without its data cannot be trained; the first thing to do is the only one to say
    if not remedies:
        for configuration in plans:
            if configuration.is_slicemamba:
                remedies.extend(_chain(folders.number, dataset, configuration, models, hand_set))
        if dataset.n_test and not has_test_predictions:
            remedies.extend(_prediction(folders.number, models))
    return tuple(remedies)


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


def _chain(
    number: int,
    dataset: DatasetFacts,
    plan: ConfigurationFacts,
    models: Sequence[Model],
    hand_set: Sequence[HandSet],
) -> list[Remedy]:
    """Remedies for what is missing of the chain of one configuration."""
    same = [m for m in models if (m.plans_name, m.configuration) == (plan.plans_name, plan.configuration)]
    supernets, finals = [m for m in same if m.is_supernet], [m for m in same if m.is_final]
    by_hand = {
        one.fold: one
        for one in hand_set
        if (one.plans_name, one.configuration) == (plan.plans_name, plan.configuration)
    }
    where = f"{plan.plans_name}, {plan.configuration}"
    place = ("-d", number, "-c", plan.configuration)
    flags = ("-p", plan.plans_name)
    if not supernets and (finals or by_hand):
        return _without_search(number, dataset, plan, finals, by_hand)
    if not supernets:
        command = shell_line("slicemamba", "run", *place, "-f", *dataset.folds, *flags)
        return [Remedy(f"{where}: nothing is trained; this runs the whole chain", (command,))]
    remedies = []
    # a slicing from any supernet will do; who has none gets it from the first one
    chosen = {fold.name for model in supernets for fold in model.folds if fold.search and fold.search.content}
    chosen.update(by_hand)
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


def _without_search(
    number: int,
    dataset: DatasetFacts,
    plan: ConfigurationFacts,
    finals: Sequence[Model],
    by_hand: dict[str, HandSet],
) -> list[Remedy]:
    """Remedies where slicings were set, or are the trainer's own, and no supernet was begun."""
    where = f"{plan.plans_name}, {plan.configuration}"
    if not finals:
        folds = tuple(by_hand)
        network = ("-tr", final_trainer_name(by_hand[folds[0]].trainer), "-p", plan.plans_name)
        commands = tuple(shell_line("nnUNetv2_train", number, plan.configuration, fold, *network) for fold in folds)
        return [Remedy(f"{where}: a slicing is set, but not trained, for {folds_of(folds)}", commands)]
    remedies = []
    for model in finals:
        without = [name for name in _untrained(dataset, model) if name not in by_hand]
        value, trainer = _same_again(model, by_hand)
        if value in (fixed_text(2), fixed_text(3)):
            without = []  # trainings take it by themselves
        if without and value is None:
            remedies.append(_slicings(number, model, without, where))
        elif without and value is not None:
            setting = ("-d", number, "-c", plan.configuration)
            flags = ("-p", plan.plans_name, *_trainer_flag(trainer), "--set", value)
            command = shell_line("slicemamba", "slicing", *setting, "-f", *without, *flags)
            what = f"{where}: no slicing for {folds_of(without)}; this sets the same as in the other folds"
            remedies.append(Remedy(what, (command,)))
        who = f"{model.trainer} ({where})"
        told = without if value is None else ()
        remedies.extend(_trainings(number, dataset, model, who, validate=True, told=told))
    return remedies


def _same_again(model: Model, by_hand: dict[str, HandSet]) -> tuple[str | None, str]:
    """What `slicemamba slicing` takes to set a trained fold's slicing for another one, and its `-tr`.

    None if nobody can tell: every fold may have been searched elsewhere.
    """
    for one in by_hand.values():
        return one.value, one.trainer
    slicings = {fold.training.slicing for fold in model.folds if fold.training and fold.training.slicing}
    thicknesses = {thickness for slicing in slicings for thickness in slicing}
    value = candidate_text(*thicknesses) if len(thicknesses) == 1 else None
    return value, DEFAULT_SUPERNET_TRAINER


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
