"""A conversion as the user asks for it, before its source has been looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.datasets.splits import PUBLISHED, SplitChoice


@dataclass(frozen=True)
class Request:
    """The arguments and options of `slicemamba convert`.

    key: the converter's. sources: one folder, or for `folders` those of the images, one per channel, and that of the
    masks. name: follows DatasetXXX_, None for the converter's. resize: (H, W) or None. train: "joint" or "own", for the
    polyp benchmark. organs: 8 or 13, for synapse.

    For `folders`: labels and channels are names of the foreground labels and of the channels. test_images: folders as
    those of the images. test_masks: None where the truth is not at hand.
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
    channels: tuple[str, ...] = ()
    test_images: tuple[Path, ...] = ()
    test_masks: Path | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders that are read."""
        return (*self.sources, *self.test_images, *(() if self.test_masks is None else (self.test_masks,)))

    def as_json(self) -> dict[str, Any]:
        """Plain values; the folders as absolute paths. Later versions' options only where they were given."""
        values = asdict(self)
        values["split"] = self.split.as_json()
        values["sources"] = [str(path.resolve()) for path in self.sources]
        values["channels"] = list(self.channels)
        values["test_images"] = [str(path.resolve()) for path in self.test_images]
        values["test_masks"] = None if self.test_masks is None else str(self.test_masks.resolve())
        for key in ("channels", "test_images", "test_masks"):
            if not values[key]:
                del values[key]
        values["resize"] = None if self.resize is None else list(self.resize)
        values["labels"] = list(self.labels)
        return values
