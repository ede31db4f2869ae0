"""Layout of the shipped images as nnU-Net raw data with two folds and a test set that neither fold sees."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_slicemamba.common.dataset_names import dataset_folder_name
from nnunetv2_slicemamba.common.json_files import write_json

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class DemoDataset:
    """A shipped dataset. source: folder below `data`; configuration: the nnU-Net configuration it is shown with.

    patch_size: small enough for a CPU to be done in minutes. trainers: suffix of the trainers, as long as it needs.
    """

    source: str
    dataset_id: int
    name: str
    configuration: str
    channel: str
    labels: dict[str, int]
    file_ending: str
    licence: str
    patch_size: tuple[int, ...]
    trainers: str

    @property
    def folder_name(self) -> str:
        """DatasetXXX_NAME, as in nnUNet_raw."""
        return dataset_folder_name(self.dataset_id, self.name)


DATASETS = {
    "2d": DemoDataset(
        "nuclei2d",
        501,
        "DemoNuclei",
        "2d",
        "fluorescence",
        {"background": 0, "nucleus": 1},
        ".png",
        "CC0 1.0",
        (128, 128),
        "_demo",
    ),
    "3d": DemoDataset(
        "hippocampus3d",
        502,
        "DemoHippocampus",
        "3d_fullres",
        "MRI",
        {"background": 0, "anterior": 1, "posterior": 2},
        ".nii.gz",
        "CC BY-SA 4.0, Medical Segmentation Decathlon Task04, Simpson et al. 2019",
        (40, 48, 32),
        "_demo3d",
    ),
}


@dataclass(frozen=True)
class Split:
    """Case names: held out from both folds, and per fold the training and validation cases."""

    test: list[str]
    folds: list[dict[str, list[str]]]


def split_cases(cases: list[str]) -> Split:
    """Split with every fourth case held out; of the rest, every fourth validates fold 0 and the next ones fold 1."""
    test = cases[3::4]
    rest = [case for case in cases if case not in test]
    folds = []
    for fold in range(2):
        validation = rest[fold::4]
        folds.append({"train": [case for case in rest if case not in validation], "val": validation})
    return Split(test, folds)


def lay_out(dataset: DemoDataset, raw: Path) -> Split:
    """Copies a shipped dataset to raw/DatasetXXX_NAME with dataset.json and splits_final.json.

    Files that are there already are overwritten by the same ones. Returns the split.
    """
    source, target = DATA / dataset.source, raw / dataset.folder_name
    cases = sorted(file.name.removesuffix(dataset.file_ending) for file in (source / "labelsTr").iterdir())
    split = split_cases(cases)
    for case in cases:
        part = "Ts" if case in split.test else "Tr"
        for folder, name in (("images", f"{case}_0000"), ("labels", case)):
            (target / f"{folder}{part}").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(
                source / f"{folder}Tr" / f"{name}{dataset.file_ending}",
                target / f"{folder}{part}" / f"{name}{dataset.file_ending}",
            )
    for document in source.glob("*.txt"):
        shutil.copyfile(document, target / document.name)
    description = {
        "channel_names": {"0": dataset.channel},
        "labels": dataset.labels,
        "numTraining": len(cases) - len(split.test),
        "file_ending": dataset.file_ending,
        "name": dataset.name,
        "licence": dataset.licence,
    }
    write_json(target / "dataset.json", description)
    # nnU-Net's planner copies a split that lies beside the raw data
    write_json(target / "splits_final.json", split.folds)
    return split
