"""Arms of a comparison: the slicings that `--arms searched,random:3,2x4,FILE` names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_slicemamba.common.counts import all_of
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_plans
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.slicing.candidate_sets import names_one_axis
from nnunetv2_slicemamba.slicing.candidates import NAMED, Slicing, candidate_text
from nnunetv2_slicemamba.slicing.file import SlicingFile, read_slicing_file
from nnunetv2_slicemamba.slicing.find import (
    SLICING_VARIABLE,
    SeveralSlicingsError,
    SlicingNotFoundError,
    searched_slicing_file,
)
from nnunetv2_slicemamba.slicing.measured_on import MeasuredOn

SEARCHED, CONSENSUS, RANDOM, FIXED, FILE = "searched", "consensus", "random", "fixed", "file"
SEARCHED_FRONT, AT_BUDGET = "front", "random-at-budget"
# arms that no search chose, and those that one did
CONTROLS = (RANDOM, AT_BUDGET, FIXED)
CHOSEN_BY_SEARCH = (SEARCHED, CONSENSUS, SEARCHED_FRONT)
MOST_RANDOM = 100
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Arm:
    """One slicing to train. name: its folder. kind: SEARCHED, ... value: as `slicemamba slicing --set` takes it."""

    name: str
    kind: str
    value: str

    @property
    def is_control(self) -> bool:
        """True if no search chose this slicing."""
        return self.kind in CONTROLS


def default_arms(candidates: Slicing) -> str:
    """Arms of a comparison that names none: the search, three random slicings, every candidate in all blocks."""
    return ",".join([SEARCHED, f"{RANDOM}:3", *map(candidate_text, candidates)])


def parse_arms(text: str) -> list[Arm]:
    """The arms of a comma-separated list: searched, consensus, 2x4, no-scan, cheapest, front:K, random:N,
    random:seed=S, random-at-budget:N, random-at-budget:seed=S, FILE, NAME=FILE.

    random:N stands for the N arms random_0 ... of the seeds 0 to N-1, and so does random-at-budget:N. Raises InputError
    naming the entry and the rule.
    """
    arms = [arm for entry in text.split(",") if entry.strip() for arm in _arms_of(entry.strip())]
    if not arms:
        raise InputError("--arms names nothing; give for example searched,random:3,2x2,4x4")
    names = [arm.name for arm in arms]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--arms has {name!r} {names.count(name)} times; give every arm once (files: NAME=FILE)")
    return arms


def _arms_of(entry: str) -> list[Arm]:
    if entry in (SEARCHED, CONSENSUS):
        return [Arm(entry, entry, entry)]
    if entry == "cheapest":
        return [Arm(entry, FIXED, entry)]
    if re.fullmatch(r"front:[0-9]{1,6}", entry):
        front = _without_zeros(entry)
        return [Arm(front.replace(":", "_"), SEARCHED_FRONT, front)]
    if entry in NAMED:
        return [Arm(entry, FIXED, entry)]
    if names_one_axis(entry) or re.fullmatch(r"\d+(x\d+)+", entry):
        value = _without_zeros(entry)
        # in 3D 4@h is 4x4@h
        return [Arm(re.sub(r"^(\d+)x\1@", r"\1@", value), FIXED, value)]
    kind = entry.partition(":")[0]
    if kind in (RANDOM, AT_BUDGET):
        return [Arm(f"{kind}_{seed}", kind, f"{kind}:{seed}") for seed in _seeds(entry, kind)]
    name, equals, path = entry.partition("=")
    if not equals:
        name, path = re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(entry).stem), entry
    if not _FOLDER_NAME.fullmatch(name) or name in (SEARCHED, CONSENSUS):
        raise InputError(
            f"the arm {entry!r} would be named {name!r}; names are letters, digits, '_', '.' and '-', and neither "
            f"{SEARCHED} nor {CONSENSUS}: give NAME=FILE"
        )
    if not Path(path).is_file():
        raise InputError(
            f"the arm {entry!r} is neither {SEARCHED}, {CONSENSUS}, front:K, a thickness such as 2x4, 4@h, "
            f"{', '.join(NAMED)}, cheapest, random:N, random:seed=S, random-at-budget:N nor a slicing file that exists"
        )
    return [Arm(name, FILE, path)]


def _without_zeros(entry: str) -> str:
    """An entry with its numbers in one spelling: 04 is 4."""
    return re.sub(r"\d+", lambda number: str(int(number[0])), entry)


def _seeds(entry: str, kind: str) -> Sequence[int]:
    number = re.fullmatch(rf"{kind}:(seed=)?([0-9]{{1,9}})", entry)
    if number is None:
        raise InputError(f"the arm {entry!r} has no number; give {kind}:3 for the seeds 0, 1, 2, or {kind}:seed=7")
    if number[1]:
        return [int(number[2])]
    if not 1 <= int(number[2]) <= MOST_RANDOM:
        raise InputError(f"the arm {entry!r} must stand for 1 to {MOST_RANDOM} slicings; one seed is {kind}:seed=7")
    return range(int(number[2]))


def resolve_arms(arms: Sequence[Arm], selection: Selection, supernet_trainer: str | None) -> dict[str, SlicingFile]:
    """The slicing of every arm, by its name, each checked to fit the network.

    supernet_trainer: whose search is meant; None stands for the only one that has a slicing for the fold. Raises
    ValueError (InputError, SlicingFileError) naming the arm's value, the rule and the remedy.
    """
    return {arm.name: _resolve(arm, selection, supernet_trainer) for arm in arms}


def _resolve(arm: Arm, selection: Selection, supernet_trainer: str | None) -> SlicingFile:
    from nnunetv2_slicemamba.search.choosing.choices import choose_slicing
    from nnunetv2_slicemamba.search.choosing.of_folder import choose_of_folder, is_of_folder
    from nnunetv2_slicemamba.search.choosing.set_slicing import fold_histories

    if arm.kind == SEARCHED:
        return _searched(selection, supernet_trainer)

    def supernet() -> SupernetFolder:
        return SupernetFolder(selection, supernet_trainer) if supernet_trainer else searched_supernet(selection)

    of_folder = is_of_folder(arm.value)
    choice = (
        choose_of_folder(supernet(), arm.value)
        if of_folder
        else choose_slicing(
            arm.value,
            selection.n_blocks,
            selection.n_dims,
            selection.candidates,
            lambda: fold_histories(supernet()),
        )
    )
    return SlicingFile(
        choice=choice,
        candidates=selection.candidates,
        fitness_definition=None,
        dataset=selection.dataset,
        configuration=selection.configuration,
        plans_name=selection.plans_name,
        fold=selection.fold,
        supernet_checkpoint_sha256=None,
        plans_sha256=sha256_of_plans(selection.plans, selection.configuration),
        measured_on=_measured_on(supernet()) if arm.kind == SEARCHED_FRONT else None,
    )


def _measured_on(supernet: SupernetFolder) -> MeasuredOn | None:
    """The cases that a search chose on, as far as its result says."""
    return read_slicing_file(supernet.slicing_file).measured_on if supernet.slicing_file.is_file() else None


def _searched(selection: Selection, supernet_trainer: str | None) -> SlicingFile:
    file = searched_supernet(selection, supernet_trainer).slicing_file
    content = read_slicing_file(file)
    if content.choice.how_chosen != "search":
        raise InputError(
            f"{file} was not searched but chosen as '{content.choice.how_chosen}', so it is no arm {SEARCHED!r}; "
            "search the fold with 'slicemamba search', or compare the file under its own name (NAME=FILE)"
        )
    content.check_fits(selection.n_blocks, selection.n_dims, file)
    content.check_candidates(selection.candidates)
    return content


def searched_supernet(selection: Selection, trainer: str | None = None) -> SupernetFolder:
    """The supernet's folder that holds the fold's slicing. trainer: None stands for the only one that has a slicing.

    Raises InputError if there is none, or several and no name.
    """
    if trainer is None:
        folder = selection.results_folder
        try:
            file = searched_slicing_file(folder, selection.plans_name, selection.configuration, selection.fold)
        except (SlicingNotFoundError, SeveralSlicingsError) as error:
            listed = str(error).partition(f"\n{SLICING_VARIABLE}")[0]
            raise InputError(f"{listed}\n--supernet-trainer NAME says whose search is meant") from error
        return SupernetFolder(selection, file.parents[2].name.partition("__")[0])
    supernet = SupernetFolder(selection, trainer)
    if not supernet.slicing_file.is_file():
        place = ("-d", selection.dataset, "-c", selection.configuration, "-f", selection.fold)
        command = shell_line("slicemamba", "search", *place, "-p", selection.plans_name, "-tr", trainer)
        raise InputError(f"there is no {supernet.slicing_file}; search it with '{command}'")
    return supernet


def slicing_text(slicing: Slicing) -> str:
    """A slicing in a few words: the commonest candidates first, with their numbers of blocks."""
    counts: dict[str, int] = {}
    for candidate in slicing:
        name = candidate_text(candidate)
        counts[name] = counts.get(name, 0) + 1
    if len(counts) == 1:
        number = len(slicing)
        return f"{next(iter(counts))} in {all_of(number, 'block') if number < 3 else f'all {number}'}"
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{number} of {name}" for name, number in ordered)


def same_slicings(contents: Mapping[str, SlicingFile]) -> list[tuple[str, str]]:
    """Pairs of arms whose slicing is the same: what they differ by is noise."""
    names = list(contents)
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if contents[a].slicing == contents[b].slicing]
