"""Preprocessed data: the settings that they were made with, and whether plans may use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_slicemamba.common.json_files import plain_json, write_json
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.nnunet_files import DATASET_JSON, PLANS_JSON
from nnunetv2_slicemamba.planning.raw_dataset import training_images

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
# What a folder of data was made with; null: not known. Inside it, because nnU-Net deletes the whole folder before it
# preprocesses: no marker outlives its data. In a folder of its own, because nnU-Net tells the format of the data by the
# endings of the files beside them.
MARKER = Path("slicemamba", "made_with.json")
_MARKER = JsonKind("the settings of preprocessed data", (dict, None), "'slicemamba plan' makes data and settings anew")

Settings = dict[str, Any]


def settings_of(plans: dict[str, Any], configuration: dict[str, Any]) -> Settings:
    """Part of plans and of a configuration, with what it inherits, that decides the preprocessed arrays."""
    values = {key: plans.get(key) for key in PLAN_KEYS}
    values |= {key: configuration.get(key) for key in CONFIGURATION_KEYS}
    return plain_json(values)


def data_owner(manager: PlansManager, configuration: str) -> str:
    """Configuration whose data this one reads: itself, or the one it inherits the data's identifier from."""
    identifier = manager.get_configuration(configuration).data_identifier
    parent = manager.plans["configurations"][configuration].get("inherits_from")
    if parent is None or manager.get_configuration(parent).data_identifier != identifier:
        return configuration
    return data_owner(manager, parent)


def data_of(manager: PlansManager, configuration: str) -> tuple[str, Settings]:
    """data_identifier and settings of a configuration that has data of its own."""
    resolved = manager.get_configuration(configuration)
    return resolved.data_identifier, settings_of(manager.plans, resolved.configuration)


def all_data(plans: dict[str, Any]) -> list[tuple[str, Settings]]:
    """data_identifier and settings of all configurations of these plans that have data of their own."""
    manager, found = PlansManager(plans), []
    for configuration in manager.available_configurations:
        try:
            if data_owner(manager, configuration) == configuration:
                found.append(data_of(manager, configuration))
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            # edited plans: what nnU-Net cannot read it has not preprocessed
            continue
    return found


def data_settings(folder: Path) -> dict[str, list[tuple[str, Settings]]]:
    """Settings that the plans in `folder` give for their data: data_identifier -> [(name of plans, settings)]."""
    found: dict[str, list[tuple[str, Settings]]] = {}
    for file in sorted(folder.glob("*.json")):
        if not PLANS_JSON.is_readable(file):  # other files, or plans that a kill or a full disk left half of
            continue
        for identifier, settings in all_data(PLANS_JSON.read(file)):
            found.setdefault(identifier, []).append((file.stem, settings))
    return found


def made_with(folder: Path, identifier: str) -> Settings | None:
    """Settings that the data were preprocessed with, None if they are not known or the marker is damaged.

    Of data without a marker, made by nnU-Net's commands or an earlier version: what all plans say, if they agree.
    """
    marker = folder / identifier / MARKER
    if marker.is_file():
        return _MARKER.read(marker) if _MARKER.is_readable(marker) else None
    said = [settings for _, settings in data_settings(folder).get(identifier, [])]
    return said[0] if said and all(settings == said[0] for settings in said) else None


def mark(data: Path, settings: Settings | None) -> None:
    """Writes down what the data in this folder were made with."""
    write_json(data / MARKER, settings)


def mark_before_change(folder: Path, plans: dict[str, Any]) -> None:
    """Marks data that only the plans in `folder` account for, where `plans`, about to be written there, say otherwise.

    Whatever ends planning or preprocessing afterwards, the new plans are not mistaken for what the old data were made
    with.
    """
    for identifier, settings in all_data(plans):
        data = folder / identifier
        made = made_with(folder, identifier)
        if data.is_dir() and not (data / MARKER).is_file() and made != settings:
            mark(data, made)


def invalidate(data: Path) -> None:
    """Makes these data count as incomplete: they are about to be redone.

    nnU-Net deletes them in no particular order; ended in between, it could leave old cases without their marker.
    """
    for properties in data.glob("*.pkl"):
        properties.unlink()
    (data / MARKER).unlink(missing_ok=True)


def is_ready(manager: PlansManager, configuration: str, folder: Path) -> bool:
    """True if a configuration's own data are there: every case, and made with the settings of its plans."""
    identifier, settings = data_of(manager, configuration)
    return made_with(folder, identifier) == settings and has_every_case(folder / identifier, raw_cases(folder.name))


def raw_cases(dataset_name: str) -> set[str]:
    """Names of the training cases in nnUNet_raw."""
    raw = Path(str(nnUNet_raw)) / dataset_name
    return set(training_images(raw, DATASET_JSON.read(raw / "dataset.json")))


def has_every_case(data: Path, cases: set[str]) -> bool:
    """True if exactly `cases` are preprocessed in `data`; a case's properties are the last file nnU-Net writes."""
    return {file.stem for file in data.glob("*.pkl")} == cases
