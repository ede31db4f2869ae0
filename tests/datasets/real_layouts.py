"""Real images laid out as datasets that cannot be had without registration are distributed.

The images and masks are another dataset's; folders, file names, formats and label numbers are those of the dataset
whose layout it is. Images are copied or stored without loss, so that what a conversion writes can be compared exactly.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.datasets.dataset_sources import SHARED_DATA

# repository of VM-UNet: README.md, data; of TransUNet: datasets/README.md and lists/lists_Synapse
SYNAPSE_TEST_ORDER = (8, 22, 38, 36, 32, 2, 29, 3, 1, 4, 25, 35)
BTCV_LABELLED = (*range(1, 11), *range(21, 41))
BTCV_UNLABELLED = range(61, 81)
# TransUNet's 1 to 8 (aorta, gallbladder, left and right kidney, liver, pancreas, spleen, stomach) in BTCV's numbers
EIGHT_ORGANS = (8, 4, 3, 2, 6, 11, 1, 7)
# wider than any of the scans is high, wide or deep: TransUNet's slices are square, and deeper scans than wide are not
FRAME = 64


def real_folder(name: str) -> Path:
    """A folder of real images beside the repository; skips the test where it is absent."""
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"real images are not there: no folder {folder}")
    return folder


def real_pairs(name: str, images: str, masks: str, suffix: str = "") -> dict[str, tuple[Path, Path]]:
    """Stem -> image and mask of a folder of real images."""
    folder = real_folder(name)
    return {
        path.stem: (path, folder / masks / f"{path.stem}{suffix}.png") for path in sorted((folder / images).iterdir())
    }


def dermoscopy() -> dict[str, tuple[Path, Path]]:
    return real_pairs("isic2017", "ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth", "_segmentation")


def write_isic2018(source: Path, parts: Mapping[str, Sequence[str]]) -> None:
    """The official archives, each unpacked in a folder of its own name, with their licence files.

    parts: Training, Validation, Test -> stems.
    """
    for part, stems in parts.items():
        images, masks = source / f"ISIC2018_Task1-2_{part}_Input", source / f"ISIC2018_Task1_{part}_GroundTruth"
        for folder in (images, masks):
            folder.mkdir(parents=True)
            for name in ("ATTRIBUTION.txt", "LICENSE.txt"):
                (folder / name).write_text("terms\n")
        for stem in stems:
            image, mask = dermoscopy()[stem]
            shutil.copy(image, images / f"{stem}.jpg")
            shutil.copy(mask, masks / f"{stem}_segmentation.png")


def write_vmunet(source: Path, parts: Mapping[str, Sequence[str]], mask_suffix: str) -> None:
    """VM-UNet's data/isic17: {train,val}/{images,masks} of PNG, and SliceMamba's search folder of the same form.

    What macOS adds to archives and to foreign drives is there, too: files that end with .png and are none.
    """
    for part, stems in parts.items():
        for folder in ("images", "masks"):
            (source / part / folder).mkdir(parents=True)
            (source / "__MACOSX" / part / folder).mkdir(parents=True)
        for stem in stems:
            image, mask = dermoscopy()[stem]
            Image.open(image).save(source / part / "images" / f"{stem}.png", compress_level=1)
            shutil.copy(mask, source / part / "masks" / f"{stem}{mask_suffix}.png")
            for place in (source, source / "__MACOSX"):
                (place / part / "images" / f"._{stem}.png").write_bytes(b"Mac OS X")


def write_images_and_masks(folder: Path, pairs: Sequence[tuple[Path, Path]]) -> None:
    """One of UWF-RHS's folders of images and masks with equal names."""
    for kind, files in zip(("images", "masks"), zip(*pairs, strict=True), strict=True):
        (folder / kind).mkdir(parents=True)
        for path in files:
            shutil.copy(path, folder / kind / path.name)


def scans() -> list[tuple[Path, Path]]:
    """Image and labels {0, 1, 2} of real MRI scans (x, y, z), 35 x 50 x 36 voxels or so."""
    folder = real_folder("hippocampus")
    return [(path, folder / "labelsTr" / path.name) for path in sorted((folder / "imagesTr").glob("*.nii.gz"))]


def scan_of(number: int) -> tuple[Path, Path]:
    """The real scan that stands for BTCV's scan of that number."""
    return scans()[[*BTCV_LABELLED, *BTCV_UNLABELLED].index(number)]


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def renumbered(number: int, highest: int) -> np.ndarray:
    """The scan's two labels (x, y, z) under two of the numbers 1 to `highest`; over the scans all occur."""
    labels = voxels(scan_of(number)[1]).astype(np.uint8)
    first = 2 * BTCV_LABELLED.index(number)
    table = np.array([0, 1 + first % highest, 1 + (first + 1) % highest], np.uint8)
    return table[labels]


def eight_organs(labels: np.ndarray) -> np.ndarray:
    """BTCV's labels as TransUNet numbers them."""
    expected = np.zeros_like(labels)
    for number, btcv in enumerate(EIGHT_ORGANS, start=1):
        expected[labels == btcv] = number
    return expected


def write_btcv(source: Path, labelled: Sequence[int], unlabelled: Sequence[int] = ()) -> None:
    """RawData/Training/{img,label} and RawData/Testing/img in NIfTI, all 13 labels."""
    for folder in ("Training/img", "Training/label", "Testing/img"):
        (source / "RawData" / folder).mkdir(parents=True)
    for number in labelled:
        image, labels = scan_of(number)
        shutil.copy(image, source / "RawData" / "Training" / "img" / f"img{number:04d}.nii.gz")
        grid = nibabel.load(labels).affine
        nibabel.save(
            nibabel.Nifti1Image(renumbered(number, 13), grid),
            source / "RawData" / "Training" / "label" / f"label{number:04d}.nii.gz",
        )
    for number in unlabelled:
        shutil.copy(scan_of(number)[0], source / "RawData" / "Testing" / "img" / f"img{number:04d}.nii.gz")


def framed(number: int, highest: int) -> tuple[np.ndarray, np.ndarray]:
    """What TransUNet's preprocessing keeps: image in [0, 1] and labels, float32 (slices, 64, 64), in a black frame."""
    image = voxels(scan_of(number)[0]).astype(np.float32)
    image = np.clip(image, None, np.percentile(image, 99.5))
    image = (image - image.min()) / (image.max() - image.min())
    both = []
    for volume in (image, renumbered(number, highest).astype(np.float32)):
        slices = volume.transpose(2, 1, 0)
        margins = [(0, 0), *(((FRAME - size) // 2, FRAME - size - (FRAME - size) // 2) for size in slices.shape[1:])]
        both.append(np.pad(slices, margins))
    return both[0], both[1]


def write_transunet(source: Path, highest: int = 8, lists: str = "lists/lists_Synapse") -> None:
    """train_npz with a file per slice, test_vol_h5 with a file per scan, and the list files, of all 30 scans."""
    for folder in ("train_npz", "test_vol_h5", lists):
        (source / folder).mkdir(parents=True)
    names = []
    for number in BTCV_LABELLED:
        image, label = framed(number, highest)
        if number in SYNAPSE_TEST_ORDER:
            with h5py.File(source / "test_vol_h5" / f"case{number:04d}.npy.h5", "w") as file:
                file["image"], file["label"] = image, label
            continue
        for index in range(len(image)):
            names.append(f"case{number:04d}_slice{index:03d}")
            np.savez(source / "train_npz" / f"{names[-1]}.npz", image=image[index], label=label[index])
    # the lists are not in order
    names = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
    (source / lists / "train.txt").write_text("\n".join(names) + "\n")
    (source / lists / "all.lst").write_text("".join(f"{name}.npz\n" for name in names))
    (source / lists / "test_vol.txt").write_text("".join(f"case{number:04d}\n" for number in SYNAPSE_TEST_ORDER))
