"""The pairs of one's own folders: pictures or volumes, a file per channel, training and test images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from nnunetv2_slicemamba.datasets.channels import other_numbers_of_channels
from nnunetv2_slicemamba.datasets.pairing import TEST, TRAIN, FolderPair, FoundPairs, image_files, pair_folders
from nnunetv2_slicemamba.datasets.problems import Problem
from nnunetv2_slicemamba.datasets.request import Request
from nnunetv2_slicemamba.datasets.source_files import TIFF, files_below, image_endings, is_source_file

# files that are looked into to know what all are
LOOKED_AT = 25
DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
PICTURES, VOLUMES = "pictures", "volumes"


def find_own(request: Request) -> FoundPairs:
    """The pairs of the folders that a request names. ValueError where both pictures and volumes are there."""
    *images, masks = request.sources
    volumes = kind_of(images, masks) == VOLUMES
    list_files = volume_files if volumes else image_files
    found = FoundPairs("folders", problems=dicom_problems(request.folders))
    kinds = ".png, .jpg, .tif, .nii.gz, .nrrd or .mha"
    train = FolderPair(TRAIN, images[0], masks, tuple(images[1:]), None, list_files, kinds)
    numbered = pair_folders(train, found)
    if request.test_images:
        first, *more = request.test_images
        test = FolderPair(TEST, first, request.test_masks, tuple(more), numbered or None, list_files, kinds)
        pair_folders(test, found)
    found.problems += other_numbers_of_channels(found.pairs)
    if volumes and found.pairs:
        from nnunetv2_slicemamba.datasets.volume_pairs import formats_differ, reader_of

        found.problems += formats_differ(found.pairs)
        found.reader = reader_of(found.pairs).__name__
    return found


def kind_of(images: Sequence[Path], masks: Path) -> str:
    """Kind that images and masks share, PICTURES or VOLUMES. Raises ValueError if their folders hold both kinds."""
    of_images = {kind for folder in images for kind in kinds_in(folder)}
    both = of_images & kinds_in(masks)
    if len(both) > 1:
        raise ValueError(
            f"{images[0]} and {masks} hold pictures as well as volumes (.nii.gz and the like, or stacks of .tif); move "
            "one kind to other folders"
        )
    return min(both or of_images or {PICTURES})


def kinds_in(folder: Path) -> set[str]:
    """The kinds of files directly in a folder. TIFF may be either, which half of the first ones decide."""
    files = [path for path in folder.iterdir() if is_source_file(path)]
    others = [path for path in files if path.suffix.lower() not in TIFF]
    kinds = {PICTURES} if any(path.suffix.lower() in image_endings() for path in others) else set()
    if any(path.suffix.lower() not in image_endings() and is_volume(path) for path in others):
        kinds.add(VOLUMES)
    if tiffs := sorted(path for path in files if path.suffix.lower() in TIFF)[:LOOKED_AT]:
        from nnunetv2_slicemamba.datasets.stacks import is_stack

        kinds.add(VOLUMES if 2 * sum(map(is_stack, tiffs)) >= len(tiffs) else PICTURES)
    return kinds


def is_volume(path: Path) -> bool:
    """True for the name of a volume."""
    # imports nnU-Net, which a folder of pictures can do without
    from nnunetv2_slicemamba.datasets.volume_files import volume_ending

    return volume_ending(path) is not None


def volume_files(folder: Path) -> list[Path]:
    """The volumes directly in `folder`, by name; hidden ones left out."""
    return sorted(path for path in folder.iterdir() if is_source_file(path) and is_volume(path))


def dicom_problems(folders: Sequence[Path]) -> list[Problem]:
    """The problem of folders that hold DICOM slices and no file that can be read."""
    problems = []
    for folder in dict.fromkeys(folders):
        if not kinds_in(folder) and (slices := next(filter(is_dicom, islice(files_below(folder), 200)), None)):
            told = (
                f"{folder} holds DICOM slices, such as {slices.name}; write a volume per scan, for instance with "
                f"dcm2niix -z y -f CASE -o images DICOM_FOLDER"
            )
            problems.append(Problem("DICOM", told))
    return problems


def is_dicom(path: Path) -> bool:
    """True for a file of DICOM's name or content."""
    if path.suffix.lower() in DICOM_ENDINGS:
        return True
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
