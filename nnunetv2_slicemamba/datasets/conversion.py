"""What is asked of a conversion, and what it will write once its source is found to be in order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba import __version__
from nnunetv2_slicemamba.datasets.cases import Case, Rules
from nnunetv2_slicemamba.datasets.converter import CATALOGUE, DatasetFacts
from nnunetv2_slicemamba.datasets.splits import PUBLISHED, Fold, SplitChoice


@dataclass(frozen=True)
class Request:
    """key: dataset of the catalogue. sources: one folder, or for `folders` that of the images and that of the masks.

    name: what follows DatasetXXX_, None for the catalogue's. resize: (H, W) or None. train: "joint" or "own", for the
    polyp benchmark. organs: 8 or 13, for synapse. labels: names of the foreground labels, for `folders`.
    """

    key: str
    sources: tuple[Path, ...]
    dataset_id: int
    split: SplitChoice = PUBLISHED
    name: str | None = None
    resize: tuple[int, int] | None = None
    train: str = "joint"
    organs: int = 8
    labels: tuple[str, ...] = ()

    @property
    def facts(self) -> DatasetFacts:
        return CATALOGUE[self.key]

    @property
    def dataset(self) -> str:
        """DatasetXXX_NAME."""
        return f"Dataset{self.dataset_id:03d}_{self.name or self.facts.name}"

    def as_json(self) -> dict[str, Any]:
        """Plain values; the sources as absolute paths."""
        values = asdict(self)
        values["sources"] = [str(path.resolve()) for path in self.sources]
        values["resize"] = None if self.resize is None else list(self.resize)
        values["labels"] = list(self.labels)
        return values


def check_request(request: Request) -> None:
    """Raises ValueError where an option does not exist or does not fit the dataset, or a folder is not there."""
    if request.key not in CATALOGUE:
        raise ValueError(f"there is no dataset {request.key!r}; give one of {', '.join(CATALOGUE)}")
    key = request.key
    if not 0 < request.dataset_id < 1000:
        raise ValueError(f"the dataset ID is {request.dataset_id}; give a number from 1 to 999")
    if request.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", request.name):
        raise ValueError(f"a dataset cannot be named {request.name!r}; use letters, digits, - and _")
    for source in request.sources:
        if not source.is_dir():
            raise ValueError(f"the source {source} is not a folder; unpack archives first")
    if request.split.kind == "by-sequence" and key != "clinicdb":
        raise ValueError(f"--split by-sequence is for clinicdb: the videos behind {key} are not known")
    if request.resize is not None:
        if key == "synapse":
            raise ValueError("--resize is for images; nnU-Net resamples volumes by their spacing")
        if min(request.resize) < 1:
            raise ValueError(f"--resize is {request.resize[0]} {request.resize[1]}; give height and width in pixels")
    if request.train not in ("joint", "own"):
        raise ValueError(f"--train is {request.train!r}; give joint or own")
    if request.organs not in (8, 13):
        raise ValueError(f"--organs is {request.organs}; give 8 or 13")
    if request.labels and key != "folders":
        raise ValueError(f"--labels is for folders; the labels of {key} are known")
    if len(set(request.labels) | {"background"}) != len(request.labels) + 1:
        raise ValueError(f"--labels {','.join(request.labels)}: names must differ, and background is 0 anyway")


@dataclass(frozen=True)
class Conversion:
    """Everything that will be written. folds: for splits_final.json or None. description: dataset.json."""

    cases: tuple[Case, ...]
    rules: Rules
    folds: list[Fold] | None
    description: dict[str, Any]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "cases": [case.as_json() for case in self.cases],
            "rules": asdict(self.rules),
            "folds": self.folds,
            "description": self.description,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Conversion:
        return cls(
            tuple(map(Case.from_json, values["cases"])),
            Rules.from_json(values["rules"]),
            values["folds"],
            values["description"],
            tuple(values["notes"]),
        )

    def number(self, subset: str) -> int:
        return sum(case.subset == subset for case in self.cases)


def describe_dataset(
    request: Request,
    layout: str,
    channels: Mapping[str, str],
    labels: Mapping[str, int],
    cases: Sequence[Case],
    notes: Sequence[str],
) -> dict[str, Any]:
    """dataset.json: what nnU-Net needs, and where the images come from, on which terms, and how they were divided."""
    facts = request.facts
    ending = ".nii.gz" if request.key == "synapse" else ".png"
    values: dict[str, Any] = {
        "channel_names": dict(channels),
        "labels": dict(labels),
        "numTraining": sum(case.subset == "Tr" for case in cases),
        "file_ending": ending,
    }
    if ending == ".png":
        values["overwrite_image_reader_writer"] = "NaturalImage2DIO"
    split = request.split
    return values | {
        "name": request.dataset[11:],
        "reference": facts.reference,
        "licence": facts.licence,
        "source": facts.home,
        "layout": layout,
        "split": split.kind if split.kind in ("published", "none") else f"{split.kind}:{split.seed}",
        "size": "native" if request.resize is None else f"resized to {request.resize[0]}x{request.resize[1]} (HxW)",
        "notes": list(notes),
        "converted_by": f"slicemamba convert {__version__}",
    }
