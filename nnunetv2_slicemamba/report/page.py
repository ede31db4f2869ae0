"""Content of the page: the gathered data as tiles, tables and drawn figures, in the order of the sections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from nnunetv2_slicemamba.search.noise import Noise, noise_of

from .case_gallery import CaseGroup, case_groups, example_cases
from .figures import dice_panel, search_panel, too_short, training_panels
from .gather import Gathered
from .models import Model
from .slicing_views import SlicingView, slicing_views
from .tiles import Tile, tiles


@dataclass(frozen=True)
class TrainingView:
    """A model's curves, and its folds for the table below them. too_short: a sentence in place of curves, or empty."""

    model: Model
    panels: list[Markup]
    too_short: str


@dataclass(frozen=True)
class SearchView:
    """A supernet's searches: fitness per fold, and how much of it is noise, a sentence per fold."""

    model: Model
    panels: list[Markup]
    noise: list[str]


@dataclass(frozen=True)
class Page:
    """Content of the page, as the template needs it."""

    data: Gathered
    tiles: list[Tile]
    examples: list[CaseGroup]
    trainings: list[TrainingView]
    searches: list[SearchView]
    slicings: list[SlicingView]
    dice_figure: Markup | None
    cases: list[CaseGroup]
    problems: list[tuple[str, str]]


def build_page(data: Gathered, progress: Callable[[str, int, int], None] = lambda *_: None) -> Page:
    """Draws everything. progress: called with (phase, done, total)."""
    trainings = []
    for i, model in enumerate(data.models):
        progress("drawing curves", i + 1, len(data.models))
        trainings.append(TrainingView(model, training_panels(model, f"curve-{i}"), too_short(model)))
    searches = [
        view for i, model in enumerate(data.models) if model.is_supernet and (view := search_view(model, f"search-{i}"))
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
    problems.extend(data.problems)
    cases = case_groups(data, progress)
    for group in cases:
        problems.extend((group.title, problem) for problem in group.problems)
    return Page(
        data=data,
        tiles=tiles(data),
        examples=example_cases(data),
        trainings=trainings,
        searches=searches,
        slicings=slicing_views(data),
        dice_figure=dice_panel(groups, "dice-cases"),
        cases=cases,
        problems=problems,
    )


def search_view(supernet: Model, name: str) -> SearchView | None:
    """The searches of one supernet; None if there is none."""
    searched = [(fold.name, fold.search) for fold in supernet.folds if fold.search]
    if not searched:
        return None
    panels = [panel for fold, search in searched if (panel := search_panel(search, fold, f"{name}-fitness-{fold}"))]
    noise = [
        f"Fold {fold}: {told.verdict} {told.evidence}"
        for fold, search in searched
        if isinstance(told := noise_of(search.records), Noise)
    ]
    return SearchView(supernet, panels, noise)
