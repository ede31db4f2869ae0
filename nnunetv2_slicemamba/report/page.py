"""Content of the page: the gathered data as tiles, tables and drawn figures, in the order of the sections."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from nnunetv2_slicemamba.search import Slicing
from nnunetv2_slicemamba.search.figures.agreement import thickness_agreement
from nnunetv2_slicemamba.search.figures.network import describe_slicing
from nnunetv2_slicemamba.search.figures.style import colours_of
from nnunetv2_slicemamba.slicing.candidates import axes_of

from . import formats
from .case_gallery import CaseGroup, case_groups, example_cases
from .figures import agreement_panel, dice_panel, search_panel, slicing_panel, training_panels
from .gather import Gathered
from .models import Fold, Model


@dataclass(frozen=True)
class Tile:
    """A number worth seeing first: its name, the number, and what it rests on."""

    label: str
    value: str
    note: str
    spread: str = ""


@dataclass(frozen=True)
class TrainingView:
    """A model's curves, and its folds for the table below them."""

    model: Model
    panels: list[Markup]


@dataclass(frozen=True)
class FoldSlicing:
    """A fold's chosen slicing. source: where it is from, in words. warning: empty, or what does not fit together."""

    fold: str
    source: str
    figure: Markup
    warning: str


@dataclass(frozen=True)
class FoldAgreement:
    """Slicings of n_folds folds beside each other, and the share of pairs of folds that agree, over all blocks.

    chance: the share that uniformly drawn candidates would have.
    """

    figure: Markup
    n_folds: int
    share: float
    chance: float


@dataclass(frozen=True)
class SearchView:
    """A supernet's searches: fitness per fold, the chosen slicings, and how far the folds agree.

    agreement: None for fewer than two slicings. is_3d: whether the blocks have a depth.
    """

    model: Model
    panels: list[Markup]
    slicings: list[FoldSlicing]
    agreement: FoldAgreement | None
    is_3d: bool


@dataclass(frozen=True)
class Page:
    """Content of the page, as the template needs it."""

    data: Gathered
    tiles: list[Tile]
    examples: list[CaseGroup]
    trainings: list[TrainingView]
    searches: list[SearchView]
    dice_figure: Markup | None
    cases: list[CaseGroup]
    problems: list[tuple[str, str]]


def build_page(data: Gathered, progress: Callable[[str, int, int], None] = lambda *_: None) -> Page:
    """Draws everything. progress: called with (phase, done, total)."""
    trainings = []
    for i, model in enumerate(data.models):
        progress("drawing curves", i + 1, len(data.models))
        trainings.append(TrainingView(model, training_panels(model, f"curve-{i}")))
    searches = [
        view
        for i, model in enumerate(data.models)
        if model.is_supernet and (view := search_view(data, model, f"search-{i}"))
    ]
    groups = [
        (m.identifier, [(f"fold {f.name}", f.validation.cases) for f in m.folds if f.validation]) for m in data.models
    ]
    groups += [(test_set.name, [("test", test_set.scores.cases)]) for test_set in data.test_sets]
    problems = [
        (f"{model.identifier}, fold {fold.name}", problem)
        for model in data.models
        for fold in model.folds
        for problem in fold.problems
    ]
    cases = case_groups(data, progress)
    for group in cases:
        problems.extend((group.title, problem) for problem in group.problems)
    return Page(
        data=data,
        tiles=tiles(data),
        examples=example_cases(data),
        trainings=trainings,
        searches=searches,
        dice_figure=dice_panel(groups, "dice-cases"),
        cases=cases,
        problems=problems,
    )


def tiles(data: Gathered) -> list[Tile]:
    """The numbers to see first: results where there are any, the data to work with where not."""
    dataset, found = data.dataset, []
    validated = [model for model in data.models if model.validated and not model.is_supernet]
    ours = [model for model in validated if model.is_final] or validated
    if ours:
        best = max(ours, key=lambda model: model.dice.mean)
        folds = [fold.name for fold in best.validated]
        note = f"{best.trainer}, {'mean of ' if len(folds) > 1 else ''}{formats.folds_of(folds)}"
        deviation = "" if math.isnan(best.dice.deviation) else formats.dice(best.dice.deviation)
        found.append(Tile("Validation Dice", formats.dice(best.dice.mean), note, deviation))
    for test_set in data.test_sets[:1]:
        scores = test_set.scores
        note = f"{test_set.name}, {formats.plural(len(scores.cases), 'case')}"
        if not math.isnan(test_set.low):
            note += f", 95{formats.THIN}% interval {test_set.low:.4f} to {test_set.high:.4f}"
        found.append(Tile("Test Dice", formats.dice(scores.foreground), note))
    found_searches = [fold.search for model in data.models for fold in model.folds if fold.search]
    searches = [search for search in found_searches if search.evaluations]
    best_fitness = [search.best_fitness for search in searches if not math.isnan(search.best_fitness)]
    if best_fitness:
        note = f"{formats.plural(sum(s.evaluations for s in searches), 'evaluation')} in "
        note += formats.plural(len(searches), "search")
        if all(search.records for search in searches):
            note += f", {formats.duration(math.fsum(search.seconds for search in searches))}"
        found.append(Tile("Best fitness", formats.dice(max(best_fitness)), note))
    trained = [fold.training for model in data.models for fold in model.folds if fold.training]
    if trained:
        seconds = math.fsum(training.total_seconds for training in trained)
        note = f"{formats.plural(len(trained), 'training')}, {formats.plural(sum(t.epochs for t in trained), 'epoch')}"
        found.append(Tile("Training time", formats.duration(seconds), note))
    sizes = sorted(
        {fold.training.parameters for model in data.models if model.is_final for fold in model.folds if fold.training}
    )
    if sizes:
        note = ", ".join(
            sorted({f"{plan.n_blocks} blocks, {plan.plans_name}" for plan in data.plans if plan.is_slicemamba})
        )
        found.append(Tile("Parameters", formats.parameters(sizes[0]), note))
    note = f"training, and {formats.count(dataset.n_test)} for testing" if dataset.n_test else "for training"
    found.append(Tile("Cases", formats.count(len(dataset.cases)), note))
    if len(found) < 4:
        names = ", ".join(name for name, _ in dataset.classes)
        found.append(Tile("Classes", str(len(dataset.classes)), names))
    if len(found) < 4 and dataset.shapes:
        sizes_of = dataset.shapes[0][1:] if dataset.is_2d else dataset.shapes[0]
        found.append(Tile("Median size", formats.product(sizes_of), "pixels" if dataset.is_2d else "voxels, z y x"))
    return found


def search_view(data: Gathered, supernet: Model, name: str) -> SearchView | None:
    """The searches of one supernet; None if there is none."""
    searched = [fold for fold in supernet.folds if fold.search]
    plan = data.plan_of(supernet)
    if not searched:
        return None
    panels = [
        panel for f in searched if f.search and (panel := search_panel(f.search, f.name, f"{name}-fitness-{f.name}"))
    ]
    chosen: dict[str, Slicing] = {f.name: f.search.content.slicing for f in searched if f.search and f.search.content}
    candidates: Slicing = next((f.search.content.candidates for f in searched if f.search and f.search.content), ())
    stages = plan.stages if plan else ()
    fits = {fold: slicing for fold, slicing in chosen.items() if plan and len(slicing) == plan.n_blocks}
    colours = colours_of(candidates, fits.values())
    slicings = []
    for fold in searched:
        if fold.name in fits and fold.search and fold.search.content:
            choice = fold.search.content.choice
            label = f"Slicing of fold {fold.name}, in network order: {describe_slicing(fits[fold.name], stages)}."
            figure = slicing_panel(fits[fold.name], stages, colours, f"{name}-network-{fold.name}", label)
            fitness = "" if choice.fitness is None else f", fitness {choice.fitness:.4f}"
            slicings.append(
                FoldSlicing(fold.name, f"{choice.how_chosen}{fitness}", figure, _warning(data, supernet, fold))
            )
    agreement = None
    if len(fits) > 1:
        shares = thickness_agreement(list(fits.values()))
        chance = 1 / (len(candidates) or len(colours))
        told = f"{int((shares == 1).sum())} of {len(shares)} blocks have one thickness in all folds"
        label = f"Thickness of every block in folds {', '.join(fits)}: {told}."
        figure = agreement_panel(fits, stages, colours, chance, f"{name}-agreement", label)
        agreement = FoldAgreement(figure, len(fits), float(shares.mean()), chance)
    is_3d = axes_of(colours) == 3
    return SearchView(supernet, panels, slicings, agreement, is_3d)


def _warning(data: Gathered, supernet: Model, fold: Fold) -> str:
    """A sentence if a final network was trained with another slicing than the fold's file holds now, else empty."""
    assert fold.search
    assert fold.search.content
    for model in data.models:
        same = (model.plans_name, model.configuration) == (supernet.plans_name, supernet.configuration)
        final = model.fold(fold.name) if model.is_final and same else None
        if final and final.training and final.training.slicing not in (None, fold.search.content.slicing):
            return f"{model.identifier}, fold {fold.name}, was trained with another slicing than the file holds now."
    return ""
