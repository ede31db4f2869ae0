"""Finding the cases of Synapse's multi-organ CT: NIfTI volumes, or TransUNet's preprocessed npz and h5 files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_slicemamba.datasets.problems import Problem, count
from nnunetv2_slicemamba.datasets.published import SYNAPSE_SLICES, SYNAPSE_TEST

NIFTI = re.compile(r"(img|label)(\d{4})\.nii(\.gz)?", re.IGNORECASE)
SLICE = re.compile(r"case(\d{4})_slice(\d{3})\.npz")
VOLUME = re.compile(r"case(\d{4})\.npy\.h5")
# BTCV's 20 test scans come without labels
UNLABELLED = range(61, 81)


@dataclass(frozen=True)
class Volume:
    """One scan. number: BTCV's. kind: nifti, npz or h5. images: one file, or the slices of a scan in order."""

    number: int
    kind: str
    images: tuple[Path, ...]
    mask: Path | None = None

    @property
    def name(self) -> str:
        return f"case{self.number:04d}"


@dataclass
class FoundVolumes:
    """layout: nifti or preprocessed. search: numbers of the scans of which the published search has slices."""

    layout: str
    volumes: list[Volume] = field(default_factory=list)
    test: set[int] = field(default_factory=set)
    search: set[int] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_volumes(source: Path) -> FoundVolumes:
    """The scans in `source`, at any depth. Raises ValueError if there are none, or both layouts."""
    files = sorted(path for path in source.rglob("*") if path.is_file() and not path.name.startswith("."))
    nifti = [path for path in files if NIFTI.fullmatch(path.name)]
    preprocessed = [path for path in files if SLICE.fullmatch(path.name) or VOLUME.fullmatch(path.name)]
    if nifti and preprocessed:
        raise ValueError(
            f"{source} holds NIfTI volumes ({nifti[0]}) as well as preprocessed ones ({preprocessed[0]}); "
            "name the folder of one kind as the source"
        )
    if nifti:
        return nifti_volumes(nifti)
    if preprocessed:
        return preprocessed_volumes(files)
    raise ValueError(
        f"{source} holds no scans; expected img0001.nii.gz and label0001.nii.gz, or train_npz and test_vol_h5 with "
        "case0005_slice000.npz and case0001.npy.h5"
    )


def nifti_volumes(files: Iterable[Path]) -> FoundVolumes:
    found = FoundVolumes("nifti", test=set(SYNAPSE_TEST))
    named: dict[str, dict[int, Path]] = {"img": {}, "label": {}}
    for path in files:
        match = NIFTI.fullmatch(path.name)
        assert match is not None
        kind, number = match[1].lower(), int(match[2])
        if number in named[kind]:
            found.problems.append(Problem("duplicate name", f"{named[kind][number]} and {path}"))
        named[kind].setdefault(number, path)
    left_out = 0
    for number, image in sorted(named["img"].items()):
        if number in named["label"]:
            found.volumes.append(Volume(number, "nifti", (image,), named["label"][number]))
        elif number in UNLABELLED:
            left_out += 1
        else:
            found.problems.append(Problem("image without labels", f"{image}"))
    found.problems += [
        Problem("labels without image", f"{label}")
        for number, label in sorted(named["label"].items())
        if number not in named["img"]
    ]
    if left_out:
        found.notes.append(f"{count(left_out, 'scan')} without labels (BTCV's own test set) left out")
    return found


def preprocessed_volumes(files: list[Path]) -> FoundVolumes:
    """Scans from slices and volumes; a scan that is there in both forms is taken as a volume."""
    found = FoundVolumes("preprocessed")
    slices: dict[int, dict[int, Path]] = {}
    searched: dict[int, set[int]] = {}
    volumes: dict[int, Path] = {}
    for path in files:
        if (match := SLICE.fullmatch(path.name)) is not None:
            number, index = int(match[1]), int(match[2])
            if "search" in path.parent.name.lower():
                searched.setdefault(number, set()).add(index)
                continue
            place = slices.setdefault(number, {})
            if index in place:
                found.problems.append(Problem("duplicate name", f"{place[index]} and {path}"))
            place.setdefault(index, path)
        elif (match := VOLUME.fullmatch(path.name)) is not None:
            number = int(match[1])
            if number in volumes:
                found.problems.append(Problem("duplicate name", f"{volumes[number]} and {path}"))
            volumes.setdefault(number, path)
    listed_train = listed(files, "train.txt")
    listed_test = {int(match[1]) for name in listed(files, "test_vol.txt") if (match := re.match(r"case(\d{4})", name))}
    found.test = listed_test or {number for number in volumes if number in SYNAPSE_TEST or number not in slices}
    both = sorted(set(slices) & set(volumes))
    if both:
        found.notes.append(f"{count(len(both), 'scan')} there as slices and as volume: the volume is taken")
    for number, place in sorted(slices.items()):
        if number in volumes:
            continue
        absent = missing_slices(number, set(place), listed_train)
        if absent:
            shown = ", ".join(f"{index:03d}" for index in absent[:8]) + (", ..." if len(absent) > 8 else "")
            found.problems.append(
                Problem("slices missing", f"case{number:04d}: {len(place)} there, {len(absent)} missing ({shown})")
            )
        found.volumes.append(Volume(number, "npz", tuple(place[index] for index in sorted(place))))
    found.volumes += [Volume(number, "h5", (path,)) for number, path in sorted(volumes.items())]
    found.volumes.sort(key=lambda volume: volume.number)
    there = {volume.number for volume in found.volumes}
    wanted = {int(name[4:8]) for name in listed_train} | listed_test
    found.problems += [Problem("listed, but not there", f"case{number:04d}") for number in sorted(wanted - there)]
    note_search(found, searched)
    return found


def missing_slices(number: int, there: set[int], listed_train: set[str]) -> list[int]:
    """Slices that a scan should have: as the list file names them, else as published, else without gaps."""
    names = {int(name[14:17]) for name in listed_train if name.startswith(f"case{number:04d}_slice")}
    wanted = names or set(range(SYNAPSE_SLICES.get(number, max(there) + 1)))
    # a list of some slices cannot make up a volume either
    wanted |= set(range(max(wanted | there) + 1))
    return sorted(wanted - there)


def listed(files: list[Path], name: str) -> set[str]:
    """The entries of all list files of one name."""
    lines = [line.strip() for path in files if path.name == name for line in path.read_text().splitlines()]
    return {line for line in lines if re.fullmatch(r"case\d{4}(_slice\d{3})?", line)}


def note_search(found: FoundVolumes, searched: dict[int, set[int]]) -> None:
    """Says what a search_npz folder holds; whole scans of it can validate, single slices cannot."""
    if not searched:
        return
    total = sum(len(indices) for indices in searched.values())
    text = f"search_npz: {total} slices of {count(len(searched), 'scan')}"
    train = {volume.number for volume in found.volumes} - found.test
    held_out = sorted(set(searched) & found.test)
    if held_out:
        names = ", ".join(f"case{number:04d}" for number in held_out)
        found.notes.append(f"{text}, among them the test scans {names}: not used, so that the test set stays unseen")
    elif set(searched) < train:
        found.search = set(searched)
        found.notes.append(f"{text}, which train too: a fold validates on these scans as a whole instead")
    else:
        found.notes.append(f"{text}, spread over all training scans: no fold of whole scans can validate on them")
