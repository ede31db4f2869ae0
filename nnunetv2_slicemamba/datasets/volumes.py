"""Volumes read and written: NIfTI, and the npz slices and h5 volumes that TransUNet's preprocessing makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

# diag(-1, -1, 1) in NIfTI's axes is the identity in ITK's; the sources have neither spacing nor orientation
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_npz(slices: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Image and label volume (slices, H, W) from one npz file per slice, in the order given.

    Raises ValueError where a slice lacks `image` or `label`, or has another size than the first.
    """
    images, labels = [], []
    for path in slices:
        with np.load(path) as content:
            absent = [key for key in ("image", "label") if key not in content]
            if absent:
                raise ValueError(f"{path.name} has no {' and no '.join(absent)}")
            images.append(np.asarray(content["image"]))
            labels.append(np.asarray(content["label"]))
        if images[-1].shape != labels[-1].shape or images[-1].shape != images[0].shape or images[-1].ndim != 2:
            raise ValueError(
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
        absent = [key for key in ("image", "label") if key not in content]
        if absent:
            raise ValueError(f"has no {' and no '.join(absent)}")
        image, label = np.asarray(content["image"]), np.asarray(content["label"])
    if image.shape != label.shape or image.ndim != 3:
        raise ValueError(f"image {image.shape}, label {label.shape}; expected volumes of one size")
    if image.shape[1] == image.shape[2]:
        return image, label
    if image.shape[0] == image.shape[1]:
        return image.transpose(2, 0, 1), label.transpose(2, 0, 1)
    raise ValueError(f"size {image.shape}: the slices' axis cannot be told, as no two sizes are equal")


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Array (x, y, z) and affine (4, 4) of a NIfTI file, decompressed completely. ValueError if it is not 3D."""
    import nibabel

    image = nibabel.load(path)
    array = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
    if array.ndim != 3:
        raise ValueError(f"size {array.shape}; expected a 3D volume")
    return array, np.asarray(image.affine)  # type: ignore[attr-defined]


def write_volume(volume: np.ndarray, target: Path) -> None:
    """A volume (slices, H, W) as NIfTI with spacing 1, which says nothing about its true one."""
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(volume.transpose(2, 1, 0)), AFFINE), target)


def write_labels_like(labels: Path, image: Path, target: Path, mapping: Sequence[tuple[int, int]] | None) -> None:
    """Labels of a NIfTI file as uint8, renumbered, in the exact grid of their image."""
    import nibabel

    array, _ = read_nifti(labels)
    reference = nibabel.load(image)
    header = reference.header.copy()
    header.set_data_dtype(np.uint8)  # type: ignore[attr-defined]
    header.set_slope_inter(1, 0)  # type: ignore[attr-defined]
    written = nibabel.Nifti1Image(map_labels(array, mapping), reference.affine, header)  # type: ignore[attr-defined]
    nibabel.save(written, target)


def map_labels(labels: np.ndarray, mapping: Sequence[tuple[int, int]] | None) -> np.ndarray:
    """Labels as uint8, renumbered where a mapping is given; what it does not name becomes background."""
    numbers = np.rint(labels).astype(np.uint8)
    if mapping is None:
        return numbers
    table = np.zeros(256, np.uint8)
    for old, new in mapping:
        table[old] = new
    return table[numbers]
