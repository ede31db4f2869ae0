"""Checks of scans: each can be read, fits its labels, and holds what it should."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from nnunetv2_slicemamba.common.nnunet_readers import Reader, find_reader, reason_of
from nnunetv2_slicemamba.datasets.cases import ENDING
from nnunetv2_slicemamba.datasets.parallel import for_each
from nnunetv2_slicemamba.datasets.problems import Problem
from nnunetv2_slicemamba.datasets.scans import ExaminedScan, Scan
from nnunetv2_slicemamba.datasets.volumes import VolumeError, is_sheared, read_h5, read_nifti, read_npz

# what numpy, h5py, nibabel, gzip and zip raise for files that are damaged, cut off or of another kind
UNREADABLE = (OSError, ValueError, EOFError, KeyError, MemoryError, OverflowError, zlib.error, zipfile.BadZipFile)
# voxel sizes in mm are stored in single precision and rounded by some tools
SPACING_TOLERANCE = 1e-2


def examine_scans(
    scans: Sequence[Scan], training: Collection[str], highest_label: int, processes: int, console: Console | None
) -> list[ExaminedScan]:
    """All scans, read with a progress bar.

    training: names of those that train; by the first one nnU-Net chooses the reader of all. highest_label: highest
    number that labels may have.
    """
    first = min((scan for scan in scans if scan.name in training), key=lambda scan: scan.name, default=None)
    reader = None if first is None or first.kind != "nifti" else find_reader(None, ENDING["nifti"], first.images[0])
    return for_each(
        lambda scan: examine_scan(scan, highest_label, reader), scans, processes, "Checking scans and labels", console
    )


def examine_scan(scan: Scan, highest_label: int, reader: Reader | None = None) -> ExaminedScan:
    """Reads a scan completely. reader: nnU-Net's, which must be able to read it, too; None to leave that out."""
    files = f"{scan.images[0]}" if len(scan.images) == 1 else f"{scan.images[0]} and {len(scan.images) - 1} more"
    moved = False
    try:
        if scan.kind == "nifti":
            image, affine = read_nifti(scan.images[0])
        elif scan.kind == "h5":
            image, label = read_h5(scan.images[0])
        else:
            image, label = read_npz(scan.images)
    except Exception as error:
        if not is_unreadable(error):
            raise
        return ExaminedScan(scan, (unreadable(files, error),))
    problems = []
    if scan.mask is not None:
        try:
            label, label_affine = read_nifti(scan.mask)
        except Exception as error:
            if not is_unreadable(error):
                raise
            return ExaminedScan(scan, (unreadable(f"{scan.mask}", error),))
        if label.shape != image.shape:
            problems.append(Problem("sizes differ", f"{files} {image.shape}, {scan.mask} {label.shape}"))
        elif not np.allclose(affine[:3, :3], label_affine[:3, :3], atol=SPACING_TOLERANCE):
            problems.append(
                Problem(
                    "spacing or orientation differ", f"{files} {spacing(affine)}, {scan.mask} {spacing(label_affine)}"
                )
            )
        moved = not problems and not np.allclose(affine, label_affine, atol=SPACING_TOLERANCE)
    if scan.mask is not None and reader is not None:
        problems += unread_by(reader, scan.images[0], affine)
        problems += unread_by(reader, scan.mask, label_affine)
    if not np.isfinite(image).all():
        problems.append(Problem("not a number", f"{files} holds NaN or infinite values"))
    if (
        not np.isfinite(label).all()
        or label.min() < 0
        or label.max() > highest_label
        or (label != np.round(label)).any()
    ):
        values = ", ".join(f"{value:g}" for value in np.unique(label)[-6:])
        problems.append(
            Problem(
                "unexpected labels",
                f"{scan.mask or files} holds ... {values}; expected whole numbers 0 to {highest_label}",
            )
        )
        return ExaminedScan(scan, tuple(problems))
    voxels = np.bincount(label.astype(np.int64).ravel(), minlength=highest_label + 1)
    return ExaminedScan(scan, tuple(problems), tuple(map(int, voxels)), moved)


def unread_by(reader: Reader, path: Path, affine: np.ndarray) -> list[Problem]:
    """The problem of a NIfTI file that nibabel reads and nnU-Net's reader does not."""
    try:
        reader().read_images((str(path),))
    except Exception as error:  # ITK has its own exceptions, and so has every other library
        why = (
            "its axes are not at right angles (shear); resample the scan and its labels onto a straight grid"
            if is_sheared(affine)
            else reason_of(error)
        )
        return [Problem("not for nnU-Net's reader", f"{path}: {reader.__name__} cannot read it: {why}")]
    return []


def is_unreadable(error: Exception) -> bool:
    """True for errors that a damaged file causes, False for those of this program."""
    # nibabel's own errors derive from Exception
    return isinstance(error, UNREADABLE) or type(error).__module__.startswith("nibabel")


def unreadable(what: str, error: Exception) -> Problem:
    """The problem of a file, or of files, of a scan that could not be read."""
    if isinstance(error, VolumeError):
        return Problem("unexpected volume", f"{what}: {error}")
    if isinstance(error, MemoryError):
        return Problem("too large", f"{what} does not fit into this machine's memory")
    return Problem("unreadable or cut off", f"{what}: {error or type(error).__name__}")


def spacing(affine: np.ndarray) -> str:
    """Orientation and voxel size in words: `LPS 0.8x0.8x3 mm`."""
    import nibabel

    sizes = "x".join(f"{size:.3g}" for size in np.linalg.norm(affine[:3, :3], axis=0))
    return f"{''.join(map(str, nibabel.aff2axcodes(affine)))} {sizes} mm"
