"""Check of raw data against their dataset.json, before nnU-Net reads them and fails somewhere inside."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.nnunet_files import SPLITS_JSON
from nnunetv2_slicemamba.common.nnunet_readers import Reader, find_reader, reason_of
from nnunetv2_slicemamba.common.silence import silently
from nnunetv2_slicemamba.common.special_files import require_no_special
from nnunetv2_slicemamba.common.text_files import has_mark
from nnunetv2_slicemamba.evaluation.labels import read_dataset_json

EXAMPLES = 3


def check_raw_dataset(folder: Path, counted: bool = False) -> None:
    """Compares the training data in `folder`, a dataset of nnUNet_raw, with dataset.json.

    counted: numTraining must be right, too, as nnU-Net's integrity check demands. Raises InputError that names the
    value, the rule and the remedy.
    """
    file = folder / "dataset.json"
    if not file.is_file():
        raise InputError(
            f"{folder} has no dataset.json, which names channels, labels and file ending; write one, or make the data "
            "set with 'slicemamba convert'"
        )
    content = read_dataset_json(file)
    if has_mark(file):
        raise InputError(f"{file} begins with a byte order mark, which nnU-Net does not read; save it without one")
    ending = content["file_ending"]
    if not isinstance(ending, str) or not ending.startswith("."):
        raise InputError(f"{file} has the file_ending {ending!r}; give one with its dot, such as '.nii.gz'")
    n_channels = len(channel_names(content, file))
    check_labels(content, file)
    check_list(content, file)
    images = training_images(folder, content)
    truth = check_truth(folder, content, list(images))
    check_channels(images, content, n_channels, file)
    check_values(truth, content, find_reader(content, content["file_ending"], next(iter(images.values()))[0]), file)
    number = content.get("numTraining")
    if counted and number != len(images):
        raise InputError(f"{file} says numTraining {number}, there are {len(images)} training cases; correct it")


def channel_names(content: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    """The channels by their number as a text, "0" first. Raises InputError for other keys, or none."""
    names = content.get("channel_names", content.get("modality"))
    wanted = [str(i) for i in range(len(names))] if isinstance(names, Mapping) else []
    if not wanted or sorted(names, key=str) != sorted(wanted):
        raise InputError(
            f"{file} has the channel_names {names}; give an object with a name per channel, "
            '{"0": "CT"} or {"0": "R", "1": "G", "2": "B"}'
        )
    return names


def check_labels(content: Mapping[str, Any], file: Path) -> None:
    """Raises InputError for labels that nnU-Net refuses, or that are not 0, 1, 2 and so on."""
    labels = content["labels"]
    if not isinstance(labels, Mapping) or not all(map(_is_label, labels.values())):
        raise InputError(
            f"{file} has the labels {str(labels)[:80]}; give an object of names with whole numbers, "
            '{"background": 0, "tumour": 1}, or lists of them for regions'
        )
    try:
        manager = LabelManager(content["labels"], content.get("regions_class_order"))
        numbers = sorted({int(label) for label in manager.all_labels})
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"nnU-Net refuses the labels of {file}: {error}") from error
    if manager.ignore_label is not None:
        numbers.append(manager.ignore_label)
    if numbers != list(range(len(numbers))):
        raise InputError(
            f"{file} has the labels {', '.join(map(str, numbers))}; nnU-Net wants 0, 1, 2 and so on without a gap, the "
            "ignore label last: renumber them, in the label files too"
        )


def check_list(content: Mapping[str, Any], file: Path) -> None:
    """Raises InputError if dataset.json lists its cases, and not as nnU-Net reads such a list."""
    listed = content.get("dataset", {"": {"images": [""], "label": ""}})
    if not isinstance(listed, Mapping) or not listed or not all(map(_is_listed_case, listed.values())):
        raise InputError(
            f"{file} has an entry 'dataset' that nnU-Net does not understand; give "
            '{"CASE": {"images": [FILE, ...], "label": FILE}, ...}, or remove it: imagesTr and labelsTr are read then'
        )


def training_images(folder: Path, content: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Training case -> image files, one per channel or one with all. content: of dataset.json.

    Raises InputError where nnU-Net would find none, or names that it does not understand.
    """
    listed = content.get("dataset")
    if listed is not None:
        return {case: [_listed_path(folder, name) for name in entry["images"]] for case, entry in listed.items()}
    ending, place = content["file_ending"], folder / "imagesTr"
    if not place.is_dir():
        raise InputError(f"{folder} has no folder imagesTr; nnU-Net expects CASE_0000{ending} there")
    files = sorted(path for path in place.iterdir() if not path.is_dir() and not path.name.startswith("."))
    fitting = [path for path in files if path.name.endswith(ending)]
    if not fitting:
        there = Counter("".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix for path in files)
        listing = ", ".join(f"{number} {kind or 'without ending'}" for kind, number in there.most_common(EXAMPLES))
        raise InputError(
            f"{folder / 'dataset.json'} says file_ending {ending!r}, but {place} holds: {listing or 'no files'}; "
            "correct the one or the other"
        )
    images: dict[str, list[Path]] = {}
    for path in fitting:
        require_no_special(path)
        match = re.fullmatch(r"(.+)_\d{4}", path.name.removesuffix(ending), re.ASCII | re.DOTALL)
        if match is None:
            raise InputError(f"{path} has no number of its channel; nnU-Net expects CASE_0000{ending}, so rename it")
        images.setdefault(match[1], []).append(path)
    return images


def check_truth(folder: Path, content: Mapping[str, Any], cases: Sequence[str]) -> list[Path]:
    """The label files of training cases; InputError for cases without one. content: of dataset.json."""
    listed = content.get("dataset")
    if listed is not None:
        files = {case: _listed_path(folder, listed[case]["label"]) for case in cases}
    else:
        files = {case: folder / "labelsTr" / f"{case}{content['file_ending']}" for case in cases}
    missing = [str(file) for file in files.values() if not file.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(files)} training cases have no labels: {_first(missing)}; add them, or move the "
            "images elsewhere"
        )
    return list(files.values())


def check_values(truth: Sequence[Path], content: Mapping[str, Any], reader: Reader, file: Path) -> None:
    """Raises InputError if no case has a label above 0, or the first that has one also has others than dataset.json.

    truth: label files, which are read up to that case. nnU-Net would fail in the middle of its work.
    """
    manager = LabelManager(content["labels"], content.get("regions_class_order"))
    labels = [*manager.all_labels, *([] if manager.ignore_label is None else [manager.ignore_label])]
    for path in truth:
        values = np.unique(_read(reader, path, truth=True))
        unknown = [f"{value:g}" for value in values if value not in labels]
        if unknown:
            raise InputError(
                f"{path} has the value {_first(unknown)}, {file} names the labels {', '.join(map(str, labels))}: "
                "correct the one or the other, or make the data set with 'slicemamba convert folders'"
            )
        if (values > 0).any():
            return
    raise InputError(
        f"none of the {len(truth)} label files of {truth[0].parent} has a value above 0, so there is nothing to learn: "
        "correct them"
    )


def check_splits(raw: Path, preprocessed: Path) -> None:
    """Raises InputError if a dataset's two splits differ in a fold of the raw data's, which nnU-Net does not take.

    raw, preprocessed: the dataset's folders. Raises JsonFileError for a split that is damaged.
    """
    files = [folder / "splits_final.json" for folder in (raw, preprocessed)]
    given, used = (SPLITS_JSON.read_if_there(file) for file in files)
    if given is None or used is None:
        return
    for number, fold in enumerate(given):
        same = number < len(used) and all(set(fold[part]) == set(used[number][part]) for part in ("train", "val"))
        if not same:
            raise InputError(
                f"{files[0]} and {files[1]} differ in fold {number}, and nnU-Net takes no two divisions of one "
                "dataset: copy the one that you mean over the other"
            )


def check_channels(
    images: Mapping[str, Sequence[Path]], content: Mapping[str, Any], n_channels: int, file: Path
) -> None:
    """Raises InputError for cases that have other channels than dataset.json.

    All are compared by their number of files, and images of formats such as PNG by what their headers say; of what is
    equal, one is read with nnU-Net's reader.
    """
    missing = [str(path) for paths in images.values() for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} training images are not there: {_first(missing)}; correct their paths or links"
        )
    first = next(iter(images.values()))[0]
    reader = find_reader(content, content["file_ending"], first)
    kinds: dict[tuple[str, ...], list[str]] = {}
    for case, paths in images.items():
        headers = [_mode(path) if issubclass(reader, NaturalImage2DIO) else "" for path in paths]
        kinds.setdefault(tuple(headers), []).append(case)
    for cases in kinds.values():
        found = len(_read(reader, *images[cases[0]]))
        if found != n_channels:
            raise InputError(
                f"{len(cases)} of {len(images)} training cases have {found} channels, {file} names {n_channels}: "
                f"{_first(cases)}; name as many channel_names as there are, or store the images with as many channels"
            )


def _read(reader: Reader, *paths: Path, truth: bool = False) -> np.ndarray:
    """Channels of an image, or the labels in a label file. Raises InputError for what cannot be read."""
    try:
        with silently():
            if truth:
                return reader().read_seg(str(paths[0]))[0]
            return reader().read_images([str(path) for path in paths])[0]
    except Exception as error:  # every format has its own
        raise InputError(f"{paths[0]} cannot be read by nnU-Net's {reader.__name__}: {reason_of(error)}") from error


def _is_label(value: object) -> bool:
    numbers = value if isinstance(value, list) and value else [value]
    return all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)


def _is_listed_case(entry: object) -> bool:
    if not isinstance(entry, Mapping):
        return False
    images = entry.get("images")
    files = [entry.get("label"), *images] if isinstance(images, list) else []
    return len(files) > 1 and all(isinstance(file, str) for file in files)


def _mode(path: Path) -> str:
    """Pillow's name for the channels and the depth of an image, from its header; empty if Pillow cannot tell."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.mode
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""  # nnU-Net's reader may know more


def _listed_path(folder: Path, name: str) -> Path:
    # as nnU-Net resolves them
    return folder / os.path.expandvars(name)


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more
