"""Finals of a search: its best slicings are trained for a tenth of the final training, and the best one is chosen.

The finalists are the arms of a comparison of their own, in nnUNet_results/DATASET/finals. Finished trainings are
skipped and unfinished ones continued, as there.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.common.hashing import sha256_of_names, sha256_of_plans
from nnunetv2_slicemamba.comparison.arms import FILE, Arm, slicing_text
from nnunetv2_slicemamba.comparison.compare import CompareSettings, train_arms
from nnunetv2_slicemamba.comparison.folder import ComparisonFolder
from nnunetv2_slicemamba.comparison.tables import dice
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder, finals_root
from nnunetv2_slicemamba.search.choosing.write_choice import write_choice
from nnunetv2_slicemamba.search.objectives import stored_cost
from nnunetv2_slicemamba.search.proposals.ranking import best_records
from nnunetv2_slicemamba.search.records import Record
from nnunetv2_slicemamba.search.run import FoldSearch
from nnunetv2_slicemamba.slicing.choice import FINALISTS, SlicingChoice
from nnunetv2_slicemamba.slicing.file import SlicingFile, read_slicing_file
from nnunetv2_slicemamba.slicing.holdout_file import holdout_path, read_holdout, write_holdout
from nnunetv2_slicemamba.trainers.settings import tenth_of


def hold_finals(
    supernet: SupernetFolder,
    found: FoldSearch,
    number: int,
    final_trainer: str,
    device: str,
    console: Console,
    verbose: bool = False,
) -> SlicingFile:
    """Trains the `number` best slicings of a complete search, and writes the best of them as the fold's slicing.

    final_trainer: whose training follows; a tenth of its epochs is trained (see tenth_of). Validated is on the cases
    that the search chose on. device: as nnU-Net's -device. Returns what best_slicing.json holds, complete, with a
    record of all finalists. Raises as `compare` does; the same call goes on.
    """
    before = read_slicing_file(found.file)
    cost = stored_cost(before.choice.details.get("settings", {}))
    records = {_name(record): record for record in best_records(found.records, cost, number)}
    folder = finals_folder(supernet, before, final_trainer)
    contents = {name: replace(before, choice=_choice(before, record)) for name, record in records.items()}
    arms = tuple(Arm(name, FILE, name) for name in records)
    folder.check(contents)
    folder.write(list(arms), contents)
    for name in contents:
        _keep_holdout(supernet, folder, name)
    _free_memory()
    console.print(f"Finals of the {len(records)} best slicings, trained by {folder.trainer}", highlight=False)
    result = train_arms(folder, contents, CompareSettings(arms, 1, device, verbose=verbose), console)
    assert result is not None
    reached = {arm.arm.name: arm.mean for arm in result.arms}
    # of equals the one that the search ranks higher
    best = max(records, key=lambda name: _number(reached[name]))
    entries = [_entry(record, reached[name]) for name, record in records.items()]
    said = {"asked": number, "trainer": folder.trainer, "folder": str(folder.root), "trained": entries}
    choice = contents[best].choice
    choice = replace(choice, details={**choice.details, FINALISTS: said})
    plans_hash = sha256_of_plans(supernet.selection.plans, supernet.selection.configuration)
    write_choice(supernet, choice, before.supernet_checkpoint_sha256, plans_hash, before.measured_on)
    return read_slicing_file(supernet.slicing_file)


def show_finals(chosen: SlicingFile, console: Console) -> None:
    """Prints the finalists by falling Dice; the first is chosen."""
    told = chosen.choice.details[FINALISTS]
    on = "" if chosen.measured_on is None else f" on {chosen.measured_on.in_words}"
    console.print(f"Finals{on}, trained by {told['trainer']}")  # over the table it would be wrapped to its width
    table = Table("slicing")
    for heading in ("fitness", "Dice"):
        table.add_column(heading, justify="right")
    for one in sorted(told["trained"], key=lambda one: -_number(one["dice"])):
        mark = "* " if tuple(one["architecture"]) == chosen.choice.architecture else ""
        slicing = tuple(chosen.candidates[index] for index in one["architecture"])
        reached = math.nan if one["dice"] is None else one["dice"]
        table.add_row(f"{mark}{slicing_text(slicing)}", dice(one["fitness"]), dice(reached))
    table.caption = "*: chosen, in best_slicing.json"
    console.print(table)


def finals_folder(supernet: SupernetFolder, searched: SlicingFile, final_trainer: str) -> ComparisonFolder:
    """The folder of a fold's finals: one for each trainer, plans and cases.

    searched: the search's result, which says on which cases.
    """
    trainer = tenth_of(final_trainer)
    own = supernet.selection.configuration_folder(trainer)
    folder = ComparisonFolder(supernet.selection, trainer, own, first_stage_trainer=final_trainer)
    cases = None if searched.measured_on is None else searched.measured_on.sha256
    key = sha256_of_names([json.dumps(folder.settings), str(cases)])[:8]
    root = finals_root(supernet.selection, trainer) / f"fold_{supernet.selection.fold}_{key}"
    return replace(folder, root=root.absolute())


def _number(dice: float | None) -> float:
    """A Dice for comparisons: what is undefined is the least."""
    return -1.0 if dice is None or math.isnan(dice) else dice


def _name(record: Record) -> str:
    """Name of a finalist, the same in every search that has its architecture."""
    return f"slicing_{sha256_of_names(map(str, record.architecture))[:8]}"


def _choice(before: SlicingFile, record: Record) -> SlicingChoice:
    """The choice of a record in place of the search's best."""
    details: dict[str, Any] = {**before.choice.details, "generation": record.generation, "origin": record.origin}
    if "cost" in details:
        details["cost"] = {**details["cost"], "value": record.cost}
    slicing = tuple(before.candidates[index] for index in record.architecture)
    return replace(
        before.choice, slicing=slicing, architecture=record.architecture, fitness=record.fitness, details=details
    )


def _entry(record: Record, dice: float) -> Mapping[str, Any]:
    cost = {} if record.cost is None else {"cost": record.cost}
    return {"arm": _name(record), "architecture": record.architecture, "fitness": record.fitness, **cost, "dice": dice}


def _keep_holdout(supernet: SupernetFolder, folder: ComparisonFolder, arm: str) -> None:
    """Has a finalist leave out of training, and validated on, what the supernet left out."""
    holdout = read_holdout(supernet.holdout_file)
    if holdout is not None:
        write_holdout(holdout, holdout_path(folder.fold_folder(arm, 0)))


def _free_memory() -> None:
    """Gives back the GPU's memory that the search had, which the trainings need."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
