"""Small sources in every layout, generated: noisy colour images with a bright disk, and its mask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
from PIL import Image

from nnunetv2_slicemamba.datasets.convert import Converted, convert
from nnunetv2_slicemamba.datasets.request import Request
from nnunetv2_slicemamba.datasets.splits import parse_split

SIZE = (40, 48)
ISIC2017 = {
    "train": ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
    "val": ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
    "test": ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
}
SHARED_DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def disk(name: str, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 and mask (H, W) bool, a function of the name alone."""
    rng = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
    rows, columns = np.mgrid[: size[0], : size[1]]
    centre = rng.uniform(0.4, 0.6, 2) * size
    mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (0.25 * min(size)) ** 2
    image = rng.integers(0, 80, (*size, 3)) + 120 * mask[..., None]
    return image.astype(np.uint8), mask


def write_pair(
    images: Path,
    masks: Path,
    stem: str,
    ending: str = ".png",
    suffix: str = "",
    size: tuple[int, int] = SIZE,
    mask_ending: str = ".png",
) -> tuple[Path, Path]:
    """One image and its mask {0, 255}; returns their paths."""
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    image, mask = disk(stem, size)
    paths = images / f"{stem}{ending}", masks / f"{stem}{suffix}{mask_ending}"
    Image.fromarray(image).save(paths[0])
    Image.fromarray(mask.astype(np.uint8) * 255).save(paths[1])
    return paths


def write_isic2017(source: Path, numbers: dict[str, Iterable[int]], ending: str = ".jpg") -> None:
    """The official archives' folders, with a superpixel file beside every image as there."""
    for part, chosen in numbers.items():
        images, masks = (source / folder for folder in ISIC2017[part])
        for number in chosen:
            stem = f"ISIC_{number:07d}"
            write_pair(images, masks, stem, ending, "_segmentation")
            Image.fromarray(disk(stem)[0]).save(images / f"{stem}_superpixels.png")
        (images / "LICENSE.txt").write_text("terms")


def write_parts(source: Path, stems: dict[str, Iterable[str]], ending: str = ".png") -> None:
    """VM-UNet's shared folders: {train,val,search,test}/{images,masks}."""
    for part, chosen in stems.items():
        for stem in chosen:
            write_pair(source / part / "images", source / part / "masks", stem, ending)


def write_joint(
    source: Path, train: Iterable[str], tests: dict[str, Iterable[str]], search: Iterable[str] = ()
) -> None:
    """The polyp benchmark; its own TrainDataset has `image` and `mask`, the copies in circulation the plural."""
    for stem in train:
        write_pair(source / "TrainDataset" / "image", source / "TrainDataset" / "mask", stem)
    for name, chosen in tests.items():
        for stem in chosen:
            write_pair(source / "TestDataset" / name / "images", source / "TestDataset" / name / "masks", stem)
    for stem in search:
        write_pair(source / "searchDataset" / "images", source / "searchDataset" / "masks", stem)


def scan(number: int, labels: Iterable[int], size: tuple[int, int, int] = (5, 12, 14)) -> tuple[np.ndarray, np.ndarray]:
    """Image and label volume (slices, H, W) in which the given labels occur, each in fewer voxels than the last."""
    rng = np.random.default_rng(number)
    label = np.zeros(size, np.uint8)
    flat = label.reshape(-1)
    start = 0
    for rank, value in enumerate(labels):
        flat[start : start + 60 - 4 * rank] = value
        start += 60 - 4 * rank
    return rng.uniform(0, 1, size).astype(np.float32), label


def write_nifti(source: Path, numbers: Iterable[int], spacing: tuple[float, float, float] = (0.7, 0.7, 3.0)) -> None:
    """BTCV's RawData/Training: int16 Hounsfield units (x, y, z), all 13 labels."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = (100, 120, -300)
    for number in numbers:
        image, label = scan(number, range(1, 14))
        for kind, array in (("img", (image * 1000 - 500).astype(np.int16)), ("label", label)):
            folder = source / "RawData" / "Training" / kind
            folder.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), affine), folder / f"{kind}{number:04d}.nii.gz")


def write_preprocessed(
    source: Path, train: Iterable[int], test: Iterable[int], labels: Iterable[int] = (5, 1, 7, 8, 3, 4, 6, 2)
) -> None:
    """TransUNet's train_npz, test_vol_h5 and list files."""
    lists = source / "lists" / "lists_Synapse"
    for folder in (source / "train_npz", source / "test_vol_h5", lists):
        folder.mkdir(parents=True)
    names = []
    for number in train:
        image, label = scan(number, labels)
        for index in range(len(image)):
            names.append(f"case{number:04d}_slice{index:03d}")
            np.savez(
                source / "train_npz" / f"{names[-1]}.npz", image=image[index], label=label[index].astype(np.float32)
            )
    for number in test:
        image, label = scan(number, labels)
        # square slices, by which the slices' axis is told
        with h5py.File(source / "test_vol_h5" / f"case{number:04d}.npy.h5", "w") as file:
            file["image"], file["label"] = image[:, :12, :12], label[:, :12, :12].astype(np.float32)
    (lists / "train.txt").write_text("\n".join(names) + "\n")
    (lists / "test_vol.txt").write_text("".join(f"case{number:04d}\n" for number in test))


def run(key: str, source: Path, raw: Path, split: str = "published", **options: Any) -> Converted:
    """A conversion to Dataset700 below `raw`. options: of Request and of `convert`."""
    how = {name: options.pop(name) for name in ("preprocessed", "results", "processes") if name in options}
    request = Request(key, options.pop("sources", (source,)), 700, parse_split(split), **options)
    return convert(request, raw, **how)


def cases_in(folder: Path, subset: str, ending: str = ".png") -> set[str]:
    """Case names by the images of a subset; each must have its label."""
    images = {path.name.removesuffix(f"_0000{ending}") for path in (folder / f"images{subset}").glob(f"*{ending}")}
    labels = {path.name.removesuffix(ending) for path in (folder / f"labels{subset}").glob(f"*{ending}")}
    assert images == labels
    return images


def folds_in(folder: Path) -> list[dict[str, list[str]]]:
    return json.loads((folder / "splits_final.json").read_text())
