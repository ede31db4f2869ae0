"""Synapse's multi-organ CT: BTCV's NIfTI volumes, or the npz slices and h5 volumes of TransUNet's preprocessing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.text_files import read_text
from nnunetv2_slicemamba.datasets.layouts import Layout
from nnunetv2_slicemamba.datasets.problems import Problem
from nnunetv2_slicemamba.datasets.request import Request
from nnunetv2_slicemamba.datasets.scans import ExaminedScan, FoundScans, Scan
from nnunetv2_slicemamba.datasets.source_files import files_below
from nnunetv2_slicemamba.datasets.volume_converter import Numbering, VolumeConverter

NIFTI = re.compile(r"(img|label)(\d{4})\.nii(\.gz)?", re.IGNORECASE | re.ASCII)
SLICE = re.compile(r"case(\d{4})_slice(\d{3})\.npz", re.ASCII)
VOLUME = re.compile(r"case(\d{4})\.npy\.h5", re.ASCII)
ENTRY = re.compile(r"case\d{4}(_slice\d{3})?", re.ASCII)
# BTCV's 20 test scans come without labels
UNLABELLED = range(61, 81)
NO_SPACING = (
    "the preprocessed files have neither spacing nor orientation: 1 x 1 x 1 is written, so distances measured on "
    "them are in voxels, and the plans treat slices as if they lay one pixel apart"
)
RENUMBERED = "the labels are BTCV's 13, renumbered to eight organs in TransUNet's order"

# BTCV's numbers of the 12 test scans, and the slices of the 18 training scans, in TransUNet-style work. Read from
# repository Beckschen/TransUNet, lists/lists_Synapse/test_vol.txt and train.txt (2,211 slices), commit ee8acce.
TEST = frozenset({1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38})
# fmt: off
SLICES = {
    5: 117, 6: 131, 7: 163, 9: 149, 10: 148, 21: 143, 23: 96, 24: 124, 26: 131,
    27: 88, 28: 89, 30: 153, 31: 93, 33: 104, 34: 98, 37: 99, 39: 90, 40: 195,
}
# fmt: on

# BTCV's own numbering (MICCAI 2015 multi-atlas abdomen challenge), as in MONAI's BTCV model card.
BTCV_LABELS = {
    "background": 0,
    "spleen": 1,
    "right_kidney": 2,
    "left_kidney": 3,
    "gallbladder": 4,
    "esophagus": 5,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "inferior_vena_cava": 9,
    "portal_and_splenic_vein": 10,
    "pancreas": 11,
    "right_adrenal_gland": 12,
    "left_adrenal_gland": 13,
}
# The numbers in TransUNet's preprocessed files, in the order of the columns that such work reports. The authors'
# repository does not name them; tljxyys/Perspective-Unet, issue 4, and several data loaders do.
ORGAN_LABELS = {
    "background": 0,
    "aorta": 1,
    "gallbladder": 2,
    "left_kidney": 3,
    "right_kidney": 4,
    "liver": 5,
    "pancreas": 6,
    "spleen": 7,
    "stomach": 8,
}
# BTCV's number -> the organ's number among the eight; the other five become background
TO_EIGHT_ORGANS = {BTCV_LABELS[name]: number for name, number in ORGAN_LABELS.items()}


class SynapseConverter(VolumeConverter):
    """The converter of Synapse's scans; `--organs` chooses between eight labels and BTCV's 13."""

    def find(self, source: Path) -> FoundScans:
        return find_scans(source)

    def number_labels(self, request: Request, layout: str, examined: Sequence[ExaminedScan]) -> Numbering:
        is_btcv = layout == "nifti" or has_btcv_labels(examined)
        if request.organs == 13 and not is_btcv:
            raise ValueError(
                f"{request.sources[0]} holds the labels of eight organs only; --organs 13 needs all 13 of BTCV"
            )
        renumbered = request.organs == 8 and is_btcv
        notes = [RENUMBERED] if renumbered else []
        if layout == "preprocessed":
            notes.append(NO_SPACING)
            if not is_btcv and (doubt := doubtful_order(examined)) is not None:
                notes.append(doubt)
        labels = ORGAN_LABELS if request.organs == 8 else BTCV_LABELS
        return Numbering(labels, tuple(TO_EIGHT_ORGANS.items()) if renumbered else None, tuple(notes))

    def channel_names(self, layout: str) -> dict[str, str]:
        # nnU-Net's normalisation for "CT" expects Hounsfield units
        return {"0": "CT" if layout == "nifti" else "clipped_CT"}


CONVERTER = SynapseConverter(
    key="synapse",
    name="Synapse",
    layouts=(
        Layout(
            "nifti",
            "img0001.nii.gz and label0001.nii.gz in any folders (BTCV, RawData/Training/{img,label})",
            {"train": 18, "test": 12},
        ),
        Layout(
            "preprocessed",
            "train_npz/case0005_slice000.npz, test_vol_h5/case0001.npy.h5, lists/ (TransUNet's preprocessed)",
            {"train": 18, "test": 12},
        ),
    ),
    home="synapse.org, syn3193805",
    licence="by registration at Synapse; TransUNet's preprocessed files: research only, not to share",
    reference="Landman et al., Multi-atlas labeling beyond the cranial vault, MICCAI 2015; "
    "Chen et al., TransUNet, arXiv:2102.04306",
    split="TransUNet's 12 test cases are held out, 18 train",
    place=6,
    highest_label=max(BTCV_LABELS.values()),
)


def has_btcv_labels(examined: Sequence[ExaminedScan]) -> bool:
    """True if a label of BTCV's 13 that the eight organs lack occurs in preprocessed files."""
    return any(sum(one.voxels[max(ORGAN_LABELS.values()) + 1 :]) for one in examined)


def doubtful_order(examined: Sequence[ExaminedScan]) -> str | None:
    """A warning if labels 1 to 8 do not look like TransUNet's order: there, number 2, the gallbladder, is smallest."""
    totals = {label: sum(one.voxels[label] for one in examined if one.voxels) for label in range(1, 9)}
    smallest = min(totals, key=lambda label: totals[label])
    if not all(totals.values()) or smallest == ORGAN_LABELS["gallbladder"]:
        return None
    return (
        f"label {smallest} has the fewest voxels, in TransUNet's order it would be 2 (gallbladder): these files may "
        "number the organs otherwise, so check the names in dataset.json"
    )


def case_name(number: int) -> str:
    """Name of the scan with one of BTCV's numbers."""
    return f"case{number:04d}"


def find_scans(source: Path) -> FoundScans:
    """The scans in `source`, at any depth. Raises ValueError if there are none, or both layouts."""
    files = files_below(source)
    nifti = [path for path in files if NIFTI.fullmatch(path.name)]
    preprocessed = [path for path in files if SLICE.fullmatch(path.name) or VOLUME.fullmatch(path.name)]
    if nifti and preprocessed:
        raise ValueError(
            f"{source} holds NIfTI volumes ({nifti[0]}) as well as preprocessed ones ({preprocessed[0]}); "
            "name the folder of one kind as the source"
        )
    if nifti:
        return find_nifti(nifti)
    if preprocessed:
        return find_preprocessed(files, preprocessed)
    raise ValueError(
        f"{source} holds no scans; expected img0001.nii.gz and label0001.nii.gz, or train_npz and test_vol_h5 with "
        "case0005_slice000.npz and case0001.npy.h5"
    )


def find_nifti(files: Iterable[Path]) -> FoundScans:
    """Scans with labels of the same number. Those that BTCV itself tests on have none and are left out."""
    found = FoundScans("nifti", test=set(map(case_name, TEST)), files=list(files))
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
            found.scans.append(Scan(case_name(number), "nifti", (image,), named["label"][number]))
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


@dataclass
class Preprocessed:
    """TransUNet's files, by number of the scan. searched: index of the slices in a folder for the published search."""

    slices: dict[int, dict[int, Path]] = field(default_factory=dict)
    volumes: dict[int, Path] = field(default_factory=dict)
    searched: dict[int, set[int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def sort_preprocessed(files: Iterable[Path]) -> Preprocessed:
    """The files by their names; two with the same name are a problem."""
    sorted_files = Preprocessed()
    for path in files:
        if (match := SLICE.fullmatch(path.name)) is not None:
            number, index = int(match[1]), int(match[2])
            if "search" in path.parent.name.lower():
                sorted_files.searched.setdefault(number, set()).add(index)
                continue
            first = sorted_files.slices.setdefault(number, {}).setdefault(index, path)
        elif (match := VOLUME.fullmatch(path.name)) is not None:
            first = sorted_files.volumes.setdefault(int(match[1]), path)
        else:
            continue
        if first != path:
            sorted_files.problems.append(Problem("duplicate name", f"{first} and {path}"))
    return sorted_files


def find_preprocessed(files: list[Path], data: list[Path]) -> FoundScans:
    """Scans from slices and volumes; a scan that is there in both forms is taken as a volume.

    files: all of the source, with its lists. data: the slices and volumes among them.
    """
    there = sort_preprocessed(data)
    found = FoundScans("preprocessed", own_test=True, problems=there.problems, files=data)
    listed_train = listed(files, "train.txt", found.problems)
    listed_test = {int(name[4:8]) for name in listed(files, "test_vol.txt", found.problems)}
    both = set(there.slices) & set(there.volumes)
    if both:
        found.notes.append(f"{count(len(both), 'scan')} there as slices and as volume: the volume is taken")
    scans = {number: Scan(case_name(number), "h5", (path,)) for number, path in there.volumes.items()}
    for number, slices in sorted(there.slices.items()):
        if number in there.volumes:
            continue
        absent = missing_slices(number, set(slices), listed_train)
        if absent:
            shown = ", ".join(f"{index:03d}" for index in absent[:8]) + (", ..." if len(absent) > 8 else "")
            detail = f"{case_name(number)}: {len(slices)} there, {len(absent)} missing ({shown})"
            found.problems.append(Problem("slices missing", detail))
        scans[number] = Scan(case_name(number), "npz", tuple(slices[index] for index in sorted(slices)))
    found.scans = [scans[number] for number in sorted(scans)]
    wanted = {int(name[4:8]) for name in listed_train} | listed_test
    found.problems += [Problem("listed, but not there", case_name(number)) for number in sorted(wanted - set(scans))]
    test = listed_test or {number for number in there.volumes if number in TEST or number not in there.slices}
    found.test = set(map(case_name, test))
    choose_search(found, {case_name(number): slices for number, slices in there.searched.items()})
    return found


def missing_slices(number: int, there: set[int], listed_train: set[str]) -> list[int]:
    """Slices that a scan should have: as the list file names them, else as published, else without gaps."""
    names = {int(name[14:17]) for name in listed_train if name.startswith(f"{case_name(number)}_slice")}
    wanted = names or set(range(SLICES.get(number, max(there) + 1)))
    # a list of some slices cannot make up a volume either
    wanted |= set(range(max(wanted | there) + 1))
    return sorted(wanted - there)


def listed(files: list[Path], name: str, problems: list[Problem]) -> set[str]:
    """The entries of all list files of one name. What is no entry is a problem. ValueError for what is no text."""
    entries = set()
    for path in files:
        if path.name != name:
            continue
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            entry = line.strip()
            if ENTRY.fullmatch(entry):
                entries.add(entry)
            elif entry:
                detail = f"{path}, line {number}: {entry[:60]!r}; expected case0005 or case0005_slice000"
                problems.append(Problem("unexpected entry of a list", detail))
    return entries


def choose_search(found: FoundScans, searched: Mapping[str, set[int]]) -> None:
    """Takes the scans of a search_npz folder for `found.search`: whole scans can validate, single slices cannot.

    searched: scan -> the slices in that folder.
    """
    if not searched:
        return
    total = sum(len(indices) for indices in searched.values())
    text = f"search_npz: {total} slices of {count(len(searched), 'scan')}"
    held_out = sorted(set(searched) & found.test)
    if held_out:
        names = ", ".join(held_out)
        found.notes.append(f"{text}, among them the test scans {names}: not used, so that the test set stays unseen")
    elif set(searched) < {scan.name for scan in found.scans} - found.test:
        found.search = set(searched)
        found.notes.append(f"{text}, which train too: a fold validates on these scans as a whole instead")
    else:
        found.notes.append(f"{text}, spread over all training scans: no fold of whole scans can validate on them")
