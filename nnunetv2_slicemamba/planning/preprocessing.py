"""Fingerprint, plans and preprocessing of a dataset; what is already there and fits is left alone."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.configuration import default_num_processes
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprint_dataset,
    plan_experiment_dataset,
    preprocess_dataset,
)
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id
from nnunetv2.utilities.json_export import recursive_fix_for_json_export
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_slicemamba.planning.data import (
    MARKER,
    data_of,
    data_owner,
    data_settings,
    invalidate,
    is_ready,
    made_with,
    mark,
    mark_before_change,
)
from nnunetv2_slicemamba.planning.planner import SharedDataPlanner, planner_of
from nnunetv2_slicemamba.planning.trained import refuse_other_plans

# as nnU-Net's command: 3D full resolution volumes need more memory per process
PROCESSES = {"2d": 8, "3d_fullres": 4, "3d_lowres": 8}


@dataclass(frozen=True)
class Planned:
    """Result of `plan_and_preprocess`: plans' name, configurations preprocessed now, and those found ready."""

    plans_name: str
    preprocessed: tuple[str, ...]
    reused: tuple[str, ...]


def plan_and_preprocess(
    dataset_id: int,
    dataset_name: str,
    size: str = "L",
    configurations: Sequence[str] | None = None,
    gpu_memory: float = 8.0,
    plans_name: str | None = None,
    processes: int | None = None,
    verify: bool = False,
    clean: bool = False,
    activation_checkpointing: bool = False,
    overwrite_plans: bool = False,
    network: str = "paper",
    blocks_from_stride: int | None = None,
    decoder_blocks: bool = False,
) -> Planned:
    """Makes fingerprint, SliceMamba plans and preprocessed data of one dataset in nnUNet_raw.

    size: a key of SIZES. configurations: default all that the plans have and that need data of their own. gpu_memory:
    target in GB. verify: nnU-Net's dataset check first. clean: redo fingerprint and preprocessing even where they are
    complete. activation_checkpointing: see SliceMambaUNet. overwrite_plans: also plans that differ from those that
    networks were trained with. network: one of NETWORKS. blocks_from_stride, decoder_blocks: of a residual network, see
    planning.residual; None for the default. Raises ValueError for a size that does not exist, a configuration that the
    plans do not have, where redoing data would spoil those of other plans, and plans would those of trainings.
    """
    chosen = planner_of(size, network)
    limit = processes or os.cpu_count() or 1
    workers = min(default_num_processes, limit)
    extract_fingerprint_dataset(dataset_id, num_processes=workers, check_dataset_integrity=verify, clean=clean)
    name = plans_name or chosen.default_plans_name
    file = Path(str(nnUNet_preprocessed)) / dataset_name / f"{name}.json"
    planner = planner_class(
        chosen, activation_checkpointing, file, not overwrite_plans, blocks_from_stride, decoder_blocks
    )
    plan_experiment_dataset(dataset_id, planner, gpu_memory, overwrite_plans_name=name)
    manager = PlansManager(json.loads(file.read_text()))
    available = manager.available_configurations
    asked = available if configurations is None else configurations
    missing = [c for c in asked if c not in available]
    if missing:
        raise ValueError(
            f"configuration {', '.join(missing)} is not in the plans {name!r} of {dataset_name}; "
            f"they have {', '.join(available)}"
        )
    owners = {data_owner(manager, c) for c in asked}
    wanted = [c for c in available if c in owners]

    ready = [] if clean else [c for c in wanted if is_ready(manager, c, file.parent)]
    todo = [c for c in wanted if c not in ready]
    if not clean:
        for configuration in todo:
            refuse_foreign_data(manager, configuration, file)
    preprocess(manager, file, todo, limit)
    return Planned(name, tuple(todo), tuple(ready))


def planner_class(
    planner: type[SharedDataPlanner],
    activation_checkpointing: bool,
    file: Path,
    protect: bool,
    blocks_from_stride: int | None = None,
    decoder_blocks: bool = False,
) -> type[SharedDataPlanner]:
    """A planner with these settings, which writes `file`. protect: not if networks were trained with other plans."""

    def save_plans(self: SharedDataPlanner, plans: dict[str, Any]) -> None:
        # as nnU-Net does before it writes them: in place
        recursive_fix_for_json_export(plans)
        complete = with_kept_configurations(plans, file)
        results = os.environ.get("nnUNet_results")
        if protect and results:
            refuse_other_plans(complete, file, Path(results) / file.parent.name)
        mark_before_change(file.parent, complete)
        planner.save_plans(self, plans)

    settings: dict[str, Any] = {"activation_checkpointing": activation_checkpointing, "save_plans": save_plans}
    if decoder_blocks:
        settings["decoder_blocks"] = True
    if blocks_from_stride is not None:
        settings["blocks_from_stride"] = blocks_from_stride
    # nnU-Net takes a class and keeps its name in the plans
    return type(planner.__name__, (planner,), settings)


def with_kept_configurations(plans: dict[str, Any], file: Path) -> dict[str, Any]:
    """Plans as nnU-Net writes them to `file`: with the configurations that only the plans in it have, users' own."""
    kept = json.loads(file.read_text())["configurations"] if file.is_file() else {}
    return {**plans, "configurations": {**kept, **plans["configurations"]}}


def preprocess(manager: PlansManager, file: Path, configurations: Sequence[str], limit: int) -> None:
    """Preprocesses configurations with data of their own by nnU-Net, and marks the data that are complete.

    file: the plans. limit: most processes.
    """
    dataset_id = convert_dataset_name_to_id(file.parent.name)
    for configuration in configurations:
        identifier, settings = data_of(manager, configuration)
        data = file.parent / identifier
        invalidate(data)
        preprocess_dataset(dataset_id, file.stem, [configuration], [min(PROCESSES.get(configuration, 4), limit)])
        mark(data, settings)
    if not configurations:
        # still copies the reference segmentations, which nnU-Net's validation reads
        preprocess_dataset(dataset_id, file.stem, [], [])


def refuse_foreign_data(manager: PlansManager, configuration: str, file: Path) -> None:
    """Raises ValueError if data, as far as is known, are those of other plans with other settings.

    Redoing them would spoil those. file: the plans that want to.
    """
    identifier, mine = data_of(manager, configuration)
    data, made = file.parent / identifier, made_with(file.parent, identifier)
    others = [(name, theirs) for name, theirs in data_settings(file.parent).get(identifier, []) if name != file.stem]
    foreign = [name for name, theirs in others if theirs != mine and made in (None, theirs)]
    if foreign and data.is_dir():
        raise ValueError(
            f"{data} was preprocessed for the plans {', '.join(dict.fromkeys(foreign))} with other settings (spacing, "
            "normalisation, resampling); plan with the same ones, remove those plans, or redo the data with "
            "slicemamba plan --clean"
        )


def refuse_marked_otherwise(manager: PlansManager, configuration: str, file: Path) -> None:
    """Raises ValueError if the data are marked, but not with the settings of the plans in `file`."""
    identifier, settings = data_of(manager, configuration)
    data = file.parent / identifier
    if (data / MARKER).is_file() and made_with(file.parent, identifier) != settings:
        raise ValueError(
            f"{data} was not preprocessed with the settings of the plans {file.stem}, and cannot be redone without the "
            "raw data; run slicemamba plan where nnUNet_raw has them, and copy the folder here"
        )


def complete_data(dataset_name: str, plans_name: str, configuration: str) -> None:
    """Preprocesses a configuration of existing plans again if cases are missing or were made with other settings.

    Does nothing for a configuration that the plans do not have, and where only preprocessed data are at hand. Raises
    ValueError where those are known not to fit, and where redoing data would spoil those of other plans.
    """
    file = Path(str(nnUNet_preprocessed)) / dataset_name / f"{plans_name}.json"
    manager = PlansManager(json.loads(file.read_text()))
    if configuration not in manager.available_configurations:
        return
    owner = data_owner(manager, configuration)
    raw = os.environ.get("nnUNet_raw")
    if not raw or not (Path(raw) / dataset_name).is_dir():
        refuse_marked_otherwise(manager, owner, file)
        return
    ready = is_ready(manager, owner, file.parent)
    if not ready:
        refuse_foreign_data(manager, owner, file)
    if not ready or not (file.parent / "gt_segmentations").is_dir():
        preprocess(manager, file, [] if ready else [owner], os.cpu_count() or 1)
