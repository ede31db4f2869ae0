"""Volumes read and written: NIfTI, and the npz slices and h5 volumes that TransUNet's preprocessing makes."""

from __future__ import annotations

import gzip
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# diag(-1, -1, 1) in NIfTI's axes is the identity in ITK's; the sources have neither spacing nor orientation
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
# deflate makes 1032 bytes of one at most; what HDF5 writes beside its data, and values that it only describes
MOST_FROM_A_BYTE = 1032
BESIDE = 1 << 20
# medical volumes hardly get smaller at higher levels
GZIP_LEVEL = 3
# of the cosine between two axes; headers hold single precision
RIGHT_ANGLE = 1e-4


class VolumeError(ValueError):
    """A file that was read, but holds no volume that can be worked with; the message says what it holds."""


def check_size(path: Path, shape: Sequence[int], dtype: np.dtype, compressed: bool) -> None:
    """Raises VolumeError for a header that promises more than the file can hold, before memory is taken for it."""
    promised, there = math.prod(int(size) for size in shape) * dtype.itemsize, path.stat().st_size
    if promised > there * (MOST_FROM_A_BYTE if compressed else 1) + BESIDE:
        sizes = "x".join(map(str, shape))
        raise VolumeError(
            f"its header promises {sizes} values, {promised / 1e9:,.1f} GB; a file of {there} bytes cannot hold them"
        )


def read_npz(slices: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Image and label volume (slices, H, W) from one npz file per slice, in the order given.

    Raises ValueError where a slice lacks `image` or `label`, or has another size than the first.
    """
    images, labels = [], []
    for path in slices:
        with np.load(path) as content:
            absent = [key for key in ("image", "label") if key not in content]
            if absent:
                raise VolumeError(f"{path.name} has no {' and no '.join(absent)}")
            images.append(np.asarray(content["image"]))
            labels.append(np.asarray(content["label"]))
        if images[-1].shape != labels[-1].shape or images[-1].shape != images[0].shape or images[-1].ndim != 2:
            raise VolumeError(
                f"{path.name}: image {images[-1].shape}, label {labels[-1].shape}; expected 2D slices of one size, "
                f"here {images[0].shape}"
            )
    return np.stack(images), np.stack(labels)


def read_h5(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Image and label volume (slices, H, W) of one h5 file.

    Swin-Unet's loader reads slices first; the preprocessing script in TransUNet's repository stores them last. The
    axis along which the other two sizes are equal tells which. Raises ValueError for anything else.
    """
    import h5py

    with h5py.File(path, "r") as content:
        absent = [key for key in ("image", "label") if not isinstance(content.get(key), h5py.Dataset)]
        if absent:
            raise VolumeError(f"has no {' and no '.join(absent)}")
        for key in ("image", "label"):
            check_size(path, content[key].shape, content[key].dtype, compressed=True)
        image, label = np.asarray(content["image"]), np.asarray(content["label"])
    if image.shape != label.shape or image.ndim != 3:
        raise VolumeError(f"image {image.shape}, label {label.shape}; expected volumes of one size")
    if image.shape[1] == image.shape[2]:
        return image, label
    if image.shape[0] == image.shape[1]:
        return image.transpose(2, 0, 1), label.transpose(2, 0, 1)
    raise VolumeError(f"size {image.shape}: the slices' axis cannot be told, as no two sizes are equal")


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Array (x, y, z) and affine (4, 4) of a NIfTI file, decompressed completely.

    Further axes of one voxel are dropped. Raises VolumeError if it is not 3D otherwise.
    """
    image = load_nifti(path)
    return np.asanyarray(image.dataobj), np.asarray(image.affine)


def load_nifti(path: Path) -> Any:
    """A NIfTI file as nibabel's image of three axes, its voxels not yet read. Raises VolumeError if it has others."""
    import nibabel

    image: Any = nibabel.load(path)
    check_size(path, image.shape, image.get_data_dtype(), path.name.lower().endswith(".gz"))
    if math.prod(image.shape[3:]) != 1 or len(image.shape) < 3:
        sizes = "x".join(map(str, image.shape))
        raise VolumeError(f"has {len(image.shape)} axes, {sizes}; expected a 3D volume, one scan per file")
    return nibabel.squeeze_image(image) if len(image.shape) > 3 else image


def is_sheared(affine: np.ndarray) -> bool:
    """True if the axes of an affine (4, 4) are not at right angles."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return not np.allclose(axes.T @ axes, np.eye(3), atol=RIGHT_ANGLE)


def copy_nifti(source: Path, target: Path) -> None:
    """A copy as .nii.gz with the same header and stored values; axes beyond the third are dropped."""
    import nibabel

    image: Any = nibabel.load(source)
    if len(image.shape) > 3:
        # stored values and their scale stay as they are: rounding them anew would change them
        stored = image.dataobj.get_unscaled().reshape(image.shape[:3])
        header = image.header.copy()
        header.set_data_shape(stored.shape)
        copy = type(image)(stored, image.affine, header)
        copy.header.set_slope_inter(image.dataobj.slope, image.dataobj.inter)
        nibabel.save(copy, target)
    elif source.name.lower().endswith(".gz"):
        shutil.copyfile(source, target)
    else:
        with open(source, "rb") as opened, gzip.open(target, "wb", compresslevel=GZIP_LEVEL) as packed:
            shutil.copyfileobj(opened, packed, 1 << 20)


def write_volume(volume: np.ndarray, target: Path) -> None:
    """A volume (slices, H, W) as NIfTI with spacing 1, which says nothing about its true one."""
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(volume.transpose(2, 1, 0)), AFFINE), target)


def write_labels_like(labels: Path, image: Path, target: Path, mapping: Sequence[tuple[int, int]] | None) -> None:
    """Labels of a NIfTI file as `map_labels` gives them, in the exact grid of their image."""
    write_nifti_like(map_labels(read_nifti(labels)[0], mapping), image, target)


def write_nifti_like(array: np.ndarray, image: Path, target: Path) -> None:
    """Labels (x, y, z) in the exact grid of a NIfTI file."""
    import nibabel

    reference = load_nifti(image)
    header = reference.header.copy()
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    nibabel.save(nibabel.Nifti1Image(array, reference.affine, header), target)


def map_labels(labels: np.ndarray, mapping: Sequence[tuple[int, int]] | None) -> np.ndarray:
    """Labels, from 0, renumbered where a mapping is given; what it does not name becomes background.

    They are uint8 as long as all numbers fit, else uint16 or larger.
    """
    numbers = np.rint(labels).astype(np.int64)
    if mapping is not None:
        table = np.zeros(max(int(numbers.max(initial=0)), *(old for old, _ in mapping)) + 1, np.int64)
        for old, new in mapping:
            table[old] = new
        numbers = table[numbers]
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
