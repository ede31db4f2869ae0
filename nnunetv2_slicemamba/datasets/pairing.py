"""Pairs of an image and its mask, found by name in a folder of images and a folder of masks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_slicemamba.datasets.channels import CHANNEL_SUFFIX, join_channels
from nnunetv2_slicemamba.datasets.problems import Problem
from nnunetv2_slicemamba.datasets.source_files import image_endings, is_source_file

# ISIC's archives append _segmentation, ISIC 2016 and PH2 _Segmentation and _lesion
# and 3D Slicer .seg
MASK_SUFFIX = re.compile(r"[_.-](segmentation|mask|lesion|labels?|seg|gt)$", re.IGNORECASE)
# ISIC 2017 keeps these beside its images
NO_IMAGE = re.compile(r"_superpixels$", re.IGNORECASE)

TRAIN, VAL, TEST, SEARCH = "train", "val", "test", "search"


@dataclass(frozen=True)
class Pair:
    """An image and its mask. stem: the image's name without ending, as in `stem_of`. mask: None for a test image
    without truth.

    part: train, val, test or search. more: files of the image's further channels.
    """

    stem: str
    image: Path
    mask: Path | None
    part: str
    more: tuple[Path, ...] = ()

    @property
    def images(self) -> tuple[Path, ...]:
        """A file per channel; one file where it holds them all."""
        return (self.image, *self.more)


@dataclass
class FoundPairs:
    """The pairs of a source, and what is wrong with it or worth knowing.

    layout: its name, as in dataset.json. files: those that became pairs, or of which problems speak. reader: name of
    nnU-Net's, where the images are volumes.
    """

    layout: str
    pairs: list[Pair] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)
    reader: str = ""


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
    name = path.name[:-3] if path.name.lower().endswith(".nii.gz") else path.name
    return unicodedata.normalize("NFC", Path(name).stem)


def by_name(files: Iterable[Path], what: str, problems: list[Problem]) -> dict[str, Path]:
    """Name without ending -> file. Two files with one name are a problem; the first is kept."""
    named: dict[str, Path] = {}
    for file in files:
        stem = stem_of(file)
        if stem in named:
            problems.append(Problem("duplicate name", f"{what} {named[stem]} and {file.name}"))
        named.setdefault(stem, file)
    return named


@dataclass(frozen=True)
class FolderPair:
    """A folder of images and its folder of masks, None if there is none. part: as of a pair.

    more: folders of further channels. numbered: names of images end with nnU-Net's number of the channel, which masks
    do not have; False refuses such names, and None is decided by the masks. files: lists the images of a folder, and
    the masks. kinds: examples of their endings, in words.
    """

    part: str
    images: Path
    masks: Path | None
    more: tuple[Path, ...] = ()
    numbered: bool | None = False
    files: Callable[[Path], list[Path]] = image_files
    kinds: str = ".png, .jpg or .tif"

    @property
    def channels(self) -> tuple[Path, ...]:
        """The folders of images."""
        return (self.images, *self.more)


def pair_folders(folders: FolderPair, found: FoundPairs) -> bool:
    """Adds the pairs of folders to `found`, and what is missing, extra or twice there to its problems.

    A mask is named as its image, or so with _segmentation, _mask, _lesion, _label, _seg or _gt appended. The test part
    needs no folder of masks, as its truth may not be at hand. In a folder that is both, these words tell masks from
    images. Returns whether names of images ended with the number of a channel.
    """
    part, masks = folders.part, folders.masks
    image_paths = [folders.files(folder) for folder in folders.channels]
    mask_paths = [] if masks is None else folders.files(masks)
    found.files.update(mask_paths, *image_paths)
    for index, folder in enumerate(folders.channels):
        if masks is not None and masks.resolve() == folder.resolve():
            mask_paths = [path for path in image_paths[index] if MASK_SUFFIX.search(stem_of(path))]
            image_paths[index] = [path for path in image_paths[index] if path not in mask_paths]
            if not mask_paths:
                found.problems.append(Problem("one folder for images and masks", unmarked_masks(folder)))
                return False
    named_images = [by_name(paths, "images", found.problems) for paths in image_paths]
    found.problems += [
        Problem("no images", f"{folder} holds no image file, such as {folders.kinds}")
        for folder, named in zip(folders.channels, named_images, strict=True)
        if not named
    ]
    if masks is None and part != TEST:
        found.problems.append(Problem("no masks", f"{folders.images} has no folder of masks beside it"))
        return False
    masks_by_name = by_name(mask_paths, "masks", found.problems)
    numbered = folders.numbered
    if not numbered:
        channels = channels_of_nnunet(named_images[0], masks_by_name)
        if channels and numbered is False:
            found.problems.append(Problem("images named as nnU-Net's", nnunet_hint(folders.images, channels)))
            named_images = [{stem: image for stem, image in named_images[0].items() if stem not in channels}]
            masks_by_name = {stem: mask for stem, mask in masks_by_name.items() if stem not in channels.values()}
        numbered = bool(channels) and numbered is None
    if numbered or folders.more:
        cases = join_channels(named_images, folders.channels, numbered, found.problems)
    else:
        cases = {stem: (image,) for stem, image in named_images[0].items()}
    if masks is None:
        found.notes.append(f"{folders.images} has no folder of masks beside it: imagesTs without labelsTs")
        found.pairs += [Pair(stem, images[0], None, part, images[1:]) for stem, images in cases.items()]
    else:
        pair_masks(cases, masks_by_name, part, found)
    return numbered


def pair_masks(
    cases: Mapping[str, tuple[Path, ...]], masks_by_name: Mapping[str, Path], part: str, found: FoundPairs
) -> None:
    """Adds the cases with their masks to `found`. cases: name -> a file per channel."""
    named_masks: dict[str, Path] = {}
    for stem, mask in masks_by_name.items():
        key = stem if stem in cases else MASK_SUFFIX.sub("", stem)
        if key in named_masks:
            found.problems.append(Problem("duplicate name", f"masks {named_masks[key]} and {mask.name} for one image"))
        elif key in cases:
            named_masks[key] = mask
        else:
            found.problems.append(Problem("mask without image", f"{mask}"))
    for stem, images in cases.items():
        if stem not in named_masks:
            found.problems.append(Problem("image without mask", f"{images[0]}"))
        elif same := [image for image in images if image.resolve() == named_masks[stem].resolve()]:
            found.problems.append(Problem("image is its own mask", f"{same[0]} and {named_masks[stem]} are one file"))
        else:
            found.pairs.append(Pair(stem, images[0], named_masks[stem], part, images[1:]))


def unmarked_masks(folder: Path) -> str:
    """The problem of a folder for both that has no masks."""
    return (
        f"{folder} has no name that ends with _mask, _segmentation, _lesion, _label, _seg or _gt, by which masks could "
        "be told from images; give two folders"
    )


def channels_of_nnunet(images: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[str, str]:
    """Image's name -> mask's, of images whose mask lacks only nnU-Net's channel number."""
    of_case = {MASK_SUFFIX.sub("", stem): stem for stem in masks} | {stem: stem for stem in masks}
    without = {stem: CHANNEL_SUFFIX.sub("", stem) for stem in images if stem not in of_case}
    return {stem: of_case[case] for stem, case in without.items() if stem != case and case in of_case}


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
        return f"{told} Several channels per case are joined by 'slicemamba convert folders' only"
    return f"{told} Else name the images as their masks, here {channels[first]} in place of {first}"
