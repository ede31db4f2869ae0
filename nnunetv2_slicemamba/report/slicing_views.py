"""Slicings of all folds, as the page shows them: a sentence where all blocks have one thickness, else drawn."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from nnunetv2_slicemamba.search import Slicing
from nnunetv2_slicemamba.search.figures.agreement import thickness_agreement
from nnunetv2_slicemamba.search.figures.network import describe_slicing
from nnunetv2_slicemamba.search.figures.style import colours_of, shown

from . import formats
from .figures import agreement_panel, slicing_panel
from .gather import Gathered
from .models import Model
from .plans import ConfigurationFacts

# of a slicing that only the weights tell
TRAINED_WITH = "as trained"
_WORDS = {"fixed": "set by hand", "file": "from a file"}


@dataclass(frozen=True)
class FoldSlicing:
    """A fold's slicing, drawn. source: where it is from, in words. warning: empty, or what does not fit together."""

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
class UniformSlicing:
    """Folds of which all blocks have one thickness: "2x4 in all 22 blocks". folds, source, warning: in words."""

    folds: str
    thickness: str
    n_blocks: int
    source: str
    warning: str


@dataclass(frozen=True)
class SlicingView:
    """The slicings of a configuration's folds: those of one thickness in a sentence, the others drawn.

    agreement: None for fewer than two drawn ones. is_3d: whether the blocks have a depth.
    """

    plans_name: str
    configuration: str
    uniform: list[UniformSlicing]
    slicings: list[FoldSlicing]
    agreement: FoldAgreement | None
    is_3d: bool


@dataclass(frozen=True)
class _Known:
    """A fold's slicing. candidates: that it was chosen from, empty if unknown."""

    slicing: Slicing
    source: str
    candidates: Slicing = ()


def slicing_views(data: Gathered) -> list[SlicingView]:
    """A view per configuration of which a slicing is known."""
    views = [_view(data, plan, f"slicing-{i}") for i, plan in enumerate(data.plans) if plan.is_slicemamba]
    return [view for view in views if view is not None]


def _view(data: Gathered, plan: ConfigurationFacts, name: str) -> SlicingView | None:
    fits = {fold: one for fold, one in _known(data, plan).items() if len(one.slicing) == plan.n_blocks}
    if not fits:
        return None
    chosen: dict[str, Slicing] = {fold: one.slicing for fold, one in fits.items()}
    candidates: Slicing = next((one.candidates for one in fits.values() if one.candidates), ())
    colours = colours_of(candidates, chosen.values())
    slicings, grouped = [], dict[tuple[str, str, str], list[str]]()
    for fold, one in fits.items():
        warning = _warning(data, plan, fold, one.slicing)
        if len(set(one.slicing)) == 1:
            grouped.setdefault((shown(one.slicing[0]), one.source, warning), []).append(fold)
            continue
        label = f"Slicing of fold {fold}, in network order: {describe_slicing(one.slicing, plan.stages)}."
        figure = slicing_panel(one.slicing, plan.stages, colours, f"{name}-network-{fold}", label)
        slicings.append(FoldSlicing(fold, one.source, figure, warning))
    uniform = [
        UniformSlicing(formats.folds_of(folds).capitalize(), thickness, plan.n_blocks, source, warning)
        for (thickness, source, warning), folds in grouped.items()
    ]
    agreement = None
    if len(fits) > 1 and slicings:
        shares = thickness_agreement(list(chosen.values()))
        chance = 1 / (len(candidates) or len(colours))
        told = f"{int((shares == 1).sum())} of {len(shares)} blocks have one thickness in all folds"
        label = f"Thickness of every block in folds {', '.join(chosen)}: {told}."
        figure = agreement_panel(chosen, plan.stages, colours, chance, f"{name}-agreement", label)
        agreement = FoldAgreement(figure, len(fits), float(shares.mean()), chance)
    is_3d = any(len(thickness) == 3 for thickness in colours)
    return SlicingView(plan.plans_name, plan.configuration, uniform, slicings, agreement, is_3d)


def _known(data: Gathered, plan: ConfigurationFacts) -> dict[str, _Known]:
    """The folds' slicings, in the folds' order: that of a file, else that of a final network's weights."""
    found: dict[str, _Known] = {}
    own = [model for model in data.models if _is_of(model, plan)]
    for model in own:
        for fold in model.folds:
            if model.is_final and fold.training and fold.training.slicing:
                found.setdefault(fold.name, _Known(fold.training.slicing, TRAINED_WITH))
    contents = {
        fold.name: fold.search.content
        for model in own
        if model.is_supernet
        for fold in model.folds
        if fold.search and fold.search.content
    }
    same = (plan.plans_name, plan.configuration)
    contents |= {one.fold: one.content for one in data.hand_set if (one.plans_name, one.configuration) == same}
    for name, content in contents.items():
        how = content.choice.how_chosen
        fitness = "" if content.choice.fitness is None else f", fitness {content.choice.fitness:.4f}"
        found[name] = _Known(content.slicing, f"{_WORDS.get(how, how)}{fitness}", content.candidates)
    return {fold: found[fold] for fold in sorted(found, key=lambda fold: (not fold.isdigit(), fold.zfill(3)))}


def _is_of(model: Model, plan: ConfigurationFacts) -> bool:
    return (model.plans_name, model.configuration) == (plan.plans_name, plan.configuration)


def _warning(data: Gathered, plan: ConfigurationFacts, fold: str, slicing: Slicing) -> str:
    """A sentence if a final network was trained with another slicing than this one, which the file holds now."""
    for model in data.models:
        final = model.fold(fold) if model.is_final and _is_of(model, plan) else None
        if final and final.training and final.training.slicing not in (None, slicing):
            return f"{model.identifier}, fold {fold}, was trained with another slicing than the file holds now."
    return ""
