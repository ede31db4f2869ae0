"""Pairs of an image and its mask, found by name in a folder of images and a folder of masks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_slicemamba.datasets.problems import Problem
from nnunetv2_slicemamba.datasets.source_files import image_endings, is_source_file

# ISIC's archives append _segmentation, ISIC 2016 and PH2 _Segmentation and _lesion
MASK_SUFFIX = re.compile(r"[_-](segmentation|mask|lesion|label|gt)$", re.IGNORECASE)
# ISIC 2017 keeps these beside its images
NO_IMAGE = re.compile(r"_superpixels$", re.IGNORECASE)
# nnU-Net's raw data: CASE_0000.png is the case's first channel, CASE.png its mask
CHANNEL_SUFFIX = re.compile(r"_\d{4}$")

TRAIN, VAL, TEST, SEARCH = "train", "val", "test", "search"


@dataclass(frozen=True)
class Pair:
    """An image and its mask. stem: the image's name without ending, as in `stem_of`. mask: None for a test image
    without truth.

    part: train, val, test or search.
    """

    stem: str
    image: Path
    mask: Path | None
    part: str


@dataclass(frozen=True)
class FolderPair:
    """A folder of images and its folder of masks, None if there is none. part: as of a pair."""

    part: str
    images: Path
    masks: Path | None


@dataclass
class FoundPairs:
    """The pairs of a source, and what is wrong with it or worth knowing.

    layout: its name, as in dataset.json. files: those that became pairs, or of which problems speak.
    """

    layout: str
    pairs: list[Pair] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)


def image_files(folder: Path) -> list[Path]:
    """The image files directly in `folder`, by name; hidden ones and superpixels left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in image_endings() and not NO_IMAGE.search(path.stem) and is_source_file(path)
    )


def stem_of(path: Path) -> str:
    """A file's name without ending, in the one of Unicode's forms (NFC) that Linux's tools write.

    macOS's tools write letter and accent as two characters (NFD). People cannot tell the two forms apart.
    """
    return unicodedata.normalize("NFC", path.stem)


def by_name(files: Iterable[Path], what: str, problems: list[Problem]) -> dict[str, Path]:
    """Name without ending -> file. Two files with one name are a problem; the first is kept."""
    named: dict[str, Path] = {}
    for file in files:
        stem = stem_of(file)
        if stem in named:
            problems.append(Problem("duplicate name", f"{what} {named[stem]} and {file.name}"))
        named.setdefault(stem, file)
    return named


def pair_folders(folders: FolderPair, found: FoundPairs) -> None:
    """Adds the pairs of two folders to `found`, and what is missing, extra or twice there to its problems.

    A mask is named as its image, or so with _segmentation, _mask, _lesion, _label or _gt appended. The test part needs
    no folder of masks, as its truth may not be at hand. In a folder that is both, these words tell masks from images.
    """
    part, images, masks = folders.part, folders.images, folders.masks
    image_paths, mask_paths = image_files(images), [] if masks is None else image_files(masks)
    found.files.update(image_paths, mask_paths)
    if masks is not None and masks.resolve() == images.resolve():
        mask_paths = [path for path in image_paths if MASK_SUFFIX.search(path.stem)]
        image_paths = [path for path in image_paths if path not in mask_paths]
        if not mask_paths:
            found.problems.append(
                Problem(
                    "one folder for images and masks",
                    f"{images} has no name that ends with _mask, _segmentation, _lesion, _label or _gt, by which masks "
                    "could be told from images; give two folders",
                )
            )
            return
    named_images = by_name(image_paths, "images", found.problems)
    if not named_images:
        found.problems.append(Problem("no images", f"{images} holds no image file, such as .png, .jpg or .tif"))
    if masks is None:
        if part == TEST:
            found.notes.append(f"{images} has no folder of masks beside it: imagesTs without labelsTs")
            found.pairs += [Pair(stem, image, None, part) for stem, image in named_images.items()]
        else:
            found.problems.append(Problem("no masks", f"{images} has no folder of masks beside it"))
        return
    masks_by_name = by_name(mask_paths, "masks", found.problems)
    channels = channels_of_nnunet(named_images, masks_by_name)
    if channels:
        found.problems.append(Problem("images named as nnU-Net's", nnunet_hint(images, channels)))
        named_images = {stem: image for stem, image in named_images.items() if stem not in channels}
        masks_by_name = {stem: mask for stem, mask in masks_by_name.items() if stem not in channels.values()}
    named_masks: dict[str, Path] = {}
    for stem, mask in masks_by_name.items():
        key = stem if stem in named_images else MASK_SUFFIX.sub("", stem)
        if key in named_masks:
            found.problems.append(Problem("duplicate name", f"masks {named_masks[key]} and {mask.name} for one image"))
        elif key in named_images:
            named_masks[key] = mask
        else:
            found.problems.append(Problem("mask without image", f"{mask}"))
    for stem, image in named_images.items():
        if stem in named_masks and named_masks[stem].resolve() == image.resolve():
            found.problems.append(Problem("image is its own mask", f"{image} and {named_masks[stem]} are one file"))
        elif stem in named_masks:
            found.pairs.append(Pair(stem, image, named_masks[stem], part))
        else:
            found.problems.append(Problem("image without mask", f"{image}"))


def channels_of_nnunet(images: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[str, str]:
    """Image's name -> mask's, of images whose mask lacks only nnU-Net's channel number."""
    without = {stem: CHANNEL_SUFFIX.sub("", stem) for stem in images if stem not in masks}
    return {stem: case for stem, case in without.items() if stem != case and case in masks}


def nnunet_hint(folder: Path, channels: Mapping[str, str]) -> str:
    """The remedy for images that are named as nnU-Net's. channels: as from `channels_of_nnunet`."""
    first = min(channels)
    more = f" and {len(channels) - 1} more end" if len(channels) > 1 else " ends"
    told = (
        f"{folder}: {first}{more} with _0000 or the like, nnU-Net's number of the channel, which the mask "
        f"({channels[first]}) does not have. If this is an nnU-Net dataset (imagesTr, labelsTr, dataset.json), it "
        "needs no conversion: put its folder into nnUNet_raw."
    )
    if len(set(channels.values())) < len(channels):
        return f"{told} There are several channels per case, which this command does not join"
    return f"{told} Else name the images as their masks, here {channels[first]} in place of {first}"
