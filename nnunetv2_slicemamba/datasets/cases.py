"""One case of the target: where it comes from, and how its two files are written."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunetv2_slicemamba.datasets.masks import read_labels
from nnunetv2_slicemamba.datasets.orientation import as_its_mask
from nnunetv2_slicemamba.datasets.volumes import map_labels, read_h5, read_npz, write_labels_like, write_volume

# nnU-Net decodes an image many times and writes it once: little compression is enough
PNG_LEVEL = 3
ENDING = {"image": ".png", "nifti": ".nii.gz", "npz": ".nii.gz", "h5": ".nii.gz"}


@dataclass(frozen=True)
class Case:
    """kind: image (png), nifti, npz or h5. subset: Tr or Ts. images: the source, several for npz slices.

    mask: None for h5 and npz, which hold their labels, and for test cases without truth.
    """

    name: str
    subset: str
    kind: str
    images: tuple[str, ...]
    mask: str | None

    @property
    def sources(self) -> tuple[Path, ...]:
        return tuple(map(Path, self.images)) + ((Path(self.mask),) if self.mask else ())

    @property
    def targets(self) -> tuple[str, ...]:
        """Paths of image and, where there is truth, labels, relative to the dataset's folder."""
        ending = ENDING[self.kind]
        image = f"images{self.subset}/{self.name}_0000{ending}"
        has_labels = self.mask is not None or self.kind in ("npz", "h5")
        return (image, f"labels{self.subset}/{self.name}{ending}") if has_labels else (image,)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Case:
        return cls(**{**values, "images": tuple(values["images"])})


@dataclass(frozen=True)
class Rules:
    """How sources become targets. resize: (H, W) or None for native size. n_labels: background included.

    grey: write one channel. mapping: source label -> target label of volumes, or None to keep them.
    """

    resize: tuple[int, int] | None = None
    n_labels: int = 2
    grey: bool = False
    mapping: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Rules:
        resize, mapping = values["resize"], values["mapping"]
        return cls(
            None if resize is None else (resize[0], resize[1]),
            values["n_labels"],
            values["grey"],
            None if mapping is None else tuple((a, b) for a, b in mapping),
        )


def safe_name(stem: str) -> str:
    """`stem` with everything but letters, digits, - and _ replaced by _, as file names and shells like it."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", stem)


def write_case(case: Case, folder: Path, rules: Rules) -> None:
    """Writes image and labels of one case below the dataset's folder, each under its name only once complete."""
    targets = [folder / target for target in case.targets]
    if case.kind == "image":
        mask = None if case.mask is None else Path(case.mask)
        atomically(targets[0], lambda part: write_image(Path(case.images[0]), mask, part, rules))
        if mask is not None:
            atomically(targets[1], lambda part: write_mask(mask, part, rules))
    elif case.kind == "nifti":
        source = Path(case.images[0])
        atomically(targets[0], lambda part: copy_nifti(source, part))
        if case.mask is not None:
            labels = Path(case.mask)
            atomically(targets[1], lambda part: write_labels_like(labels, source, part, rules.mapping))
    else:
        image, label = read_npz(list(map(Path, case.images))) if case.kind == "npz" else read_h5(Path(case.images[0]))
        atomically(targets[0], lambda part: write_volume(image.astype(np.float32), part))
        atomically(targets[1], lambda part: write_volume(map_labels(label, rules.mapping), part))


def atomically(target: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary path beside `target` and renames the result."""
    # nnU-Net lists files by their ending, and nibabel chooses the format by it
    part = target.with_name(f".part_{os.getpid()}_{target.name}")
    try:
        write(part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def write_image(source: Path, mask: Path | None, target: Path, rules: Rules) -> None:
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


def write_mask(source: Path, target: Path, rules: Rules) -> None:
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


def copy_nifti(source: Path, target: Path) -> None:
    """A copy with the source's header; .nii is compressed on the way."""
    if source.name.endswith(".gz"):
        shutil.copyfile(source, target)
        return
    import nibabel

    nibabel.save(nibabel.load(source), target)
