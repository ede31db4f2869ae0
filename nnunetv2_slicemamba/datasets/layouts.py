"""Layouts in which people have a dataset's files: their words, and for 2D images the folders that make them up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_slicemamba.datasets.pairing import (
    SEARCH,
    TEST,
    TRAIN,
    VAL,
    FolderPair,
    FoundPairs,
    image_files,
    pair_folders,
)

FLAT = "flat"
SHARED = "{train,val}/{images,masks}, with or without search/ and test/ (VM-UNet's shared folders)"
IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "label", "gt")
PARTS = {
    TRAIN: ("train", "training"),
    VAL: ("val", "valid", "validation"),
    TEST: ("test", "testing"),
    SEARCH: ("search",),
}
# a downloaded archive often unpacks into a folder of its own, or two
SEARCH_DEPTH = 2


@dataclass(frozen=True)
class Layout:
    """A layout of files. name: in dataset.json. words: in lists and messages. counts: images or scans per part of the
    complete source, to recognise incomplete downloads.
    """

    name: str
    words: str
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FolderLayout(Layout):
    """A layout of folders of images and masks.

    read: the folders of a source that has this layout, else None. whole_source: `read` looks into subfolders by
    itself. fallback: tried only on folders that have none of the dataset's other layouts.
    """

    read: Callable[[Path], list[FolderPair] | None]
    whole_source: bool = False
    fallback: bool = False


def archives(words: str, folders: Mapping[str, tuple[str, str]], **counts: int) -> FolderLayout:
    """The official archives. folders: part -> names of its folders of images and masks, which may lie anywhere."""
    return FolderLayout(
        "official", words, counts, read=lambda source: read_archives(source, folders), whole_source=True
    )


def parts(words: str = SHARED, **counts: int) -> FolderLayout:
    """Folders train, val, test and search, each with images and masks; all but train may be absent."""
    return FolderLayout("parts", words, counts, read=read_parts)


def flat(words: str, **counts: int) -> FolderLayout:
    """One folder of images and one of masks, which say nothing of a division."""
    return FolderLayout(FLAT, words, counts, read=read_flat, fallback=True)


def find_pairs(key: str, layouts: Sequence[FolderLayout], source: Path) -> FoundPairs:
    """The pairs of a dataset in `source` or in a folder inside it.

    Raises ValueError if no layout, or more than one place, fits; everything else goes to FoundPairs.problems.
    """
    for layout in layouts:
        if layout.whole_source and (folders := layout.read(source)) is not None:
            return collect(layout.name, folders)
    each_folder = sorted((one for one in layouts if not one.whole_source), key=lambda layout: layout.fallback)
    for level in levels(source, SEARCH_DEPTH):
        fitting = [fit for folder in level if (fit := first_fitting(each_folder, folder)) is not None]
        if len(fitting) > 1:
            places = ", ".join(str(folders[0].images.parent) for _, folders in fitting)
            raise ValueError(f"{source} holds {key} more than once; name one of them as the source: {places}")
        if fitting:
            return collect(*fitting[0])
    expected = "; or ".join(layout.words for layout in layouts)
    raise ValueError(f"{source} holds none of the layouts of {key}; expected {expected}")


def first_fitting(layouts: Sequence[FolderLayout], folder: Path) -> tuple[str, list[FolderPair]] | None:
    """Name and folders of the first layout that a folder has."""
    fits = ((layout.name, layout.read(folder)) for layout in layouts)
    return next(((name, folders) for name, folders in fits if folders is not None), None)


def collect(layout: str, folders: Sequence[FolderPair]) -> FoundPairs:
    """The pairs in all folders of a layout."""
    found = FoundPairs(layout)
    for pair in folders:
        pair_folders(pair, found)
    return found


def levels(source: Path, depth: int) -> Iterator[list[Path]]:
    """The folders at depth 0, 1, ... below `source`."""
    level = [source]
    for _ in range(depth + 1):
        yield level
        level = [sub for folder in level for sub in subfolders(folder)]


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in `folder`, by name; hidden ones left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def child(folder: Path, names: Sequence[str]) -> Path | None:
    """The subfolder with one of these names, whatever its case."""
    here = {path.name.lower(): path for path in subfolders(folder)}
    return next((here[name] for name in names if name in here), None)


def images_and_masks(part: str, folder: Path | None) -> FolderPair | None:
    """The folders of images and masks in a part's folder; None if there is no such folder, or none of images."""
    images = None if folder is None else child(folder, IMAGES)
    return None if folder is None or images is None else FolderPair(part, images, child(folder, MASKS))


def read_archives(source: Path, folders: Mapping[str, tuple[str, str]]) -> list[FolderPair] | None:
    """The folders of official archives. ValueError for masks without images, and for a folder that is there twice."""
    found: list[FolderPair] = []
    for part, (images, masks) in folders.items():
        image_folder, mask_folder = named(source, images), named(source, masks)
        if image_folder is not None:
            # a part without masks is reported, unless it is the test part
            found.append(FolderPair(part, image_folder, mask_folder))
        elif mask_folder is not None:
            found.append(FolderPair(part, mask_folder.with_name(images), mask_folder))
    missing = [str(pair.images) for pair in found if not pair.images.is_dir()]
    if missing:
        raise ValueError(f"{source} holds masks without their images: {', '.join(missing)} is missing")
    return found if any(pair.part == TRAIN for pair in found) else None


def named(source: Path, name: str) -> Path | None:
    """The folder called `name` at or below `source` that has images directly in it; ValueError if there are two."""
    every = [folder for level in levels(source, SEARCH_DEPTH + 1) for folder in level]
    fitting = [folder for folder in every if folder.name.lower() == name.lower() and image_files(folder)]
    if len(fitting) > 1:
        raise ValueError(f"{source} holds {name} more than once: {', '.join(map(str, fitting))}")
    return fitting[0] if fitting else None


def read_parts(folder: Path) -> list[FolderPair] | None:
    """The folders of the parts, None without images that train."""
    pairs = [images_and_masks(part, child(folder, names)) for part, names in PARTS.items()]
    found = [pair for pair in pairs if pair is not None]
    return found if found and found[0].part == TRAIN else None


def read_flat(folder: Path) -> list[FolderPair] | None:
    """The folders of images and of masks; CVC-ClinicDB calls them Original and Ground Truth."""
    images, masks = child(folder, ("original", *IMAGES)), child(folder, ("ground truth", "ground_truth", *MASKS))
    return None if images is None or masks is None else [FolderPair(TRAIN, images, masks)]
