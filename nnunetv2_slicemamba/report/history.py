"""Commands that make a result tree like this one, and the versions that made this one."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2_slicemamba.common.names import DEFAULT_SUPERNET_TRAINER
from nnunetv2_slicemamba.common.provenance import installed_versions
from nnunetv2_slicemamba.common.shell import comment, shell_line
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

    Flags that nothing in the tree records (device, GPU memory in plans of before 0.2) are left at their defaults.
    """
    number = folders.number
    lines: list[str] = []
    for name in dict.fromkeys(one.plans_name for one in plans):
        same = [one for one in plans if one.plans_name == name]
        lines.append(_plan(number, same))
    # supernets come first, because the final trainings need their searches
    for model in sorted(models, key=lambda one: (not one.is_slicemamba, not one.is_supernet, one.identifier)):
        lines.append(comment(model.identifier))
        for fold in model.folds:
            if fold.holdout:
                lines.append(fold.holdout.command(model.trainer))
            if fold.training:
                lines.append(_train(number, model, fold.name))
            if fold.search and fold.search.content:
                choice = fold.search.content.choice
                where = ["-d", number, "-c", model.configuration, "-f", fold.name, "-p", model.plans_name]
                if model.trainer != DEFAULT_SUPERNET_TRAINER:
                    where += ["-tr", model.trainer]
                if choice.how_chosen == "search":
                    lines.append(shell_line("slicemamba", "search", *where, *search_flags(fold.search.settings)))
                else:
                    lines.append(shell_line("slicemamba", "slicing", *where, "--set", _set_value(choice)))
    return tuple(lines)


def _plan(number: int, same: Sequence[ConfigurationFacts]) -> str:
    """The command that made plans. same: their configurations."""
    name, planner = same[0].plans_name, same[0].planner
    flags = ["-d", number, "-c", *(one.configuration for one in same)]
    if not same[0].is_slicemamba:
        flags += [] if planner == "ExperimentPlanner" else ["-pl", planner]
        return shell_line("nnUNetv2_plan_and_preprocess", *flags)
    size, network = PLANNED.get(planner, (PAPER, "paper"))
    flags += ["--size", size, "--network", network]
    flags += ["--activation-checkpointing"] if any(one.activation_checkpointing for one in same) else []
    options = same[0].options
    flags += ["--gpu-memory", options["gpu_memory"]] if options.get("gpu_memory", 8) != 8 else []
    flags += ["--blocks-from-stride", options["blocks_from_stride"]] if "blocks_from_stride" in options else []
    flags += ["--decoder-blocks"] if options.get("decoder_blocks") else []
    flags += [] if name == plans_name_of(size, network) else ["-overwrite_plans_name", name]
    return shell_line("slicemamba", "plan", *flags)


def _train(number: int, model: Model, fold: str) -> str:
    flags = [] if model.trainer == "nnUNetTrainer" else ["-tr", model.trainer]
    flags += [] if model.plans_name == "nnUNetPlans" else ["-p", model.plans_name]
    return shell_line("nnUNetv2_train", number, model.configuration, fold, *flags)


def search_flags(settings: Mapping[str, Any]) -> list[str]:
    """Options of `slicemamba search` for settings that are not the defaults.

    settings: as SearchSettings.as_dict gives them. Shares of the population follow from its size.
    """
    try:
        used = SearchSettings(**settings)
        usual = SearchSettings(population=used.population)
    except (TypeError, ValueError):
        return []
    default = dataclasses.asdict(usual) | {"population": SearchSettings().population}
    flags = {name: "--mutation" if name == "mutation_probability" else flag_of(name) for name in default}
    changed = [name for name in flags if getattr(used, name) != default[name]]
    return [word for name in changed for word in (flags[name], str(getattr(used, name)))]


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
