"""The base of all converters: a dataset's facts, and its dataset.json."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.console import Console

from nnunetv2_slicemamba import __version__
from nnunetv2_slicemamba.common.dataset_names import dataset_folder_name
from nnunetv2_slicemamba.datasets.cases import Case
from nnunetv2_slicemamba.datasets.conversion import Conversion
from nnunetv2_slicemamba.datasets.layouts import Layout
from nnunetv2_slicemamba.datasets.request import Request


@dataclass(frozen=True, kw_only=True)
class Converter(ABC):
    """One dataset that `slicemamba convert` knows.

    key: its NAME on the command line. name: follows DatasetXXX_. layouts: those in which people have its files. home:
    where to get it. licence: terms of use. reference: publications. split: what `--split published` does. place:
    position in lists, by key among equal ones; the SliceMamba paper's datasets come first, one's own folders last.
    """

    key: str
    name: str
    layouts: tuple[Layout, ...]
    home: str
    licence: str
    reference: str
    split: str
    place: int = 100

    # files of the target; reader: nnU-Net's, where it would not choose the right one by itself
    file_ending: ClassVar[str]
    reader: ClassVar[str | None] = None
    # files that are worked on at once, unless the user says otherwise
    files_at_once: ClassVar[int]
    # options: --resize; --images and --masks in place of a source, and --labels
    resizable: ClassVar[bool] = False
    two_folders: ClassVar[bool] = False

    @property
    def has_videos(self) -> bool:
        """True if `--split by-sequence` can keep videos apart."""
        return False

    @abstractmethod
    def prepare(self, request: Request, processes: int, console: Console | None) -> Conversion:
        """Everything that will be written, after the whole source was read; nothing is written yet.

        console: for progress bars. Raises ValueError that lists every problem of the source at once.
        """

    def complete_counts(self, request: Request, layout: str) -> Mapping[str, int]:
        """Number of images or scans per part in the complete source, for the parts for which it is known."""
        return next((one.counts for one in self.layouts if one.name == layout), {})

    def dataset_name(self, request: Request) -> str:
        """DatasetXXX_NAME."""
        return dataset_folder_name(request.dataset_id, request.name or self.name)

    def dataset_json(
        self,
        request: Request,
        layout: str,
        channels: Mapping[str, str],
        labels: Mapping[str, int],
        cases: Sequence[Case],
        notes: Sequence[str],
        file_ending: str | None = None,
        reader: str | None = None,
    ) -> dict[str, Any]:
        """dataset.json: what nnU-Net needs, the images' origin and terms, and how they were divided.

        file_ending, reader: where they are not the same for all sources of this converter.
        """
        values: dict[str, Any] = {
            "channel_names": dict(channels),
            "labels": dict(labels),
            "numTraining": sum(case.subset == "Tr" for case in cases),
            "file_ending": file_ending or self.file_ending,
        }
        if reader := reader or self.reader:
            values["overwrite_image_reader_writer"] = reader
        return values | {
            "name": request.name or self.name,
            "reference": self.reference,
            "licence": self.licence,
            "source": self.home,
            "layout": layout,
            "split": str(request.split),
            "size": "native" if request.resize is None else f"resized to {request.resize[0]}x{request.resize[1]} (HxW)",
            "notes": list(notes),
            "converted_by": f"slicemamba convert {__version__}",
        }
