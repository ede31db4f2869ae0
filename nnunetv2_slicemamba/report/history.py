"""Commands that make a result tree like this one, and the versions that made this one."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2_slicemamba.common.names import DEFAULT_SUPERNET_TRAINER
from nnunetv2_slicemamba.common.provenance import installed_versions
from nnunetv2_slicemamba.planning.sizes import NETWORKS, PAPER, SIZES, planner_name_of, plans_name_of
from nnunetv2_slicemamba.search import SearchSettings
from nnunetv2_slicemamba.search.objectives import flag_of

from .dataset import DatasetFolders
from .models import Model
from .plans import ConfigurationFacts

PLANNED = {planner_name_of(size, network): (size, network) for network in NETWORKS for size in SIZES}


@dataclass(frozen=True)
class VersionRow:
    """Versions that made a result. what: the result, or "this report". versions: by package."""

    what: str
    versions: Mapping[str, str]


def read_commands(
    folders: DatasetFolders, plans: Sequence[ConfigurationFacts], models: Sequence[Model]
) -> tuple[str, ...]:
    """The commands that lead to what was found, in the order in which they are run; lines with # explain.

    Flags that nothing in the tree records (GPU memory, device) are left at their defaults.
    """
    number = folders.number
    lines: list[str] = []
    for name in dict.fromkeys(one.plans_name for one in plans):
        same = [one for one in plans if one.plans_name == name]
        configurations = " ".join(one.configuration for one in same)
        if same[0].is_slicemamba:
            size, network = PLANNED.get(same[0].planner, (PAPER, "paper"))
            flag = "" if network == "paper" else f" --network {network}"
            named = "" if name == plans_name_of(size, network) else f" -overwrite_plans_name {shlex.quote(name)}"
            lines.append(f"slicemamba plan -d {number} -c {configurations} --size {size}{flag}{named}")
        else:
            planner = "" if same[0].planner == "ExperimentPlanner" else f" -pl {shlex.quote(same[0].planner)}"
            lines.append(f"nnUNetv2_plan_and_preprocess -d {number} -c {configurations}{planner}")
    # supernets come first, because the final trainings need their searches
    for model in sorted(models, key=lambda one: (not one.is_slicemamba, not one.is_supernet, one.identifier)):
        lines.append(f"# {model.identifier}")
        for fold in model.folds:
            if fold.training:
                lines.append(_train(number, model, fold.name))
            if fold.search and fold.search.content:
                choice = fold.search.content.choice
                where = f"-d {number} -c {model.configuration} -f {fold.name} -p {shlex.quote(model.plans_name)}"
                if model.trainer != DEFAULT_SUPERNET_TRAINER:
                    where += f" -tr {shlex.quote(model.trainer)}"
                if choice.how_chosen == "search":
                    lines.append(f"slicemamba search {where}{search_flags(fold.search.settings)}")
                else:
                    lines.append(f"slicemamba slicing {where} --set {_set_value(choice)}")
    return tuple(lines)


def _train(number: int, model: Model, fold: str) -> str:
    plans = "" if model.plans_name == "nnUNetPlans" else f" -p {shlex.quote(model.plans_name)}"
    trainer = "" if model.trainer == "nnUNetTrainer" else f" -tr {shlex.quote(model.trainer)}"
    return f"nnUNetv2_train {number} {model.configuration} {fold}{trainer}{plans}"


def search_flags(settings: Mapping[str, Any]) -> str:
    """Options of `slicemamba search` for settings that are not the defaults, each after a space.

    settings: as SearchSettings.as_dict gives them. Shares of the population follow from its size.
    """
    try:
        used = SearchSettings(**settings)
        usual = SearchSettings(population=used.population)
    except (TypeError, ValueError):
        return ""
    default = dataclasses.asdict(usual) | {"population": SearchSettings().population}
    flags = {name: "--mutation" if name == "mutation_probability" else flag_of(name) for name in default}
    return "".join(
        f" {flag} {getattr(used, name)}" for name, flag in flags.items() if getattr(used, name) != default[name]
    )


def _set_value(choice: Any) -> str:
    if choice.how_chosen == "random":
        return f"random:{choice.seed}"
    if choice.how_chosen == "fixed":
        return "x".join(map(str, choice.slicing[0]))
    return "consensus" if choice.how_chosen == "consensus" else "FILE"


def read_versions(models: Sequence[Model]) -> tuple[VersionRow, ...]:
    """Versions of this installation, of every slicing file and of every training that says its own."""
    here = installed_versions()
    here |= {name: importlib.metadata.version(name) for name in ("numpy", "matplotlib", "optuna")}
    rows = [VersionRow("this report", here)]
    for model in models:
        for fold in model.folds:
            if fold.search and fold.search.content:
                rows.append(VersionRow(f"search, fold {fold.name}, {model.identifier}", fold.search.content.versions))
            if fold.training and fold.training.versions:
                known = {_PLAIN.get(key, key): value for key, value in fold.training.versions.items()}
                rows.append(VersionRow(f"training, fold {fold.name}, {model.identifier}", known))
    return _merged(rows)


_PLAIN = {"torch_version": "torch", "gpu_name": "GPU"}


def _merged(rows: Sequence[VersionRow]) -> tuple[VersionRow, ...]:
    """Rows of folds that say the same become one."""
    kept: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for row in rows:
        what, _, rest = row.what.partition(", fold ")
        fold, _, model = rest.partition(", ")
        key = (f"{what}, {model}" if rest else what, tuple(sorted(row.versions.items())))
        kept.setdefault(key, []).append(fold)
    return tuple(
        VersionRow(f"{what}, fold {', '.join(folds)}" if any(folds) else what, dict(versions))
        for (what, versions), folds in kept.items()
    )
