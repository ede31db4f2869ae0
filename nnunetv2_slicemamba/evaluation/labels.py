"""Classes to evaluate: from dataset.json with nnU-Net's LabelManager, or from labels that are given or found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.evaluation.results import ClassLabel

DATASET = JsonKind(
    "nnU-Net v2's dataset.json",
    {"labels": {str: (int, [int])}, "file_ending": str, "regions_class_order?": ([int], None)},
    "Give the one in nnUNet_raw (nnUNetv2_convert_old_nnUNet_dataset converts the old format)",
)
MOST_LABELS = 64  # that are taken for classes without being asked; more are rather grey values or instances


@dataclass(frozen=True)
class Labelling:
    """Classes to evaluate. known: labels that may occur, ascending; None if any may. ignore_label: None without one.

    described: labels in dataset.json, empty without one.
    """

    classes: tuple[ClassLabel, ...]
    known: tuple[int, ...] | None
    ignore_label: int | None
    described: frozenset[int] = frozenset()


def find_dataset_json(predictions: Path, truth: Path, given: str | Path | None = None) -> Path | None:
    """The dataset.json to use, or None.

    `given`, or the first there is: beside the predictions (nnU-Net writes it there), in the truth folder or above it
    (nnUNet_raw/DATASET/labelsTs, nnUNet_preprocessed/DATASET/gt_segmentations), up to two folders above the predictions
    (fold_0/validation). Raises InputError if `given` is not a file.
    """
    if given is not None:
        if not Path(given).is_file():
            raise InputError(f"-djfile {given} is not a file; give the dataset's dataset.json")
        return Path(given)
    here, there = predictions.resolve(), truth.resolve()
    for folder in (here, there, there.parent, here.parent, here.parent.parent):
        if (folder / "dataset.json").is_file():
            return folder / "dataset.json"
    return None


def read_dataset_json(file: Path) -> dict[str, Any]:
    """The content of a dataset.json; InputError if it is none or in the format of nnU-Net v1."""
    return DATASET.read(file)


def labelling_of(content: dict[str, Any], file: Path, labels: Sequence[int] | None, ignore: int | None) -> Labelling:
    """Classes of a dataset.json: its regions if it has any, else its labels; or `labels` in their place.

    ignore: takes the place of the dataset's ignore label. Raises InputError where nnU-Net refuses the labels.
    """
    try:
        manager = LabelManager(content["labels"], content.get("regions_class_order"))
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"nnU-Net refuses the labels of {file}: {error}") from error
    names = {name: value for name, value in content["labels"].items() if name != "ignore"}
    known = {int(label) for label in manager.all_labels}
    described = frozenset(known)
    if manager.has_regions:
        classes = [
            ClassLabel(name, _members(value), str(tuple(value) if isinstance(value, list) else value))
            for name, value in names.items()
            if set(_members(value)) != {0}
        ]
    else:
        classes = [
            ClassLabel(name, _members(value), str(*_members(value))) for name, value in names.items() if value != 0
        ]
    if labels is not None:
        of_one = {_members(value)[0]: name for name, value in names.items() if len(_members(value)) == 1}
        classes = [ClassLabel(of_one.get(label, str(label)), (label,), str(label)) for label in _unique(labels)]
        known |= set(labels)
    ignore_label = manager.ignore_label if ignore is None else ignore
    if ignore_label is not None:
        known.add(ignore_label)
    return Labelling(_checked(classes, ignore_label), tuple(sorted(known)), ignore_label, described)


def labelling_without_dataset(labels: Iterable[int], ignore_label: int | None, given: bool) -> Labelling:
    """Classes without a dataset.json: `labels`, if they were not given but found without 0 and the ignored one.

    Raises InputError if there is none, or if those that were found are too many to be classes.
    """
    wanted = [label for label in _unique(labels) if given or label not in (0, ignore_label)]
    if not given and len(wanted) > MOST_LABELS:
        raise InputError(
            f"there is no dataset.json and the files hold {len(wanted)} different values; if these are label maps, "
            "name the labels to evaluate with --labels or the dataset's description with -djfile"
        )
    classes = [ClassLabel(str(label), (label,), str(label)) for label in wanted]
    return Labelling(_checked(classes, ignore_label), None, ignore_label)


def refuse_absent(labelling: Labelling, found: Sequence[int]) -> None:
    """Raises InputError for classes that dataset.json does not know and no file holds. found: labels in the files."""
    wanted = {label for one in labelling.classes for label in one.labels}
    absent = sorted(wanted - labelling.described - set(found))
    if absent:
        there = f"{', '.join(map(str, found[:20]))}{', ...' if len(found) > 20 else ''}"
        raise InputError(
            f"--labels names {', '.join(map(str, absent))}, which neither dataset.json knows nor a file holds; "
            f"the files hold {there}"
        )


def _members(value: int | Sequence[int]) -> tuple[int, ...]:
    return (int(value),) if isinstance(value, int) else tuple(int(label) for label in value)


def _unique(labels: Iterable[int]) -> list[int]:
    return sorted({int(label) for label in labels})


def _checked(classes: Sequence[ClassLabel], ignore_label: int | None) -> tuple[ClassLabel, ...]:
    if not classes:
        raise InputError("there is no foreground label to evaluate; name some with --labels")
    for one in classes:
        if min(one.labels) < 0:
            raise InputError(f"label {min(one.labels)} is negative, labels begin at 0; name other labels with --labels")
        if 0 in one.labels and len(one.labels) == 1:
            raise InputError("label 0 is the background, it is not evaluated; name other labels with --labels")
        if ignore_label in one.labels:
            raise InputError(f"label {ignore_label} is to be ignored and to be evaluated; choose one")
    return tuple(classes)
