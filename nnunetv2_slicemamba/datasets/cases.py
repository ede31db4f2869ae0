"""A case of the new dataset: the files that it comes from and those that it becomes."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

# bytes; file names have at most 255, and channel numbers, endings and names of unfinished files come on top
LONGEST = 180
ENDING = {"image": ".png", "nifti": ".nii.gz", "npz": ".nii.gz", "h5": ".nii.gz"}
# kinds whose images have a file per channel
BY_CHANNEL = ("image", "volume")


_OF_ALL = ("name", "subset", "kind", "images", "mask")


@dataclass(frozen=True)
class Case:
    """One image or scan with its labels.

    subset: Tr or Ts. kind: image (written as png), volume (of one's own), nifti, npz or h5. images: the source, several
    for npz slices and for channels in files of their own. mask: None for h5 and npz, which hold their labels, and for
    test cases without truth.

    Of a volume only, ending: of its new files. new_labels: the mask cannot be copied as it is. voxel: size (z, y, x) of
    voxels where the files cannot hold it.
    """

    name: str
    subset: str
    kind: str
    images: tuple[str, ...]
    mask: str | None
    ending: str = ""
    new_labels: bool = False
    voxel: tuple[float, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """Paths of images and, where there is truth, labels, relative to the dataset's folder."""
        ending = self.ending or ENDING[self.kind]
        channels = len(self.images) if self.kind in BY_CHANNEL else 1
        images = tuple(f"images{self.subset}/{self.name}_{channel:04d}{ending}" for channel in range(channels))
        has_labels = self.mask is not None or self.kind in ("npz", "h5")
        return (*images, f"labels{self.subset}/{self.name}{ending}") if has_labels else images

    def as_json(self) -> dict[str, Any]:
        """Plain values; of a volume only, what only volumes have."""
        values = asdict(self)
        return values if self.kind == "volume" else {key: values[key] for key in _OF_ALL}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Case:
        return cls(**{**values, "images": tuple(values["images"]), "voxel": tuple(values.get("voxel", ()))})


@dataclass(frozen=True)
class Rules:
    """The way from sources to targets, the same for all cases of a dataset.

    resize: (H, W) or None for native size. n_labels: background included. grey: write one channel. mapping: source
    label -> target label of volumes, or None to keep them. reader: name of nnU-Net's, of one's own volumes.
    """

    resize: tuple[int, int] | None = None
    n_labels: int = 2
    grey: bool = False
    mapping: tuple[tuple[int, int], ...] | None = None
    reader: str = ""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Rules:
        resize, mapping = values["resize"], values["mapping"]
        return cls(
            None if resize is None else (resize[0], resize[1]),
            values["n_labels"],
            values["grey"],
            None if mapping is None else tuple((a, b) for a, b in mapping),
            values.get("reader", ""),
        )


def safe_name(stem: str) -> str:
    """`stem` with _ for all but letters and digits of any script, - and _, and for a - in front: shells read options.

    A name of more than `LONGEST` bytes is cut.
    """
    kept = (c if c in "-_" or unicodedata.category(c)[0] in "LMN" else "_" for c in unicodedata.normalize("NFC", stem))
    name = "".join(kept).encode()[:LONGEST].decode(errors="ignore")
    return f"_{name[1:]}" if name.startswith("-") else name


def safe_names(stems: Iterable[str]) -> dict[str, str]:
    """stem -> safe name, no two of them the same, nor the same on a file system that ignores case.

    Where safe names are the same, the beginning of each stem's SHA-256 is appended.
    """
    names = {stem: safe_name(stem) for stem in stems}
    times = Counter(name.casefold() for name in names.values())
    return {
        stem: name
        if times[name.casefold()] == 1
        else f"{name}_{hashlib.sha256(stem.encode(errors='surrogateescape')).hexdigest()[:8]}"
        for stem, name in names.items()
    }
