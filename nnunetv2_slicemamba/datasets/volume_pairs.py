"""Checks of one's own volumes and masks: each can be read, lies where its partner lies, and holds what it should."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from nnunetv2_slicemamba.common.nnunet_readers import Reader, find_reader, reason_of
from nnunetv2_slicemamba.datasets.examined import ExaminedPair
from nnunetv2_slicemamba.datasets.masks import MaskError, distinct, to_labels
from nnunetv2_slicemamba.datasets.pairing import TRAIN, Pair
from nnunetv2_slicemamba.datasets.parallel import for_each
from nnunetv2_slicemamba.datasets.problems import Problem
from nnunetv2_slicemamba.datasets.source_files import TIFF
from nnunetv2_slicemamba.datasets.stacks import axes_of, voxel_size
from nnunetv2_slicemamba.datasets.volume_checks import spacing
from nnunetv2_slicemamba.datasets.volume_files import (
    is_float,
    is_nifti,
    known_reader,
    narrowed,
    read_volume,
    written_ending,
)
from nnunetv2_slicemamba.datasets.volumes import VolumeError, is_sheared, load_nifti

# of a voxel's size: headers hold single precision, and some tools round
TOLERANCE = 0.01


@dataclass(frozen=True)
class ExaminedVolume(ExaminedPair):
    """A pair of volumes that was read.

    new_labels: the mask cannot be copied as it is. moved: its origin is not the image's. shifted: that of a channel is
    not the first's. voxel: size (z, y, x) of a stack's voxels, empty where none is told. lowest: value of the image.
    stack: a TIFF file. movie: one whose pages are times.
    """

    new_labels: bool = False
    moved: bool = False
    shifted: bool = False
    voxel: tuple[float, ...] = ()
    lowest: float = 0.0
    stack: bool = False
    movie: bool = False


@dataclass(frozen=True)
class Volume:
    """A file that was read. values (z, y, x). affine (4, 4), None for a stack."""

    path: Path
    values: np.ndarray
    affine: np.ndarray | None

    @property
    def is_stack(self) -> bool:
        return self.affine is None


def formats_differ(pairs: Sequence[Pair]) -> list[Problem]:
    """The problem of images in several formats."""
    kinds = Counter(written_ending(path) for pair in pairs for path in pair.images)
    if len(kinds) < 2:
        return []
    told = ", ".join(f"{number} {ending}" for ending, number in kinds.most_common())
    return [Problem("images of several formats", f"{told}; nnU-Net takes one for a dataset, so save them as one")]


def reader_of(pairs: Sequence[Pair]) -> Reader:
    """nnU-Net's reader for volumes of one format. For NIfTI the first image that trains decides between two."""
    first = min(pairs, key=lambda pair: (pair.part != TRAIN, pair.stem))
    ending = written_ending(first.image)
    # for .tif the reader of pictures would be asked first
    return known_reader("Tiff3DIO") if ending in TIFF else find_reader(None, ending, first.image)


def examine_volumes(
    pairs: Sequence[Pair], reader_name: str, n_labels: int, processes: int, console: Console | None
) -> list[ExaminedVolume]:
    """All pairs, each file read once, with a progress bar. n_labels: as in `to_labels`."""
    title, reader = "Checking volumes and masks", known_reader(reader_name)
    return for_each(lambda pair: examine_volume(pair, reader, n_labels), pairs, processes, title, console)


def examine_volume(pair: Pair, reader: Reader, n_labels: int) -> ExaminedVolume:
    """Reads the channels and the mask of a pair completely."""
    problems: list[Problem] = []
    digest = hashlib.sha256()
    first: Volume | None = None
    result = ExaminedVolume(pair, ())
    for path in pair.images:
        channel = read(path, reader, problems)
        if channel is None:
            return replace(result, problems=tuple(problems))
        if not np.isfinite(channel.values).all():
            problems.append(Problem("not a number", f"{path} holds NaN or infinite values"))
        digest.update(f"{channel.values.shape}".encode())
        digest.update(np.ascontiguousarray(channel.values).data)
        if first is None:
            first = channel
            result = replace(result, lowest=float(channel.values.min(initial=0)))
        else:
            problems += grids_differ(first, channel)
            result = replace(result, shifted=result.shifted or is_moved(first, channel))
    assert first is not None
    result = replace(result, digest=digest.hexdigest())
    if first.is_stack:
        movie, voxel = axes_of(pair.image).startswith("T"), size_of_voxels(pair, problems)
        result = replace(result, stack=True, movie=movie, voxel=voxel)
    if pair.mask is not None:
        result = examine_mask(result, pair.mask, first, reader, n_labels, problems)
    return replace(result, problems=tuple(problems))


def examine_mask(
    result: ExaminedVolume, path: Path, image: Volume, reader: Reader, n_labels: int, problems: list[Problem]
) -> ExaminedVolume:
    """The result, with what its mask holds."""
    if (written_ending(path) in TIFF) != image.is_stack:
        told = f"{path}, whose image is {image.path.name}: save both as stacks or neither"
        problems.append(Problem("mask of another kind", told))
        return result
    mask = read(path, reader, problems)
    if mask is None:
        return result
    different = grids_differ(image, mask)
    problems += different
    values = narrowed(mask.values)
    try:
        labels = to_labels(values, n_labels)
    except MaskError as error:
        several = n_labels == 2 and values.dtype == np.uint8 and 1 < values.max() < 255
        hint = f"; if these are labels, name all {values.max()} with --labels" if several else ""
        problems.append(Problem("unexpected mask", f"{path} {error}{hint}"))
        return result
    stays = (
        written_ending(path) == written_ending(image.path)
        and not is_float(path, mask.values)
        and np.array_equal(labels, values)
        and (image.affine is None or mask.affine is None or np.allclose(image.affine, mask.affine, 1e-6, 1e-6))
    )
    return replace(
        result,
        labels=frozenset(map(int, distinct(labels))),
        moved=not different and is_moved(image, mask),
        new_labels=not stays,
    )


def read(path: Path, reader: Reader, problems: list[Problem]) -> Volume | None:
    """A volume, or None and one more problem."""
    try:
        return Volume(path, *read_volume(path, reader))
    except VolumeError as error:
        problems.append(Problem("unexpected volume", f"{path} {error}"))
    except MemoryError:
        problems.append(Problem("too large", f"{path} does not fit into this machine's memory"))
    except Exception as error:  # ITK has its own exceptions, and so has every other library
        if is_nifti(path) and is_sheared_file(path):
            told = "its axes are not at right angles (shear); resample image and mask onto a straight grid"
            problems.append(Problem("not for nnU-Net's reader", f"{path}: {reader.__name__} cannot read it: {told}"))
        else:
            size = path.stat().st_size if path.exists() else 0
            problems.append(Problem("unreadable or cut off", f"{path} ({size} bytes): {reason_of(error)}"))
    return None


def is_sheared_file(path: Path) -> bool:
    """True for a NIfTI file that can be read and whose axes are not at right angles."""
    try:
        return is_sheared(load_nifti(path).affine)
    except Exception:  # the file may be of anything
        return False


def grids_differ(image: Volume, other: Volume) -> list[Problem]:
    """The problem of two volumes whose voxels are not the same places."""
    here, there = image.values.shape, other.values.shape
    if here != there:
        told = f"{image.path} {sizes(here)}, {other.path} {sizes(there)}"
        return [Problem("sizes differ (x, y, z)", told)]
    if image.affine is None or other.affine is None:
        return []
    if np.abs(image.affine[:3, :3] - other.affine[:3, :3]).max() <= TOLERANCE * finest(image.affine):
        return []
    told = f"{image.path} {spacing(image.affine)}, {other.path} {spacing(other.affine)}"
    return [Problem("spacing or orientation differ", told)]


def is_moved(image: Volume, other: Volume) -> bool:
    """True if two volumes begin at different places."""
    if image.affine is None or other.affine is None:
        return False
    return bool(np.abs(image.affine[:3, 3] - other.affine[:3, 3]).max() > TOLERANCE * finest(image.affine))


def finest(affine: np.ndarray) -> float:
    """The smallest size of a voxel."""
    return float(np.linalg.norm(affine[:3, :3], axis=0).min())


def sizes(shape: Sequence[int]) -> str:
    """`512x512x90` of an array (z, y, x)."""
    return "x".join(map(str, shape[::-1]))


def size_of_voxels(pair: Pair, problems: list[Problem]) -> tuple[float, ...]:
    """Size (z, y, x) of a stack's voxels, from a file beside the image or beside the mask; empty if there is none."""
    told: dict[tuple[float, ...], Path] = {}
    for path in (pair.image,) if pair.mask is None else (pair.image, pair.mask):
        try:
            if size := voxel_size(path):
                told.setdefault(size, path)
        except VolumeError as error:
            problems.append(Problem("unexpected size of voxels", f"{path}: {error}"))
    if len(told) > 1:
        detail = ", ".join(f"{path} {'x'.join(f'{s:g}' for s in size)}" for size, path in told.items())
        problems.append(Problem("spacing or orientation differ", detail))
    return next(iter(told), ())
