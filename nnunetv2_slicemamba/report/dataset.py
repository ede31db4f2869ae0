"""A dataset's folders, and what is known of it before any training."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.dataset_names import dataset_id_of, datasets_in, named_by
from nnunetv2_slicemamba.common.folders import FOLDERS, InputError, named_folder
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.nnunet_files import DATASET_JSON, FINGERPRINT_JSON, SPLITS_JSON, terms_of

# A label, or the labels that a region unites.
Labels = tuple[int, ...]


@dataclass(frozen=True)
class DatasetFolders:
    """The dataset's folder below each of nnU-Net's three; None where the variable is unset or has no such dataset."""

    name: str
    raw: Path | None
    preprocessed: Path | None
    results: Path | None

    @property
    def number(self) -> int:
        """The dataset's ID, as `-d` takes it."""
        return dataset_id_of(self.name)


@dataclass(frozen=True)
class DatasetFacts:
    """A dataset according to dataset.json, the fingerprint, the folders and the splits.

    classes: name and labels of every foreground class or region, in nnU-Net's order. shapes: (z, y, x) voxels of the
    median, smallest and largest case, z is 1 in 2D. spacing: median, mm, same axes. splits: (training, validation)
    cases per fold, empty as long as nnU-Net has made none. cases: of the training set.
    """

    name: str
    description: Mapping[str, Any]
    channels: tuple[str, ...]
    classes: tuple[tuple[str, Labels], ...]
    file_ending: str
    cases: tuple[str, ...]
    n_test: int
    shapes: tuple[tuple[int, ...], ...]
    spacing: tuple[float, ...]
    splits: tuple[tuple[int, int], ...]

    @property
    def folds(self) -> tuple[str, ...]:
        """The folds that there are to train: those of the splits, and nnU-Net's five as long as there are none.

        nnU-Net cannot draw five of fewer cases: they train all together.
        """
        if not self.splits and 0 < len(self.cases) < 5:
            return ("all",)
        return tuple(str(fold) for fold in range(len(self.splits) or 5))

    @property
    def licence(self) -> str:
        """The data's terms of use."""
        return terms_of(self.description)

    @property
    def equal_splits(self) -> tuple[tuple[tuple[str, ...], int, int], ...]:
        """Folds of equal sizes together: their names, training and validation cases."""
        grouped: dict[tuple[int, int], list[str]] = {}
        for fold, sizes in enumerate(self.splits):
            grouped.setdefault(sizes, []).append(str(fold))
        return tuple((tuple(folds), *sizes) for sizes, folds in grouped.items())

    @property
    def has_spacing(self) -> bool:
        """True if the images say how large a pixel is; nnU-Net takes 1 for formats that do not."""
        return self.file_ending.lower() not in (".png", ".bmp", ".tif")

    @property
    def is_2d(self) -> bool | None:
        """True for 2D images; None as long as there is no fingerprint to tell."""
        return self.shapes[0][0] == 1 if self.shapes else None


def find_dataset(dataset: str) -> DatasetFolders:
    """The folders of a dataset given as ID or name, in whichever of nnU-Net's folders it is.

    Raises InputError if no variable is set, the dataset is nowhere, or an ID has several names.
    """
    roots = {variable: root for variable in FOLDERS if (root := named_folder(variable)) is not None}
    if not roots:
        raise InputError(
            f"none of {', '.join(FOLDERS)} is set; a report reads what lies there: export {FOLDERS[2]}=/path/to/it"
        )
    names = sorted({name for root in roots.values() for name in datasets_in(root)})
    found = named_by(dataset, names)
    where = ", ".join(f"{variable}={root}" for variable, root in roots.items())
    if not found:
        raise InputError(
            f"there is no dataset {dataset!r} in {where}; "
            f"give an ID such as 501 or one of: {', '.join(names) or 'none'}"
        )
    if len(found) > 1:
        raise InputError(f"dataset {dataset} has several names: {', '.join(found)}; give one of them to -d")
    folders = {variable: root / found[0] for variable, root in roots.items() if (root / found[0]).is_dir()}
    return DatasetFolders(found[0], *(folders.get(variable) for variable in FOLDERS))


def read_dataset(folders: DatasetFolders) -> DatasetFacts:
    """Facts of a dataset. Raises InputError if dataset.json is nowhere to be found or is none of nnU-Net's."""
    description = read_description(folders)
    ending = str(description.get("file_ending", ""))
    fingerprint = read_json(folders.preprocessed, "dataset_fingerprint.json", FINGERPRINT_JSON) or {}
    shapes = [tuple(int(size) for size in shape) for shape in fingerprint.get("shapes_after_crop", [])]
    spacings = fingerprint.get("spacings", [])
    splits: list[Mapping[str, Any]] = next(
        filter(None, (read_json(f, "splits_final.json", SPLITS_JSON) for f in (folders.preprocessed, folders.raw))), []
    )
    channels = description.get("channel_names") or description.get("modality") or {}
    return DatasetFacts(
        name=folders.name,
        description=description,
        channels=tuple(str(channels[key]) for key in sorted(channels, key=int)),
        classes=classes_of(description),
        file_ending=ending,
        cases=training_cases(folders, description, ending),
        n_test=count_test_cases(folders, ending),
        shapes=tuple(_typical(shapes)),
        spacing=tuple(statistics.median(axis) for axis in zip(*spacings, strict=True)),
        splits=tuple((len(split["train"]), len(split["val"])) for split in splits),
    )


def read_description(folders: DatasetFolders) -> dict[str, Any]:
    """dataset.json: of the raw data, else of the preprocessed data, else of a trained model."""
    trained = sorted(folders.results.glob("*/dataset.json")) if folders.results else []
    for folder in (folders.raw, folders.preprocessed, *(file.parent for file in trained)):
        content = read_json(folder, "dataset.json", DATASET_JSON)
        if content is not None:
            return content
    raise InputError(
        f"{folders.name} has no dataset.json, neither raw, nor preprocessed, nor beside a trained model; without it "
        "nobody knows its classes"
    )


def read_json(folder: Path | None, name: str, kind: JsonKind) -> Any:
    """The content of a JSON file, None if there is none. Raises JsonFileError for what is none of its kind."""
    return None if folder is None else kind.read_if_there(folder / name)


def classes_of(description: Mapping[str, Any]) -> tuple[tuple[str, Labels], ...]:
    """Foreground classes or regions, in the order of dataset.json, which is that of nnU-Net's results."""
    classes = []
    for name, value in description.get("labels", {}).items():
        labels = tuple(int(label) for label in value) if isinstance(value, Sequence) else (int(value),)
        if name != "ignore" and labels != (0,):
            classes.append((str(name), labels))
    return tuple(classes)


def outer_regions(classes: Sequence[tuple[str, Labels]]) -> frozenset[str]:
    """Names of the regions that contain all labels of another class, and more."""
    return frozenset(name for name, own in classes if any(set(own) > set(other) for _, other in classes))


def training_cases(folders: DatasetFolders, description: Mapping[str, Any], ending: str) -> tuple[str, ...]:
    """Names of the training cases, from dataset.json's list, the labels, or the copies beside the preprocessed data."""
    if isinstance(description.get("dataset"), Mapping):
        return tuple(sorted(str(case) for case in description["dataset"]))
    for parent, name in ((folders.raw, "labelsTr"), (folders.preprocessed, "gt_segmentations")):
        if parent is not None and (parent / name).is_dir() and ending:
            return tuple(sorted(file.name.removesuffix(ending) for file in (parent / name).glob(f"*{ending}")))
    return ()


def count_test_cases(folders: DatasetFolders, ending: str) -> int:
    """Cases in imagesTs, each counted by its first channel."""
    if folders.raw is None or not ending:
        return 0
    return sum(1 for _ in (folders.raw / "imagesTs").glob(f"*_0000{ending}"))


def _typical(shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Median per axis, smallest and largest case by number of voxels."""
    if not shapes:
        return []
    ordered = sorted(shapes, key=lambda shape: (shape[0] * shape[1] * shape[2], shape))
    median = tuple(int(statistics.median(axis)) for axis in zip(*shapes, strict=True))
    return [median, ordered[0], ordered[-1]]
