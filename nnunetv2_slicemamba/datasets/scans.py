"""The scans of a source of volumes: their files, and what reading each gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_slicemamba.datasets.problems import Problem


@dataclass(frozen=True)
class Scan:
    """One scan. kind: nifti, npz or h5. images: one file, or the slices in order. mask: None where they hold labels."""

    name: str
    kind: str
    images: tuple[Path, ...]
    mask: Path | None = None


@dataclass
class FoundScans:
    """The scans of a source, by name, and what is wrong with it or worth knowing.

    layout: its name, as in dataset.json. test: names of the published test scans. own_test: the source keeps them
    apart, so that no split trains on them. search: names of the scans on which the published search measures. files:
    those that were understood, whether they become scans or problems and notes speak of them.
    """

    layout: str
    scans: list[Scan] = field(default_factory=list)
    test: set[str] = field(default_factory=set)
    own_test: bool = False
    search: set[str] = field(default_factory=set)
    files: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ExaminedScan:
    """A scan that was read. voxels: number of voxels by label. moved: the labels' origin differs from the image's."""

    scan: Scan
    problems: tuple[Problem, ...]
    voxels: tuple[int, ...] = ()
    moved: bool = False
