"""A conversion as the user asks for it, before its source has been looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.datasets.splits import PUBLISHED, SplitChoice


@dataclass(frozen=True)
class Request:
    """The arguments and options of `slicemamba convert`.

    key: the converter's. sources: one folder, or for `folders` that of the images and that of the masks. name: follows
    DatasetXXX_, None for the converter's. resize: (H, W) or None. train: "joint" or "own", for the polyp benchmark.
    organs: 8 or 13, for synapse. labels: names of the foreground labels, for `folders`.
    """

    key: str
    sources: tuple[Path, ...]
    dataset_id: int
    split: SplitChoice = PUBLISHED
    name: str | None = None
    resize: tuple[int, int] | None = None
    train: str = "joint"
    organs: int = 8
    labels: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values; the sources as absolute paths."""
        values = asdict(self)
        values["sources"] = [str(path.resolve()) for path in self.sources]
        values["resize"] = None if self.resize is None else list(self.resize)
        values["labels"] = list(self.labels)
        return values
