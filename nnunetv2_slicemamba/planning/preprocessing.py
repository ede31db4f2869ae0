"""Fingerprint, plan and preprocessing of a dataset, leaving alone what is already there and fits."""

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
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id
from nnunetv2.utilities.json_export import recursive_fix_for_json_export
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_identifiers_from_splitted_dataset_folder

from nnunetv2_slicemamba.planning.planner import SliceMambaPlanner, planner_of
from nnunetv2_slicemamba.planning.trained import refuse_other_plans

# what decides the preprocessed arrays: if these agree, the data of another plan can be used
PLAN_KEYS = ("image_reader_writer", "transpose_forward", "foreground_intensity_properties_per_channel")
CONFIGURATION_KEYS = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)
# as nnU-Net's command: 3D full resolution volumes need more memory per process
PROCESSES = {"2d": 8, "3d_fullres": 4, "3d_lowres": 8}


@dataclass(frozen=True)
class Planned:
    """What `plan_and_preprocess` did: plans' name, configurations preprocessed now, and those found ready."""

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
    hybrid: bool = False,
) -> Planned:
    """Fingerprint, SliceMamba plans and preprocessed data of one dataset in nnUNet_raw.

    size: "S", "M" or "L". configurations: default all that the plans have and that need data of their own.
    gpu_memory: target in GB. verify: nnU-Net's dataset check first. clean: redo fingerprint and preprocessing even
    where they are complete. activation_checkpointing: see SliceMambaUNet. overwrite_plans: also plans that differ
    from those that networks were trained with. hybrid: with a convolutional stem, see SliceMambaUNet. Raises ValueError
    for a size that does not exist, a configuration that the plans do not have, where redoing data would spoil those of
    other plans, and plans would those of trainings.
    """
    chosen = planner_of(size, hybrid)
    limit = processes or os.cpu_count() or 1
    workers = min(default_num_processes, limit)
    extract_fingerprint_dataset(dataset_id, num_processes=workers, check_dataset_integrity=verify, clean=clean)
    name = plans_name or chosen.default_plans_name
    folder = Path(str(nnUNet_preprocessed)) / dataset_name
    planner = planner_class(chosen, activation_checkpointing, None if overwrite_plans else folder / f"{name}.json")
    # our own plans are about to be overwritten: what they say of existing data is read first
    known = data_settings(folder)
    plans, _ = plan_experiment_dataset(dataset_id, planner, gpu_memory, overwrite_plans_name=name)
    manager = PlansManager(json.loads((folder / f"{name}.json").read_text()))
    own_data = [c for c in plans["configurations"] if "inherits_from" not in plans["configurations"][c]]
    if configurations is None:
        wanted = own_data
    else:
        missing = [c for c in configurations if c not in manager.available_configurations]
        if missing:
            raise ValueError(
                f"configuration {', '.join(missing)} is not in the plans {name!r} of {dataset_name}; "
                f"they have {', '.join(manager.available_configurations)}"
            )
        # a configuration that inherits (a cascade) uses its parent's data
        parents = [plans["configurations"][c].get("inherits_from", c) for c in configurations]
        wanted = [c for c in own_data if c in parents]

    ready = [] if clean else [c for c in wanted if is_ready(manager, c, folder, dataset_name, known)]
    todo = [c for c in wanted if c not in ready]
    if not clean:
        for configuration in todo:
            refuse_foreign_data(manager, configuration, folder, known)
    # with nothing to do this still copies the reference segmentations, which nnU-Net's validation reads
    preprocess_dataset(dataset_id, name, todo, [min(PROCESSES.get(c, 4), limit) for c in todo])
    return Planned(name, tuple(todo), tuple(ready))


def planner_class(
    planner: type[SliceMambaPlanner], activation_checkpointing: bool, protected: Path | None
) -> type[SliceMambaPlanner]:
    """A planner with these settings. protected: plans that it refuses to change if networks were trained with them."""

    def save_plans(self: SliceMambaPlanner, plans: dict[str, Any]) -> None:
        results = os.environ.get("nnUNet_results")
        if protected is not None and results:
            # as nnU-Net does before it writes them: in place
            recursive_fix_for_json_export(plans)
            refuse_other_plans(plans, protected, Path(results) / protected.parent.name)
        planner.save_plans(self, plans)

    settings = {"activation_checkpointing": activation_checkpointing, "save_plans": save_plans}
    # nnU-Net takes a class and keeps its name in the plans
    return type(planner.__name__, (planner,), settings)


def settings_of(plans: dict[str, Any], configuration: dict[str, Any]) -> dict[str, Any]:
    """The part of plans and configuration that decides the preprocessed arrays."""
    values = {key: plans.get(key) for key in PLAN_KEYS}
    values |= {key: configuration.get(key) for key in CONFIGURATION_KEYS}
    return json.loads(json.dumps(values, default=float))


Known = dict[str, dict[str, dict[str, Any]]]


def data_settings(folder: Path) -> Known:
    """data_identifier -> name of the plans -> the preprocessing settings that they give for it, of all in `folder`."""
    found: Known = {}
    for file in sorted(folder.glob("*.json")):
        try:
            plans = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        if not isinstance(plans, dict) or not isinstance(plans.get("configurations"), dict):
            continue
        for configuration in plans["configurations"].values():
            if "data_identifier" in configuration and "spacing" in configuration:
                settings = settings_of(plans, configuration)
                found.setdefault(configuration["data_identifier"], {})[file.stem] = settings
    return found


def is_ready(
    manager: PlansManager,
    configuration: str,
    folder: Path,
    dataset_name: str,
    known: Known,
) -> bool:
    """Whether every case is preprocessed, and by plans that agree with these on all that matters.

    known: the plans that existed before; data that no plan accounts for, or only differing ones, are redone.
    """
    settings = manager.plans["configurations"][configuration]
    mine = settings_of(manager.plans, settings)
    others = known.get(settings["data_identifier"], {})
    if not others or any(other != mine for other in others.values()):
        return False
    return has_every_case(folder / settings["data_identifier"], raw_cases(dataset_name))


def refuse_foreign_data(manager: PlansManager, configuration: str, folder: Path, known: Known) -> None:
    """Raises ValueError if other plans use the same folder of data with other settings: redoing it would spoil them."""
    settings = manager.plans["configurations"][configuration]
    identifier, mine = settings["data_identifier"], settings_of(manager.plans, settings)
    others = known.get(identifier, {})
    foreign = [name for name, theirs in others.items() if name != manager.plans_name and theirs != mine]
    if foreign and (folder / identifier).is_dir():
        raise ValueError(
            f"{folder / identifier} was preprocessed for the plans {', '.join(foreign)} with other settings (spacing, "
            f"normalisation, resampling); plan with the same ones, remove those plans, or pass --clean to redo the data"
        )


def complete_data(dataset_name: str, plans_name: str, configuration: str) -> None:
    """Preprocesses a configuration of existing plans again if cases are missing.

    Does nothing for a configuration that the plans do not have, and where only preprocessed data are at hand.
    """
    folder = Path(str(nnUNet_preprocessed)) / dataset_name
    plans = json.loads((folder / f"{plans_name}.json").read_text())
    known = plans["configurations"]
    raw = os.environ.get("nnUNet_raw")
    if configuration not in known or not raw or not (Path(raw) / dataset_name).is_dir():
        return
    source = known[configuration].get("inherits_from", configuration)
    data = folder / PlansManager(plans).get_configuration(source).data_identifier
    if not has_every_case(data, raw_cases(dataset_name)) or not (folder / "gt_segmentations").is_dir():
        processes = min(PROCESSES.get(source, 4), os.cpu_count() or 1)
        preprocess_dataset(convert_dataset_name_to_id(dataset_name), plans_name, [source], [processes])


def raw_cases(dataset_name: str) -> set[str]:
    """Names of the training cases in nnUNet_raw."""
    raw = Path(str(nnUNet_raw)) / dataset_name
    description = json.loads((raw / "dataset.json").read_text())
    if "dataset" in description:
        return set(description["dataset"])
    found = get_identifiers_from_splitted_dataset_folder(str(raw / "imagesTr"), description["file_ending"])
    return {str(case) for case in found}


def has_every_case(data: Path, cases: set[str]) -> bool:
    """Whether exactly `cases` are preprocessed in `data`; a case's properties are the last file nnU-Net writes."""
    return {file.stem for file in data.glob("*.pkl")} == cases
