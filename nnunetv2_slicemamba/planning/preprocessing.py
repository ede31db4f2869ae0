"""Fingerprint, plans and preprocessing of a dataset; what is already there and fits is left alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2.configuration import default_num_processes
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprint_dataset,
    plan_experiment_dataset,
    preprocess_dataset,
)
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.json_export import recursive_fix_for_json_export
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunetv2_slicemamba.common.dataset_names import dataset_id_of
from nnunetv2_slicemamba.common.folder_lock import in_use_after_others
from nnunetv2_slicemamba.common.folders import InputError, is_writable, named_folder
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.nnunet_files import DATASET_JSON, FINGERPRINT_JSON, PLANS_JSON
from nnunetv2_slicemamba.planning.case_files import damaged_cases
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
    raw_cases,
)
from nnunetv2_slicemamba.planning.planner import SharedDataPlanner, planner_of
from nnunetv2_slicemamba.planning.plans_name import require_same_name
from nnunetv2_slicemamba.planning.raw_dataset import check_raw_dataset, check_splits
from nnunetv2_slicemamba.planning.trained import refuse_other_plans
from nnunetv2_slicemamba.slicing import candidate_sets
from nnunetv2_slicemamba.slicing.candidate_sets import check_named

# those that planners write
CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
# as nnU-Net's command: 3D full resolution volumes need more memory per process
PROCESSES = {"2d": 8, "3d_fullres": 4, "3d_lowres": 8}


@dataclass(frozen=True)
class Planned:
    """Result of `plan_and_preprocess`: plans' name, configurations preprocessed now, and those found ready.

    mended: the damaged cases of those found ready that were made anew. set_aside: damaged files, now under another
    name, that were made anew.
    """

    plans_name: str
    preprocessed: tuple[str, ...]
    reused: tuple[str, ...]
    mended: dict[str, tuple[str, ...]] = field(default_factory=dict)
    set_aside: tuple[Path, ...] = ()


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
    candidates: str = candidate_sets.PAPER,
) -> Planned:
    """Makes fingerprint, SliceMamba plans and preprocessed data of one dataset in nnUNet_raw.

    size: a key of SIZES. configurations: default all that the plans have and that need data of their own. gpu_memory:
    target in GB. verify: nnU-Net's dataset check first. clean: redo fingerprint and preprocessing even where they are
    complete. activation_checkpointing: see SliceMambaUNet. overwrite_plans: also plans that differ from those that
    networks were trained with. network: one of NETWORKS. blocks_from_stride, decoder_blocks: of a residual network, see
    planning.residual; None for the default. candidates: of the supernet, see candidate_sets. Raises ValueError for a
    size that does not exist, raw data that do not fit their dataset.json, a configuration that the plans do not have,
    where redoing data would spoil those of other plans, and plans would those of trainings; JsonFileError for a damaged
    dataset.json or split, or damaged plans that networks were trained with. Waits while another process plans or
    preprocesses the data set, and then uses what that one has made.
    """
    chosen = planner_of(size, network)
    name = plans_name or chosen.default_plans_name
    file = Path(str(nnUNet_preprocessed)) / dataset_name / f"{name}.json"
    refuse_unknown_configurations(configurations or (), file)
    check_named(candidates, configurations)
    DATASET_JSON.read(Path(str(nnUNet_raw)) / dataset_name / "dataset.json")
    check_splits(Path(str(nnUNet_raw)) / dataset_name, file.parent)
    check_raw_dataset(Path(str(nnUNet_raw)) / dataset_name, counted=verify)
    planner = planner_class(
        chosen, activation_checkpointing, file, not overwrite_plans, blocks_from_stride, decoder_blocks, candidates
    )
    # nnU-Net deletes the folder that it preprocesses into, whoever else may be writing there
    with in_use_after_others(file.parent, print):
        return _plan_and_preprocess(
            dataset_id, planner, file, configurations, gpu_memory, processes or os.cpu_count() or 1, verify, clean
        )


def _plan_and_preprocess(
    dataset_id: int,
    planner: type[SharedDataPlanner],
    file: Path,
    configurations: Sequence[str] | None,
    gpu_memory: float,
    limit: int,
    verify: bool,
    clean: bool,
) -> Planned:
    """`plan_and_preprocess` of checked arguments. file: the plans to write. limit: most processes."""
    name = file.stem
    workers = min(default_num_processes, limit)
    fingerprint = file.with_name("dataset_fingerprint.json")
    damaged = [f for f, kind in ((fingerprint, FINGERPRINT_JSON), (file, PLANS_JSON)) if is_damaged(f, kind)]
    set_aside_if_damaged(fingerprint, FINGERPRINT_JSON)
    extract_fingerprint_dataset(dataset_id, num_processes=workers, check_dataset_integrity=verify, clean=clean)
    plan_experiment_dataset(dataset_id, planner, gpu_memory, overwrite_plans_name=name)
    manager = PlansManager(PLANS_JSON.read(file))
    available = manager.available_configurations
    asked = available if configurations is None else configurations
    missing = [c for c in asked if c not in available]
    if missing:
        raise ValueError(
            f"configuration {', '.join(missing)} is not in the plans {name!r} of {file.parent.name}; "
            f"they have {', '.join(available)}"
        )
    owners = {data_owner(manager, c) for c in asked}
    wanted = [c for c in available if c in owners]

    ready = [] if clean else [c for c in wanted if is_ready(manager, c, file.parent)]
    mended = {c: mend(manager, c, file, limit) for c in ready}
    ready = [c for c in ready if mended[c] is not None]
    todo = [c for c in wanted if c not in ready]
    if not clean:
        for configuration in todo:
            refuse_foreign_data(manager, configuration, file)
    preprocess(manager, file, todo, limit)
    return Planned(
        name,
        tuple(todo),
        tuple(ready),
        mended={c: cases for c, cases in mended.items() if cases},
        set_aside=tuple(map(aside_of, damaged)),
    )


def mend(manager: PlansManager, configuration: str, file: Path, limit: int) -> tuple[str, ...] | None:
    """Makes the damaged cases among a configuration's own, complete data anew; returns them.

    None, and nothing is done, where they are so many that preprocessing all cases in `limit` processes is faster, or
    in nnU-Net's older format, which it writes no longer. file: the plans.
    """
    identifier, _ = data_of(manager, configuration)
    data = file.parent / identifier
    cases = raw_cases(file.parent.name)
    damaged = tuple(sorted(damaged_cases(data, cases)))
    if not damaged:
        return ()
    if len(damaged) * min(PROCESSES.get(configuration, 4), limit) > len(cases) or not any(data.glob("*.b2nd")):
        return None
    description = DATASET_JSON.read(file.with_name("dataset.json"))
    sources = get_filenames_of_train_images_and_targets(str(Path(str(nnUNet_raw)) / file.parent.name), description)
    resolved = manager.get_configuration(configuration)
    for case in damaged:
        for part in (f"{case}.pkl", f"{case}.b2nd", f"{case}_seg.b2nd"):
            (data / part).unlink(missing_ok=True)
        source = sources[case]
        preprocessor = resolved.preprocessor_class(verbose=False)
        preprocessor.run_case_save(str(data / case), source["images"], source["label"], manager, resolved, description)
    return damaged


def is_damaged(file: Path, kind: JsonKind) -> bool:
    """True if a file is there and not of its kind: a kill or a full disk left half of it, or somebody edited it."""
    return file.is_file() and not kind.is_readable(file)


def set_aside_if_damaged(file: Path, kind: JsonKind) -> None:
    """Gives a damaged file, which is about to be made anew, another name."""
    if is_damaged(file, kind):
        file.replace(aside_of(file))


def aside_of(file: Path) -> Path:
    """The name that a damaged file is given."""
    return file.with_name(f"{file.name}.damaged")


def refuse_unknown_configurations(configurations: Sequence[str], file: Path) -> None:
    """Raises ValueError for what neither a planner writes nor the plans in `file`, if they exist, have."""
    unknown = [name for name in configurations if name not in CONFIGURATIONS]
    if unknown:
        known = [*CONFIGURATIONS, *with_kept_configurations({"configurations": {}}, file)["configurations"]]
        for name in unknown:
            if name not in known:
                raise ValueError(
                    f"configuration {name!r} does not exist; give -c some of {', '.join(dict.fromkeys(known))}"
                )


def planner_class(
    planner: type[SharedDataPlanner],
    activation_checkpointing: bool,
    file: Path,
    protect: bool,
    blocks_from_stride: int | None = None,
    decoder_blocks: bool = False,
    candidates: str = candidate_sets.PAPER,
) -> type[SharedDataPlanner]:
    """A planner with these settings, which writes `file`. protect: not if networks were trained with other plans."""

    def save_plans(self: SharedDataPlanner, plans: dict[str, Any]) -> None:
        # as nnU-Net does before it writes them: in place
        recursive_fix_for_json_export(plans)
        complete = with_kept_configurations(plans, file)
        results = named_folder("nnUNet_results")
        if protect and results is not None:
            refuse_other_plans(complete, file, results / file.parent.name)
        mark_before_change(file.parent, complete)
        set_aside_if_damaged(file, PLANS_JSON)
        planner.save_plans(self, plans)

    settings: dict[str, Any] = {"activation_checkpointing": activation_checkpointing, "save_plans": save_plans}
    if candidates != candidate_sets.PAPER:
        settings["candidates"] = candidates
    if decoder_blocks:
        settings["decoder_blocks"] = True
    if blocks_from_stride is not None:
        settings["blocks_from_stride"] = blocks_from_stride
    # nnU-Net takes a class and keeps its name in the plans
    return type(planner.__name__, (planner,), settings)


def with_kept_configurations(plans: dict[str, Any], file: Path) -> dict[str, Any]:
    """Plans as nnU-Net writes them to `file`: with the configurations that only the plans in it have, users' own."""
    kept = PLANS_JSON.read(file)["configurations"] if PLANS_JSON.is_readable(file) else {}
    return {**plans, "configurations": {**kept, **plans["configurations"]}}


def preprocess(manager: PlansManager, file: Path, configurations: Sequence[str], limit: int) -> None:
    """Preprocesses configurations with data of their own by nnU-Net, and marks the data that are complete.

    file: the plans. limit: most processes.
    """
    dataset_id = dataset_id_of(file.parent.name)
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
    """Raises ValueError if the data are damaged, or marked, but not with the settings of the plans in `file`."""
    identifier, settings = data_of(manager, configuration)
    data = file.parent / identifier
    if (data / MARKER).is_file() and made_with(file.parent, identifier) != settings:
        raise ValueError(
            f"{data} was not preprocessed with the settings of the plans {file.stem}, and cannot be redone without the "
            "raw data; run slicemamba plan where nnUNet_raw has them, and copy the folder here"
        )
    for wrong in damaged_cases(data, sorted(file.stem for file in data.glob("*.pkl"))).values():
        raise ValueError(
            f"{wrong}: a preprocessed case that cannot be made anew without the raw data; run slicemamba plan where "
            f"nnUNet_raw has them, and copy {data} here"
        )


def complete_data(dataset_name: str, plans_name: str, configuration: str) -> None:
    """Preprocesses a configuration of existing plans again if cases are missing or were made with other settings.

    Does nothing for a configuration that the plans do not have, and where only preprocessed data are at hand. Raises
    ValueError where those are known not to fit, and where redoing data would spoil those of other plans.
    """
    file = Path(str(nnUNet_preprocessed)) / dataset_name / f"{plans_name}.json"
    manager = PlansManager(PLANS_JSON.read(file))
    require_same_name(manager.plans, file)
    if configuration not in manager.available_configurations:
        return
    owner = data_owner(manager, configuration)
    raw = named_folder("nnUNet_raw")
    if raw is None or not (raw / dataset_name).is_dir():
        refuse_marked_otherwise(manager, owner, file)
        return
    if _is_complete(manager, owner, file):
        return
    if not is_writable(file.parent):
        raise InputError(
            f"{file.parent} lacks preprocessed data of {configuration} and is not writable; change its "
            "permissions, or preprocess the data set where it can be written"
        )
    with in_use_after_others(file.parent, print):
        if not _is_complete(manager, owner, file):
            _complete(manager, owner, file, os.cpu_count() or 1)


def has_data(dataset_name: str, plans_name: str, configuration: str) -> bool:
    """True if `complete_data` has nothing to make but damaged cases. Raises JsonFileError for damaged plans."""
    file = Path(str(nnUNet_preprocessed)) / dataset_name / f"{plans_name}.json"
    manager = PlansManager(PLANS_JSON.read(file))
    raw = named_folder("nnUNet_raw")
    if configuration not in manager.available_configurations or raw is None or not (raw / dataset_name).is_dir():
        return True
    return is_ready(manager, data_owner(manager, configuration), file.parent)


def _is_complete(manager: PlansManager, configuration: str, file: Path) -> bool:
    """True if nothing of a configuration's own data is missing, damaged, or of other settings. file: the plans."""
    data = file.parent / data_of(manager, configuration)[0]
    return (
        is_ready(manager, configuration, file.parent)
        and not damaged_cases(data, raw_cases(file.parent.name))
        and (file.parent / "gt_segmentations").is_dir()
    )


def _complete(manager: PlansManager, configuration: str, file: Path, limit: int) -> None:
    """Makes what `_is_complete` misses. limit: most processes."""
    mended = mend(manager, configuration, file, limit) if is_ready(manager, configuration, file.parent) else None
    if mended:
        print(f"{configuration}: preprocessed cases that were damaged are made anew: {', '.join(mended)}")
    ready = mended is not None
    if not ready:
        refuse_foreign_data(manager, configuration, file)
    if not ready or not (file.parent / "gt_segmentations").is_dir():
        preprocess(manager, file, [] if ready else [configuration], limit)
