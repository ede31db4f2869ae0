"""Sixteen patches of an image and of a volume, augmented by nnU-Net and by the batched pipeline: docs/augmentation.png.

    python benchmarks/augmentation_picture.py [docs/augmentation.png]

Shipped images, nnU-Net's default policy, on the CPU. Outlines are the labels. The draws of either side are its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib
import nibabel
import numpy as np
import torch
from matplotlib import pyplot
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from PIL import Image

from nnunetv2_slicemamba.augmentation import Batch, translate
from nnunetv2_slicemamba.demo.layout import DATA

SAMPLES = 16
LABELS = (-1, 0, 1, 2)


def nuclei() -> tuple[np.ndarray, np.ndarray]:
    """A fluorescence image (1, Y, X) and its nuclei."""
    folder = DATA / "nuclei2d"
    image = np.asarray(Image.open(folder / "imagesTr" / "nuclei_002_0000.png")).astype(np.float32)
    label = np.asarray(Image.open(folder / "labelsTr" / "nuclei_002.png"))
    return image[None], (label > 0).astype(np.int16)[None]


def hippocampus() -> tuple[np.ndarray, np.ndarray]:
    """A magnetic resonance volume (1, Z, Y, X) and its two parts."""
    label = sorted((DATA / "hippocampus3d" / "labelsTr").glob("*.nii.gz"))[0]
    image = DATA / "hippocampus3d" / "imagesTr" / label.name.replace(".nii.gz", "_0000.nii.gz")
    loaded = [np.asarray(nibabel.load(file).dataobj)[None] for file in (image, label)]
    return loaded[0].astype(np.float32), loaded[1].astype(np.int16)


def augmented(image: np.ndarray, label: np.ndarray, patch: tuple[int, ...], degrees: float) -> tuple[Any, Any]:
    """nnU-Net's sixteen patches and ours: (images, labels) each, (16, *patch)."""
    limit = degrees / 180 * np.pi
    source = get_patch_size(patch, limit, limit, limit, (0.85, 1.25))
    axes = tuple(range(len(patch)))
    transforms = nnUNetTrainer.get_training_transforms(patch, (-limit, limit), None, axes, False)
    data = torch.from_numpy(central((image - image.mean()) / image.std(), source, 0.0)).float()
    seg = torch.from_numpy(central(label, source, -1))
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - batchgeneratorsv2 draws from the global generator
    singles = [transforms(image=data.clone(), segmentation=seg.clone()) for _ in range(SAMPLES)]
    theirs = [torch.stack([single[key][0] for single in singles]) for key in ("image", "segmentation")]
    batch = Batch(data.repeat(SAMPLES, 1, *(1,) * len(patch)), seg.repeat(SAMPLES, 1, *(1,) * len(patch)))
    ours = translate(transforms, LABELS)(batch, np.random.SeedSequence(5))
    return theirs, (ours.data[:, 0], ours.seg[:, 0])


def central(array: np.ndarray, size: Any, outside: float) -> np.ndarray:
    """The middle of an array (1, *spatial), continued by `outside` where it is smaller than `size`."""
    for axis, wanted in enumerate(size, start=1):
        missing = max(0, int(wanted) - array.shape[axis])
        widths = [(0, 0)] * array.ndim
        widths[axis] = (missing // 2, missing - missing // 2)
        array = np.pad(array, widths, constant_values=outside)
        start = (array.shape[axis] - int(wanted)) // 2
        array = array.take(range(start, start + int(wanted)), axis)
    return array


def draw(figure: Any, title: str, images: torch.Tensor, labels: torch.Tensor) -> None:
    figure.suptitle(title)
    for place, image, label in zip(figure.subplots(4, 4).flat, images, labels, strict=True):
        middle = image.shape[0] // 2
        image, label = (x[middle] if x.ndim == 3 else x for x in (image, label))
        place.imshow(image, cmap="gray", vmin=-2, vmax=4)
        place.contour(label, levels=[0.5, 1.5], colors=["tab:orange", "tab:cyan"], linewidths=0.7)
        place.axis("off")


def main() -> None:
    matplotlib.use("agg")
    figure = pyplot.figure(figsize=(12, 12.6), layout="constrained")
    rows = figure.subfigures(2, 1, hspace=0.03)
    cases = [("2D", *nuclei(), (128, 128), 180.0), ("3D, the middle slice", *hippocampus(), (32, 48, 32), 30.0)]
    for row, (name, image, label, patch, degrees) in zip(rows, cases, strict=True):
        theirs, ours = augmented(image, label, patch, degrees)
        left, right = row.subfigures(1, 2, wspace=0.03)
        draw(left, f"nnU-Net, on the CPU, {name}", *theirs)
        draw(right, f"in batches, {name}", *ours)
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/augmentation.png")
    figure.savefig(target, dpi=80)
    # a third of the size, and no difference to the eye
    Image.open(target).convert("RGB").quantize(128).save(target, optimize=True)


if __name__ == "__main__":
    main()
