"""The base of converters of volumes: scans found and read, their labels numbered, and divided as asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.console import Console

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.datasets.cases import Case, Rules
from nnunetv2_slicemamba.datasets.conversion import Conversion
from nnunetv2_slicemamba.datasets.converter import Converter
from nnunetv2_slicemamba.datasets.problems import count_notes, describe
from nnunetv2_slicemamba.datasets.request import Request
from nnunetv2_slicemamba.datasets.scans import ExaminedScan, FoundScans
from nnunetv2_slicemamba.datasets.source_files import left_out
from nnunetv2_slicemamba.datasets.splits import Split, drawn_split, parts_split


@dataclass(frozen=True)
class Numbering:
    """The labels that are written. labels: name -> number, background 0. mapping: number in the source -> number that
    is written, None to keep them; what it does not name becomes background.
    """

    labels: Mapping[str, int]
    mapping: tuple[tuple[int, int], ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VolumeConverter(Converter):
    """A dataset of scans. highest_label: highest number that the labels of a source may hold."""

    highest_label: int

    file_ending: ClassVar[str] = ".nii.gz"
    # a scan takes a few hundred MB while it is worked on
    files_at_once: ClassVar[int] = 4

    @abstractmethod
    def find(self, source: Path) -> FoundScans:
        """All scans of the source, not yet opened; `prepare` refuses a source without any."""

    @abstractmethod
    def number_labels(self, request: Request, layout: str, examined: Sequence[ExaminedScan]) -> Numbering:
        """The labels to write. ValueError where the source lacks some that were asked for."""

    @abstractmethod
    def channel_names(self, layout: str) -> dict[str, str]:
        """dataset.json's channel_names, by which nnU-Net chooses the normalisation."""

    def prepare(self, request: Request, processes: int, console: Console | None) -> Conversion:
        # numpy is slow to import, and lists of the converters do without
        from nnunetv2_slicemamba.datasets.volume_checks import examine_scans

        found = self.find(request.sources[0])
        if not found.scans and not found.problems:
            expected = "; or ".join(layout.words for layout in self.layouts)
            raise ValueError(f"{request.sources[0]} holds no scan with labels of {self.key}; expected {expected}")
        split = choose_split(request, found)
        training = {scan.name for scan in found.scans} - split.test
        examined = examine_scans(found.scans, training, self.highest_label, processes, console)
        unused = left_out(request.sources, found.files)
        problems = [*found.problems, *(problem for one in examined for problem in one.problems)]
        if problems:
            raise ValueError(describe(problems, str(request.sources[0]), unused))
        numbering = self.number_labels(request, found.layout, examined)
        notes = (
            *found.notes,
            *numbering.notes,
            *origin_notes(examined),
            *count_notes(part_sizes(found), self.complete_counts(request, found.layout), "scans"),
            *split.notes,
        )
        cases = tuple(
            Case(
                scan.name,
                "Ts" if scan.name in split.test else "Tr",
                scan.kind,
                tuple(str(path.resolve()) for path in scan.images),
                None if scan.mask is None else str(scan.mask.resolve()),
            )
            for scan in found.scans
        )
        channels = self.channel_names(found.layout)
        return Conversion(
            cases,
            Rules(None, len(numbering.labels), mapping=numbering.mapping),
            split.folds,
            self.dataset_json(request, found.layout, channels, numbering.labels, cases, notes),
            notes,
            unused,
        )


def choose_split(request: Request, found: FoundScans) -> Split:
    """The split that was asked for; a test set that the source keeps apart is held out whatever was asked for."""
    held_out = found.test if found.own_test or request.split.kind == "published" else set()
    test = [scan.name for scan in found.scans if scan.name in held_out]
    train = [scan.name for scan in found.scans if scan.name not in held_out]
    if request.split.kind == "published":
        return parts_split({"train": train, "test": test}, [s.name for s in found.scans if s.name in found.search])
    return drawn_split(request.split, train, frozenset(test))


def part_sizes(found: FoundScans) -> dict[str, int]:
    """Number of scans that the publications train on, and test on."""
    test = sum(scan.name in found.test for scan in found.scans)
    return {"train": len(found.scans) - test, "test": test}


def origin_notes(examined: Sequence[ExaminedScan]) -> list[str]:
    """A note of labels that lie elsewhere than their image."""
    moved = sum(one.moved for one in examined)
    note = f"{count(moved, 'label file')} with another origin than the image: the image's is written"
    return [note] if moved else []
