"""Ranking of a comparison's arms: the supernet's fitness beside the Dice after retraining."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_file, sha256_of_names
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.comparison.arms import CHOSEN_BY_SEARCH
from nnunetv2_slicemamba.comparison.correlation import FEWEST, Correlation, RankAgreement, conclusion, rank_agreement
from nnunetv2_slicemamba.comparison.folder import ComparisonFolder
from nnunetv2_slicemamba.comparison.ranking import RankedArm, Ranking
from nnunetv2_slicemamba.comparison.results import ArmResult, ComparisonResult, collect
from nnunetv2_slicemamba.comparison.scatter import write_scatter
from nnunetv2_slicemamba.comparison.tables import dice
from nnunetv2_slicemamba.comparison.work import work_of
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.search.evaluation.supernet_fold import (
    MIRRORING,
    TILE_STEP_SIZE,
    SupernetFold,
    check_same_plans,
)
from nnunetv2_slicemamba.search.fitness import FITNESS_DEFINITION
from nnunetv2_slicemamba.search.ledger.fold_ledger import read_fold_ledger
from nnunetv2_slicemamba.search.ledger.ledger import has_ledger
from nnunetv2_slicemamba.slicing.candidates import Architecture, Slicing

if TYPE_CHECKING:
    import torch

RANK_FILE, RANK_FIGURE, FITNESS_FILE = "rank.json", "rank.png", "supernet_fitness.json"
_FITNESS = JsonKind(
    "a comparison's fitness of architectures",
    {"evaluations": [{"architecture": [int], "fitness": (float, None)}]},
    "Delete it, and the same command makes it again",
)
LEDGER, EVALUATED = "the search", "evaluated"


def rank_arms(folder: ComparisonFolder, supernet: SupernetFolder, device: torch.device, console: Console) -> Ranking:
    """Fitness and retrained Dice of every arm that has both, and their rank correlation; writes rank.json and rank.png.

    Fitness that the fold's search did not evaluate is evaluated now and kept, so the command can be stopped. Raises
    InputError for fewer than three arms, SupernetError without the trained supernet.
    """
    result = collect(folder)
    usable, left_out = usable_arms(result, folder.selection.candidates)
    if len(usable) < FEWEST:
        reasons = "".join(f"\n  {name}: {why}" for name, why in left_out.items())
        raise InputError(
            f"{folder.root} has {len(usable)} arms that can be ranked, a rank correlation needs at least {FEWEST}; add "
            f"some with 'slicemamba compare --arms'{reasons}"
        )
    check_same_plans(supernet)
    fitness = fitness_of([architecture for _, architecture in usable], folder, supernet, device, console)
    works = work_of(folder.selection, [row.slicing for row, _ in usable])
    arms = tuple(
        RankedArm(
            row.arm.name,
            row.arm.kind,
            architecture,
            *fitness[architecture],
            row.mean,
            row.spread,
            len(row.dice),
            work.parameters,
            work.flops,
        )
        for (row, architecture), work in zip(usable, works, strict=True)
    )
    undefined = [arm.name for arm in arms if math.isnan(arm.fitness)]
    if undefined:
        raise InputError(f"the supernet's fitness of {', '.join(undefined)} is undefined: no case has foreground")
    try:
        found = rank_agreement([arm.fitness for arm in arms], [arm.dice for arm in arms])
    except ValueError as error:
        raise InputError(f"the {len(arms)} arms in {folder.root} have no rank correlation: {error}") from error
    said = conclusion(found)
    controls = {
        "parameters": _control([arm.parameters for arm in arms], arms),
        "FLOPs": _control([arm.flops for arm in arms], arms),
    }
    selection = folder.selection
    title = f"{selection.dataset}, {selection.configuration}, fold {selection.fold}"
    figure = write_scatter(arms, found, title, folder.root / RANK_FIGURE)
    content = {
        **folder.settings,
        "supernet_trainer": supernet.trainer,
        "fitness_definition": FITNESS_DEFINITION,
        "n": found.n,
        "kendall_tau_b": asdict(found.kendall),
        "spearman_rho": asdict(found.spearman),
        "interval": "95 %, inverted one-sided tests under a bivariate normal distribution",
        "smallest_significant_tau": found.needed_tau,
        "conclusion": said,
        "controls": {name: own and {"kendall_tau_b": asdict(own.kendall)} for name, own in controls.items()},
        "arms": [asdict(arm) for arm in arms],
        "left_out": left_out,
    }
    write_json(folder.root / RANK_FILE, content)
    return Ranking(arms, found, said, left_out, folder.root / RANK_FILE, figure, controls)


def _control(numbers: Sequence[int], arms: Sequence[RankedArm]) -> RankAgreement | None:
    """Agreement of a number of each arm with its Dice; None where all have the same number."""
    return rank_agreement(numbers, [arm.dice for arm in arms]) if len(set(numbers)) > 1 else None


def usable_arms(
    result: ComparisonResult, candidates: Slicing
) -> tuple[list[tuple[ArmResult, Architecture]], dict[str, str]]:
    """The arms with a finished training and a path in the supernet; and the others, with the reason.

    Of arms with the same slicing the first is taken: the supernet cannot tell them apart.
    """
    usable: list[tuple[ArmResult, Architecture]] = []
    left_out: dict[str, str] = {}
    seen: dict[Architecture, str] = {}
    for row in result.arms:
        if not row.dice:
            left_out[row.arm.name] = "no finished training"
        elif any(one not in candidates for one in row.slicing):
            left_out[row.arm.name] = "has a block that is no candidate of the supernet"
        else:
            architecture = tuple(map(candidates.index, row.slicing))
            if architecture in seen:
                left_out[row.arm.name] = f"has the slicing of {seen[architecture]}"
            else:
                seen[architecture] = row.arm.name
                usable.append((row, architecture))
    return usable, left_out


def fitness_of(
    architectures: list[Architecture],
    folder: ComparisonFolder,
    supernet: SupernetFolder,
    device: torch.device,
    console: Console,
) -> dict[Architecture, tuple[float, str]]:
    """Fitness and its source for every architecture: from the fold's ledger, from an earlier call, or evaluated now."""
    fold = SupernetFold(supernet, device)
    key = {
        "supernet_checkpoint_sha256": sha256_of_file(fold.checkpoint),
        "tile_step_size": TILE_STEP_SIZE,
        "mirroring": MIRRORING,
        "cases_sha256": sha256_of_names(fold.case_names),
        "fitness_definition": FITNESS_DEFINITION,
    }
    known = _from_ledger(supernet, key)
    file = folder.root / FITNESS_FILE
    own = _from_file(file, key)
    missing = [architecture for architecture in architectures if architecture not in known | own]
    with console.status("supernet") as status:
        for number, architecture in enumerate(missing, 1):
            status.update(f"evaluating architecture {number} of {len(missing)} in the supernet")
            own[architecture] = fold(architecture).fitness
            entries = [{"architecture": a, "fitness": value} for a, value in own.items()]
            write_json(file, {**key, "evaluations": entries})
    return {a: (known[a], LEDGER) if a in known else (own[a], EVALUATED) for a in architectures}


def _from_ledger(supernet: SupernetFolder, key: Mapping[str, Any]) -> dict[Architecture, float]:
    """Fitness that the fold's search found, if it was the same fitness, with this supernet and on these cases."""
    if not has_ledger(supernet.study):
        return {}
    fingerprint, records = read_fold_ledger(supernet.search)
    evaluation = dict(fingerprint.get("evaluation", {}))
    # the entry is named after the kind of cases
    evaluation["cases_sha256"] = next((v for k, v in evaluation.items() if k.endswith("_cases_sha256")), None)
    stored = {**fingerprint, **evaluation}
    if any(stored.get(k) != v for k, v in key.items()):
        return {}
    return {record.architecture: record.fitness for record in records}


def _from_file(file: Path, key: Mapping[str, Any]) -> dict[Architecture, float]:
    """Fitness that an earlier call found; empty if what it depends on has changed, or the file is damaged."""
    if not _FITNESS.is_readable(file):
        return {}
    content = _FITNESS.read(file)
    if any(content.get(k) != v for k, v in key.items()):
        return {}
    return {
        tuple(entry["architecture"]): math.nan if entry["fitness"] is None else float(entry["fitness"])
        for entry in content["evaluations"]
    }


def show_ranking(ranking: Ranking, console: Console) -> None:
    """Prints the arms in the order of their Dice, both coefficients, and the conclusion."""
    by_fitness = sorted(ranking.arms, key=lambda arm: -arm.fitness)
    table = Table("arm", title="Retrained Dice and the supernet's fitness", title_justify="left")
    for heading in ("Dice", "SD", "fitness", "rank by Dice", "rank by fitness"):
        table.add_column(heading, justify="right")
    table.add_column("fitness from")
    for place, arm in enumerate(sorted(ranking.arms, key=lambda arm: -arm.dice), 1):
        ranks = (str(place), str(by_fitness.index(arm) + 1))
        table.add_row(arm.name, dice(arm.dice), dice(arm.spread), dice(arm.fitness), *ranks, arm.source)
    console.print(table)
    for name, why in ranking.left_out.items():
        console.print(f"Left out: {name} ({why})", highlight=False)
    found = ranking.agreement
    console.print(f"Kendall's tau-b  {_shown(found.kendall)}", highlight=False)
    console.print(f"Spearman's rho   {_shown(found.spearman)}", highlight=False)
    for name, control in ranking.controls.items():
        shown = "the same in all arms, no order" if control is None else _shown(control.kendall)
        console.print(f"tau-b {name:<11}{shown}", highlight=False)
    console.print(f"n = {found.n}. {ranking.conclusion}", highlight=False)
    if any(arm.kind in CHOSEN_BY_SEARCH for arm in ranking.arms):
        console.print(
            "The fitness of what a search chose is the highest of many and therefore too high.", highlight=False
        )
    console.print(f"Written: {ranking.file}, {ranking.figure}", soft_wrap=True, highlight=False)


def _shown(found: Correlation) -> str:
    return f"{found.value:+.3f} (95 % CI {found.low:+.2f} to {found.high:+.2f}), p = {found.p_value:.2g}"
