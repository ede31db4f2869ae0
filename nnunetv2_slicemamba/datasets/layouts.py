"""In which layout a folder of 2D images is, and which pairs it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nnunetv2_slicemamba.datasets.converter import CATALOGUE
from nnunetv2_slicemamba.datasets.pairing import SEARCH, TEST, TRAIN, VAL, Found, Pair, image_files, pair_folders
from nnunetv2_slicemamba.datasets.problems import Problem

IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "label", "gt")
PARTS = {
    TRAIN: ("train", "training"),
    VAL: ("val", "valid", "validation"),
    TEST: ("test", "testing"),
    SEARCH: ("search",),
}
# folder names of the official archives: challenge.isic-archive.com, 2017 and 2018
ISIC = {
    "isic2017": {
        TRAIN: ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
        VAL: ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
        TEST: ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
    },
    "isic2018": {
        TRAIN: ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
        VAL: ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
        TEST: ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
    },
}
# the polyp benchmark's names of the test sets, as in repository DengPingFan/PraNet
BENCHMARK = {"kvasir": ("kvasir", "kvasir-seg"), "clinicdb": ("cvc-clinicdb", "clinicdb", "cvc-612")}
# a downloaded archive often unpacks into a folder of its own, or two
SEARCH_DEPTH = 2

Folders = tuple[str, str, list[tuple[str, Path, Path | None]]]


def find_pairs(key: str, source: Path, train: str = "joint") -> Found:
    """The pairs of dataset `key` (2D) in `source` or in a folder inside it.

    train: "joint" keeps all images of a polyp benchmark's TrainDataset, as published; "own" those of the dataset
    itself. Raises ValueError if no layout, or more than one place, fits; everything else goes to Found.problems.
    """
    if key in ISIC and (folders := official_isic(key, source)) is not None:
        return collect(folders)
    readers: list[Callable[[Path], Folders | None]] = []
    if key in BENCHMARK:
        readers.append(lambda folder: joint(key, folder))
    readers.append(parts)
    if key not in ISIC:
        readers.append(flat)
    for level in levels(source, SEARCH_DEPTH):
        fitting = [fit for folder in level if (fit := first(readers, folder)) is not None]
        if len(fitting) > 1:
            places = ", ".join(str(fit[2][0][1].parent) for fit in fitting)
            raise ValueError(f"{source} holds {key} more than once; name one of them as the source: {places}")
        if fitting:
            found = collect(fitting[0])
            return keep_own(key, found) if found.layout == "joint" and train == "own" else found
    expected = "; or ".join(CATALOGUE[key].layouts)
    raise ValueError(f"{source} holds none of the layouts of {key}; expected {expected}")


def pairs_of(images: Path, masks: Path) -> Found:
    """The pairs of one's own two folders."""
    return collect(("folders", "", [(TRAIN, images, masks)]))


def first(readers: Sequence[Callable[[Path], Folders | None]], folder: Path) -> Folders | None:
    return next((fit for reader in readers if (fit := reader(folder)) is not None), None)


def collect(folders: Folders) -> Found:
    layout, _, entries = folders
    found = Found(layout)
    for part, images, masks in entries:
        if masks is not None and not masks.is_dir():
            found.problems.append(Problem("no masks", f"there is no folder {masks}"))
        else:
            pair_folders(part, images, masks, found)
    return found


def levels(source: Path, depth: int) -> Iterator[list[Path]]:
    """The folders at depth 0, 1, ... below `source`."""
    level = [source]
    for _ in range(depth + 1):
        yield level
        level = [sub for folder in level for sub in subfolders(folder)]


def subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def child(folder: Path, names: Sequence[str]) -> Path | None:
    """The subfolder with one of these names, whatever its case."""
    here = {path.name.lower(): path for path in subfolders(folder)}
    return next((here[name] for name in names if name in here), None)


def images_and_masks(folder: Path) -> tuple[Path, Path | None] | None:
    images = child(folder, IMAGES)
    return None if images is None else (images, child(folder, MASKS))


def official_isic(key: str, source: Path) -> Folders | None:
    """Folders named as in ISIC's archives, anywhere in `source`."""
    entries: list[tuple[str, Path, Path | None]] = []
    for part, (images, masks) in ISIC[key].items():
        image_folder, mask_folder = named(source, images), named(source, masks)
        if image_folder is not None:
            # a part without masks is reported, unless it is the test part
            entries.append((part, image_folder, mask_folder))
        elif mask_folder is not None:
            entries.append((part, mask_folder.with_name(images), mask_folder))
    missing = [folder for _, folder, _ in entries if not folder.is_dir()]
    if missing:
        raise ValueError(f"{source} holds masks without their images: {', '.join(map(str, missing))} is missing")
    return ("official", key, entries) if any(part == TRAIN for part, _, _ in entries) else None


def named(source: Path, name: str) -> Path | None:
    """The folder called `name` at or below `source` that has images directly in it; ValueError if there are two."""
    every = [folder for level in levels(source, SEARCH_DEPTH + 1) for folder in level]
    fitting = [folder for folder in every if folder.name.lower() == name.lower() and image_files(folder)]
    if len(fitting) > 1:
        raise ValueError(f"{source} holds {name} more than once: {', '.join(map(str, fitting))}")
    return fitting[0] if fitting else None


def joint(key: str, folder: Path) -> Folders | None:
    """The polyp benchmark: TrainDataset, TestDataset with a folder per dataset, and perhaps searchDataset."""
    training, tests = child(folder, ("traindataset",)), child(folder, ("testdataset",))
    if training is None or tests is None:
        return None
    entries: list[tuple[str, Path, Path | None]] = []
    for part, place in (
        (TRAIN, training),
        (TEST, child(tests, BENCHMARK[key])),
        (SEARCH, child(folder, ("searchdataset",))),
    ):
        pair = images_and_masks(place) if place is not None else None
        if pair is not None:
            entries.append((part, *pair))
        elif part != SEARCH:
            wanted = place or tests / BENCHMARK[key][0]
            raise ValueError(f"{folder} is laid out as the polyp benchmark, but {wanted} has no folder of images")
    return "joint", key, entries


def parts(folder: Path) -> Folders | None:
    """train, val and perhaps test and search, each with images and masks."""
    entries: list[tuple[str, Path, Path | None]] = []
    for part, names in PARTS.items():
        place = child(folder, names)
        pair = images_and_masks(place) if place is not None else None
        if pair is not None:
            entries.append((part, *pair))
    return ("parts", "", entries) if entries and entries[0][0] == TRAIN else None


def flat(folder: Path) -> Folders | None:
    """One folder of images and one of masks; CVC-ClinicDB calls them Original and Ground Truth."""
    images, masks = child(folder, ("original", *IMAGES)), child(folder, ("ground truth", "ground_truth", *MASKS))
    return None if images is None or masks is None else ("flat", "", [(TRAIN, images, masks)])


def keep_own(key: str, found: Found) -> Found:
    """Without the other dataset's images of a joint TrainDataset: ClinicDB's are numbers, Kvasir's never are."""

    def own(pair: Pair) -> bool:
        return pair.part == TEST or pair.stem.isdigit() == (key == "clinicdb")

    return Found(found.layout, [pair for pair in found.pairs if own(pair)], found.problems, found.notes)
