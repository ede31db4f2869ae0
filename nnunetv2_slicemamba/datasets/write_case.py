"""Image and label files of one case, written below the dataset's folder."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from nnunetv2_slicemamba.datasets.cases import Case, Rules
from nnunetv2_slicemamba.datasets.masks import read_labels
from nnunetv2_slicemamba.datasets.orientation import as_its_mask
from nnunetv2_slicemamba.datasets.part_files import write_whole
from nnunetv2_slicemamba.datasets.source_files import TIFF
from nnunetv2_slicemamba.datasets.stacks import write_voxel_size
from nnunetv2_slicemamba.datasets.volume_files import copy_volume, write_labels
from nnunetv2_slicemamba.datasets.volumes import (
    copy_nifti,
    map_labels,
    read_h5,
    read_npz,
    write_labels_like,
    write_volume,
)

# nnU-Net decodes an image many times and writes it once: little compression is enough
PNG_LEVEL = 3


def write_case(case: Case, folder: Path, rules: Rules) -> None:
    """Writes image and labels, each under its name only once it is complete."""
    targets = [folder / target for target in case.targets]
    if case.kind == "image":
        mask = None if case.mask is None else Path(case.mask)
        for source, target in zip(case.images, targets, strict=False):
            write_whole(target, functools.partial(write_image, Path(source), mask, rules))
        if mask is not None:
            write_whole(targets[-1], functools.partial(write_mask, mask, rules))
    elif case.kind == "volume":
        write_own_volume(case, targets, rules)
    elif case.kind == "nifti":
        image = Path(case.images[0])
        write_whole(targets[0], lambda part: copy_nifti(image, part))
        if case.mask is not None:
            labels = Path(case.mask)
            write_whole(targets[1], lambda part: write_labels_like(labels, image, part, rules.mapping))
    else:
        volume, label = read_npz(list(map(Path, case.images))) if case.kind == "npz" else read_h5(Path(case.images[0]))
        write_whole(targets[0], lambda part: write_volume(volume.astype(np.float32), part))
        write_whole(targets[1], lambda part: write_volume(map_labels(label, rules.mapping), part))


def write_own_volume(case: Case, targets: Sequence[Path], rules: Rules) -> None:
    """A copy of each channel, and of the mask, or its labels in the image's grid where it cannot be copied."""
    if case.ending in TIFF:
        # nnU-Net looks for it under the case's name beside images and beside labels
        for target in {target.with_name(f"{case.name}.json") for target in targets}:
            write_whole(target, functools.partial(write_voxel_size, case.voxel or (1.0, 1.0, 1.0)))
    for source, target in zip(case.images, targets, strict=False):
        write_whole(target, functools.partial(copy_volume, Path(source)))
    if case.mask is None:
        return
    if case.new_labels:
        write_whole(targets[-1], functools.partial(write_labels, Path(case.mask), Path(case.images[0]), rules))
    else:
        write_whole(targets[-1], functools.partial(copy_volume, Path(case.mask)))


def write_image(source: Path, mask: Path | None, rules: Rules, target: Path) -> None:
    """The image upright, of one channel or of three; resized, its pixels are averaged."""
    mask_size = None
    if mask is not None:
        with Image.open(mask) as opened:
            mask_size = opened.size
    with Image.open(source) as opened:
        image = as_its_mask(opened, mask_size).convert("L" if rules.grey else "RGB")
    if rules.resize is not None:
        height, width = rules.resize
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    image.save(target, format="PNG", compress_level=PNG_LEVEL)


def write_mask(source: Path, rules: Rules, target: Path) -> None:
    """Labels; resized, a binary mask is averaged and cut at one half, a label map takes the nearest pixel."""
    labels = Image.fromarray(read_labels(source, rules.n_labels))
    if rules.resize is not None:
        height, width = rules.resize
        if rules.n_labels > 2:
            labels = labels.resize((width, height), Image.Resampling.NEAREST)
        else:
            soft = labels.point(lambda value: 255 * value).resize((width, height), Image.Resampling.BILINEAR)
            labels = soft.point(lambda value: int(value > 127))
    labels.save(target, format="PNG", compress_level=PNG_LEVEL)
