"""Small datasets of every kind that nnU-Net knows, made from the shipped images.

Each function writes one nnU-Net raw dataset (training and one test case) and returns nothing; sizes are chosen so that
a whole pipeline takes seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from nnunetv2_slicemamba.demo.layout import DATA

Array = NDArray[Any]


def nuclei(index: int, size: int = 48) -> tuple[Array, Array]:
    """A crop of a fluorescence image (size, size) uint8 and its nuclei (0, 1)."""
    folder, crop = DATA / "nuclei2d", np.s_[80 : 80 + size, 80 : 80 + size]
    image = np.asarray(Image.open(folder / "imagesTr" / f"nuclei_{index:03d}_0000.png"))
    label = np.asarray(Image.open(folder / "labelsTr" / f"nuclei_{index:03d}.png"))
    return image[crop], (label[crop] > 0).astype(np.uint8)


def hippocampus(index: int) -> tuple[Array, Array, tuple[float, ...]]:
    """A magnetic resonance volume, its labels (0, 1 anterior, 2 posterior), and its spacing in mm."""
    folder = DATA / "hippocampus3d"
    label_file = sorted((folder / "labelsTr").glob("*.nii.gz"))[index]
    image = nibabel.load(folder / "imagesTr" / label_file.name.replace(".nii.gz", "_0000.nii.gz"))
    label = np.asarray(nibabel.load(label_file).dataobj).astype(np.uint8)
    return np.asarray(image.dataobj).astype(np.float32), label, tuple(map(float, image.header.get_zooms()[:3]))


def resampled(image: Array, label: Array, zoom: tuple[float, ...]) -> tuple[Array, Array]:
    """Both on another grid; zoom: new voxels per old one and axis."""
    return ndimage.zoom(image, zoom, order=1), ndimage.zoom(label, zoom, order=0)


def write_dataset(folder: Path, labels: dict[str, Any], channels: int, ending: str, n_train: int, **more: Any) -> None:
    """dataset.json of a raw dataset."""
    names = {str(i): f"channel {i}" for i in range(channels)}
    content = {"channel_names": names, "labels": labels, "numTraining": n_train, "file_ending": ending, **more}
    (folder / "dataset.json").write_text(json.dumps(content))


def write_splits(folder: Path, validation: list[list[str]]) -> None:
    """splits_final.json beside dataset.json, which planning copies; one list of validation cases per fold."""
    names = sorted(file.name.split(".")[0] for file in (folder / "labelsTr").iterdir())
    splits = [{"train": [n for n in names if n not in cases], "val": cases} for cases in validation]
    (folder / "splits_final.json").write_text(json.dumps(splits))


def save_png(folder: Path, name: str, channels: list[Array], label: Array, part: str) -> None:
    for i, channel in enumerate(channels):
        file = folder / f"images{part}" / f"{name}_{i:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(channel).save(file)
    target = folder / f"labels{part}" / f"{name}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(label).save(target)


def save_nifti(
    folder: Path, name: str, channels: list[Array], label: Array, spacing: tuple[float, ...], part: str
) -> None:
    affine = np.diag([*spacing, 1.0])
    for array, target in (
        *((channel, folder / f"images{part}" / f"{name}_{i:04d}.nii.gz") for i, channel in enumerate(channels)),
        (label, folder / f"labels{part}" / f"{name}.nii.gz"),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, affine), target)


def parts(n_train: int) -> list[tuple[int, str, str]]:
    """(index, name, "Tr" or "Ts") of the training cases and of one test case."""
    return [(i, f"case_{i:02d}", "Tr" if i < n_train else "Ts") for i in range(n_train + 1)]


def rgb_with_regions(folder: Path) -> None:
    """Colour pictures in one file per case; the nucleus is a region made of its inside and its rim."""
    for i, name, part in parts(6):
        image, label = nuclei(i)
        inside = ndimage.binary_erosion(label, iterations=2)
        regions = np.where(inside, 1, np.where(label > 0, 2, 0)).astype(np.uint8)
        colour = np.stack([image, 255 - image, image // 2], axis=-1)
        save_png(folder, name, [colour], regions, part)
    labels = {"background": 0, "nucleus": [1, 2], "rim": [2]}
    write_dataset(folder, labels, 3, ".png", 6, regions_class_order=[1, 2])


def five_channels_with_ignored_pixels(folder: Path) -> None:
    """Five images per case, of odd size; half of every training label is not annotated; the test case is empty."""
    for i, name, part in parts(6):
        image, label = nuclei(i, 45)
        blurred = [ndimage.gaussian_filter(image, sigma) for sigma in (1, 2, 3)]
        if part == "Tr":
            label[:, 23:] = 2
        else:
            label[:] = 0
        save_png(folder, name, [image, 255 - image, *blurred], label, part)
    write_dataset(folder, {"background": 0, "nucleus": 1, "ignore": 2}, 5, ".png", 6)
    write_splits(folder, [["case_00", "case_01"], ["case_02", "case_03"]])


def one_nucleus(folder: Path) -> None:
    """Grey images of which only the largest nucleus is labelled, far from one of the corners; two folds."""
    for (_, name, part), index in zip(parts(6), (2, 3, 7, 9, 13, 15, 19), strict=True):
        image, label = nuclei(index)
        pieces, _ = ndimage.label(label)
        largest = pieces == np.bincount(pieces[label > 0]).argmax()
        save_png(folder, name, [image], largest.astype(np.uint8), part)
    write_dataset(folder, {"background": 0, "nucleus": 1}, 1, ".png", 6)
    write_splits(folder, [["case_00", "case_01", "case_02"], ["case_03", "case_04", "case_05"]])


def volumes_with_two_channels(folder: Path) -> None:
    """Isotropic volumes of odd sizes with a second, blurred channel."""
    for i, name, part in parts(5):
        image, label, spacing = hippocampus(i)
        save_nifti(folder, name, [image, ndimage.gaussian_filter(image, 1)], label, spacing, part)
    write_dataset(folder, {"background": 0, "anterior": 1, "posterior": 2}, 2, ".nii.gz", 5)


def thick_slices_with_regions_and_ignored_voxels(folder: Path) -> None:
    """Slices four times as thick as their pixels; a region made of both parts; some slices are not annotated."""
    for i, name, part in parts(5):
        image, label, spacing = hippocampus(i)
        image, label = resampled(image, label, (1, 1, 0.25))
        label[..., -2:] = 3
        save_nifti(folder, name, [image], label, (*spacing[:2], 4 * spacing[2]), part)
    labels = {"background": 0, "hippocampus": [1, 2], "posterior": [2], "ignore": 3}
    write_dataset(folder, labels, 1, ".nii.gz", 5, regions_class_order=[1, 2])


def volumes_without_foreground(folder: Path) -> None:
    """Anisotropic volumes, of which every second one shows nothing of what is looked for."""
    for i, name, part in parts(6):
        image, label, spacing = hippocampus(i)
        image, label = resampled(image, label, (1, 1, 0.25))
        if i % 2:
            label[:] = 0
        save_nifti(folder, name, [image], label, (*spacing[:2], 4 * spacing[2]), part)
    write_dataset(folder, {"background": 0, "anterior": 1, "posterior": 2}, 1, ".nii.gz", 6)
    write_splits(folder, [["case_00", "case_01"], ["case_02", "case_03"]])


def volumes_larger_than_a_patch(folder: Path) -> None:
    """Volumes so much larger than a patch for little memory that a low resolution and a cascade are planned."""
    for i, name, part in parts(3):
        image, label, spacing = hippocampus(i)
        save_nifti(folder, name, [image], label, spacing, part)
    write_dataset(folder, {"background": 0, "anterior": 1, "posterior": 2}, 1, ".nii.gz", 3)
    write_splits(folder, [["case_00"], ["case_01", "case_02"]])
