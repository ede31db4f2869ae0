"""Preprocessed data of a baseline, which are used as they are: what they lack."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_slicemamba.common.dataset_names import dataset_id_of
from nnunetv2_slicemamba.common.folders import InputError, named_folder, require_folder
from nnunetv2_slicemamba.common.nnunet_files import PLANS_JSON
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.planning.case_files import damaged_cases
from nnunetv2_slicemamba.planning.data import MARKER, data_of, data_owner, made_with, raw_cases
from nnunetv2_slicemamba.planning.outside_plans import preprocessing_arguments, require_plans
from nnunetv2_slicemamba.planning.plans_name import require_same_name

_LISTED = 5


def require_outside_data(dataset: str, plans_name: str, configuration: str) -> None:
    """Raises InputError with what a baseline's data lack and nnU-Net's command that makes them. Changes no file.

    dataset: name.
    """
    require_plans(dataset, plans_name, configuration)
    if lacking := lack_of_data(dataset, plans_name, configuration):
        command = preprocessing_arguments(dataset_id_of(dataset), plans_name, configuration)
        raise InputError(
            f"{lacking}. This training takes the data of {plans_name} as they are. Make them anew, which replaces the "
            f"folder, with '{shell_line('nnUNetv2_preprocess', *command)}'"
        )


def lack_of_data(dataset: str, plans_name: str, configuration: str, damage: bool = True) -> str:
    """Sentence on what the data of plans lack; "" where nothing is known to be wrong.

    dataset: name. damage: also opens the files of every case, to find those that are damaged.
    """
    folder = require_folder("nnUNet_preprocessed") / dataset
    file = folder / f"{plans_name}.json"
    manager = PlansManager(PLANS_JSON.read(file))
    require_same_name(manager.plans, file)
    if configuration not in manager.available_configurations:
        return ""
    identifier, settings = data_of(manager, data_owner(manager, configuration))
    data = folder / identifier
    for needed in (data, folder / "gt_segmentations"):
        if not needed.is_dir():
            return f"there is no {needed}"
    if (data / MARKER).is_file() and made_with(folder, identifier) != settings:
        return f"{data} was preprocessed with other settings (spacing, normalisation, resampling) than {plans_name} has"
    raw = named_folder("nnUNet_raw")
    has_raw = raw is not None and (raw / dataset).is_dir()
    cases = raw_cases(dataset) if has_raw else {one.stem for one in data.glob("*.pkl")}
    # other preprocessors write other files
    known = settings["preprocessor_name"] == "DefaultPreprocessor" and any(data.glob("*.b2nd"))
    if missing := missing_cases(data, cases, known):
        more = "" if len(missing) <= _LISTED else ", ..."
        return f"{data} lacks {len(missing)} of {len(cases)} training cases: {', '.join(missing[:_LISTED])}{more}"
    return next(iter(damaged_cases(data, sorted(cases)).values()), "") if known and damage else ""


def missing_cases(data: Path, cases: Collection[str], known: bool) -> list[str]:
    """The cases without data. known: in nnU-Net's format, whose properties are written last; else any file counts."""
    there = {file.stem for file in data.glob("*.pkl")}
    if not (there or known):
        names = [file.name for file in data.iterdir()]
        there = {name[:end] for name in names for end, sign in enumerate(f"{name}.") if sign == "."}
    return sorted(set(cases) - there)
