"""Checks of scans: each can be read, fits its labels, and holds what it should."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
from rich.console import Console

from nnunetv2_slicemamba.datasets.parallel import for_each
from nnunetv2_slicemamba.datasets.problems import Problem
from nnunetv2_slicemamba.datasets.scans import ExaminedScan, Scan
from nnunetv2_slicemamba.datasets.volumes import read_h5, read_nifti, read_npz

# what numpy, h5py, nibabel, gzip and zip raise for files that are damaged, cut off or of another kind
UNREADABLE = (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile)
# voxel sizes in mm are stored in single precision and rounded by some tools
SPACING_TOLERANCE = 1e-2


def examine_scans(
    scans: Sequence[Scan], highest_label: int, processes: int, console: Console | None
) -> list[ExaminedScan]:
    """All scans, read with a progress bar. highest_label: highest number that labels may have."""
    return for_each(
        lambda scan: examine_scan(scan, highest_label), scans, processes, "Checking scans and labels", console
    )


def examine_scan(scan: Scan, highest_label: int) -> ExaminedScan:
    """Reads a scan completely."""
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
    voxels = np.bincount(label.astype(np.uint8).ravel(), minlength=highest_label + 1)
    return ExaminedScan(scan, tuple(problems), tuple(map(int, voxels)), moved)


def is_unreadable(error: Exception) -> bool:
    """True for errors that a damaged file causes, False for those of this program."""
    # nibabel's own errors derive from Exception
    return isinstance(error, UNREADABLE) or type(error).__module__.startswith("nibabel")


def unreadable(what: str, error: Exception) -> Problem:
    """The problem of a file, or of files, of a scan that could not be read."""
    return Problem("unreadable or cut off", f"{what}: {error or type(error).__name__}")


def spacing(affine: np.ndarray) -> str:
    """Orientation and voxel size in words: `LPS 0.8x0.8x3 mm`."""
    import nibabel

    sizes = "x".join(f"{size:.3g}" for size in np.linalg.norm(affine[:3, :3], axis=0))
    return f"{''.join(map(str, nibabel.aff2axcodes(affine)))} {sizes} mm"
