"""Whether every scan can be read, fits its labels, and holds what it should."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_slicemamba.datasets.converters.synapse import Volume
from nnunetv2_slicemamba.datasets.problems import Problem
from nnunetv2_slicemamba.datasets.published import BTCV_LABELS, ORGAN_LABELS
from nnunetv2_slicemamba.datasets.volumes import read_h5, read_nifti, read_npz

# what numpy, h5py, nibabel, gzip and zip raise for files that are damaged, cut off or of another kind
UNREADABLE = (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile)
# voxel sizes in mm are stored in single precision and rounded by some tools
SPACING_TOLERANCE = 1e-2


@dataclass(frozen=True)
class ExaminedVolume:
    """voxels: how many voxels have each label, by label. moved: the labels' origin differs from the image's."""

    volume: Volume
    problems: tuple[Problem, ...]
    voxels: tuple[int, ...] = ()
    moved: bool = False


def examine_volume(volume: Volume) -> ExaminedVolume:
    """Reads a scan completely."""
    files = (
        f"{volume.images[0]}" if len(volume.images) == 1 else f"{volume.images[0]} and {len(volume.images) - 1} more"
    )
    moved = False
    try:
        if volume.kind == "nifti":
            image, affine = read_nifti(volume.images[0])
        elif volume.kind == "h5":
            image, label = read_h5(volume.images[0])
        else:
            image, label = read_npz(volume.images)
    except Exception as error:
        if not is_unreadable(error):
            raise
        return ExaminedVolume(volume, (unreadable(files, error),))
    problems = []
    if volume.mask is not None:
        try:
            label, label_affine = read_nifti(volume.mask)
        except Exception as error:
            if not is_unreadable(error):
                raise
            return ExaminedVolume(volume, (unreadable(f"{volume.mask}", error),))
        if label.shape != image.shape:
            problems.append(Problem("sizes differ", f"{files} {image.shape}, {volume.mask} {label.shape}"))
        elif not np.allclose(affine[:3, :3], label_affine[:3, :3], atol=SPACING_TOLERANCE):
            problems.append(
                Problem(
                    "spacing or orientation differ", f"{files} {spacing(affine)}, {volume.mask} {spacing(label_affine)}"
                )
            )
        moved = not problems and not np.allclose(affine, label_affine, atol=SPACING_TOLERANCE)
    if not np.isfinite(image).all():
        problems.append(Problem("not a number", f"{files} holds NaN or infinite values"))
    highest = max(BTCV_LABELS.values())
    if not np.isfinite(label).all() or label.min() < 0 or label.max() > highest or (label != np.round(label)).any():
        values = ", ".join(f"{value:g}" for value in np.unique(label)[-6:])
        problems.append(
            Problem(
                "unexpected labels", f"{volume.mask or files} holds ... {values}; expected whole numbers 0 to {highest}"
            )
        )
        return ExaminedVolume(volume, tuple(problems))
    voxels = np.bincount(label.astype(np.uint8).ravel(), minlength=highest + 1)
    return ExaminedVolume(volume, tuple(problems), tuple(map(int, voxels)), moved)


def is_unreadable(error: Exception) -> bool:
    # nibabel's own errors derive from Exception
    return isinstance(error, UNREADABLE) or type(error).__module__.startswith("nibabel")


def unreadable(what: str, error: Exception) -> Problem:
    return Problem("unreadable or cut off", f"{what}: {error or type(error).__name__}")


def spacing(affine: np.ndarray) -> str:
    """Orientation and voxel size in words: `LPS 0.8x0.8x3`."""
    import nibabel

    sizes = "x".join(f"{size:.3g}" for size in np.linalg.norm(affine[:3, :3], axis=0))
    return f"{''.join(map(str, nibabel.aff2axcodes(affine)))} {sizes} mm"


def numbering(examined: Sequence[ExaminedVolume]) -> str:
    """`btcv` if a label of the 13 that the eight organs lack occurs in preprocessed files, else `organs`."""
    eight = max(ORGAN_LABELS.values())
    return "btcv" if any(sum(one.voxels[eight + 1 :]) for one in examined) else "organs"


def doubtful_order(examined: Sequence[ExaminedVolume]) -> str | None:
    """A warning if labels 1 to 8 do not look like TransUNet's order: there, number 2, the gallbladder, is smallest."""
    totals = np.sum([one.voxels[1:9] for one in examined if one.voxels], axis=0)
    if np.ndim(totals) == 0 or not totals.all() or int(np.argmin(totals)) == ORGAN_LABELS["gallbladder"] - 1:
        return None
    smallest = int(np.argmin(totals)) + 1
    return (
        f"label {smallest} has the fewest voxels, in TransUNet's order it would be 2 (gallbladder): these files may "
        "number the organs otherwise, so check the names in dataset.json"
    )
