"""Small volumes in every format, generated: noise with a bright box of label 1 that may hold one of label 2."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
import tifffile

SHAPE = (6, 12, 14)  # z, y, x
SPACING = (3.0, 0.8, 0.7)  # z, y, x


def box(name: str, labels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Image (z, y, x) int16 and mask uint8, a function of the name alone."""
    rng = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
    mask = np.zeros(SHAPE, np.uint8)
    low, high = rng.integers(1, 3, 3), rng.integers(4, 6, 3)
    mask[low[0] : high[0], low[1] : 2 * high[1], low[2] : 2 * high[2]] = 1
    if labels > 1:
        mask[2:4, 4:7, 4:7] = 2
    return (rng.integers(0, 80, SHAPE) + 120 * (mask > 0)).astype(np.int16), mask


def write_array(array: np.ndarray, path: Path, origin: tuple[float, float, float] = (10, 20, -30)) -> Path:
    """A volume (z, y, x) in the format that the path's ending names, with SPACING where the format holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, array, photometric="minisblack")
        return path
    if path.name.endswith((".nii", ".nii.gz")):
        affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
        affine[:3, 3] = (-origin[0], -origin[1], origin[2])  # of ITK's convention, as below
        nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), affine), path)
        return path
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path), True)
    return path


def write_case(
    images: Path, masks: Path, name: str, ending: str = ".nii.gz", mask_ending: str | None = None, labels: int = 1
) -> tuple[Path, Path]:
    """An image and its mask; returns their paths."""
    image, mask = box(name, labels)
    return (
        write_array(image, images / f"{name}{ending}"),
        write_array(mask, masks / f"{name}{mask_ending or ending}"),
    )


def read(path: Path) -> tuple[np.ndarray, Any]:
    """Voxels (z, y, x) and, of other files than stacks, spacing, origin and direction, as ITK reads them."""
    if path.suffix in (".tif", ".tiff"):
        return tifffile.imread(path), None
    image = sitk.ReadImage(str(path))
    place = np.concatenate([image.GetSpacing(), image.GetOrigin(), image.GetDirection()])
    return sitk.GetArrayFromImage(image), place
