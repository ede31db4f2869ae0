"""Key figures at the top of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from . import formats
from .gather import Gathered
from .models import Model


@dataclass(frozen=True)
class Tile:
    """A number worth seeing first: its name, the number, and what it rests on.

    trial: words for a training that is too short for a result, else empty.
    """

    label: str
    value: str
    note: str
    spread: str = ""
    trial: str = ""


def tiles(data: Gathered) -> list[Tile]:
    """The numbers to see first: results where there are any, the data to work with where not."""
    dataset = data.dataset
    found = [*_dice(data), *_fitness(data), *_time(data), *_parameters(data)]
    note = f"training, and {formats.count(dataset.n_test)} for testing" if dataset.n_test else "for training"
    found.append(Tile("Cases", formats.count(len(dataset.cases)), note))
    if len(found) < 4:
        names = ", ".join(name for name, _ in dataset.classes)
        found.append(Tile("Classes", str(len(dataset.classes)), names))
    if len(found) < 4 and dataset.shapes:
        sizes_of = dataset.shapes[0][1:] if dataset.is_2d else dataset.shapes[0]
        found.append(Tile("Median size", formats.product(sizes_of), "pixels" if dataset.is_2d else "voxels, z y x"))
    return found


def _dice(data: Gathered) -> list[Tile]:
    found = []
    validated = [model for model in data.models if model.validated and not model.is_supernet]
    ours = [model for model in validated if model.is_final] or validated
    if ours:
        best = max(ours, key=lambda model: model.dice.mean)
        folds = [fold.name for fold in best.validated]
        note = f"{best.trainer}, {'mean of ' if len(folds) > 1 else ''}{formats.folds_of(folds)}"
        deviation = "" if math.isnan(best.dice.deviation) else formats.dice(best.dice.deviation)
        trial = formats.trial(best.trial_epochs)
        found.append(Tile("Validation Dice", formats.dice(best.dice.mean), note, deviation, trial))
    for test_set in data.test_sets[:1]:
        scores = test_set.scores
        note = f"{test_set.name}, {formats.plural(len(scores.cases), 'case')}"
        if not math.isnan(test_set.low):
            note += f", 95{formats.THIN}% interval {test_set.low:.4f} to {test_set.high:.4f}"
        trial = formats.trial(_longest_trial(data.predicted_with(test_set)))
        found.append(Tile("Test Dice", formats.dice(scores.foreground), note, trial=trial))
    return found


def _longest_trial(models: Iterable[Model]) -> int | None:
    """Epochs of the longest training if all of these models are trials; None if one may be a real training."""
    epochs = [model.trial_epochs for model in models]
    told = [n for n in epochs if n is not None]
    return max(told) if told and len(told) == len(epochs) else None


def _fitness(data: Gathered) -> list[Tile]:
    found_searches = [fold.search for model in data.models for fold in model.folds if fold.search]
    searches = [search for search in found_searches if search.evaluations]
    best_fitness = [search.best_fitness for search in searches if not math.isnan(search.best_fitness)]
    if not best_fitness:
        return []
    note = f"{formats.plural(sum(s.evaluations for s in searches), 'evaluation')} in "
    note += formats.plural(len(searches), "search")
    if all(search.records for search in searches):
        note += f", {formats.duration(math.fsum(search.seconds for search in searches))}"
    return [Tile("Best fitness", formats.dice(max(best_fitness)), note)]


def _time(data: Gathered) -> list[Tile]:
    """Time of all trainings and searches, and the machines where nnU-Net's debug.json names them."""
    trained = [fold.training for model in data.models for fold in model.folds if fold.training]
    if not trained:
        return []
    searches = math.fsum(fold.search.seconds for model in data.models for fold in model.folds if fold.search)
    seconds = math.fsum(training.total_seconds for training in trained)
    epochs = sum(training.epochs for training in trained)
    note = f"{formats.plural(len(trained), 'training')}, {formats.plural(epochs, 'epoch')}"
    if searches:
        note += f": {formats.duration(seconds)}; searches: {formats.duration(searches)}"
    machines = list(dict.fromkeys(training.machine for training in trained if training.machine))
    note += f"; on {', '.join(machines)}" if machines else ""
    label = "Training and search time" if searches else "Training time"
    return [Tile(label, formats.duration(seconds + searches), note)]


def _parameters(data: Gathered) -> list[Tile]:
    """One tile for the networks of each plans and configuration that were trained."""
    found: dict[str, Tile] = {}
    for model in data.models:
        sizes = [fold.training.parameters for fold in model.folds if fold.training]
        plan = data.plan_of(model)
        if model.is_final and sizes:
            blocks = f"{formats.plural(plan.n_blocks, 'block')}, " if plan else ""
            note = f"{blocks}{model.plans_name}, {model.configuration}"
            found.setdefault(note, Tile("Parameters", formats.parameters(sizes[0]), note))
    return list(found.values())
