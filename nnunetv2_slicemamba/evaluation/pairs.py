"""Pairs of a prediction and its truth, by folders, file ending and names, without opening a segmentation."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

from nnunetv2_slicemamba.common.folders import InputError


@dataclass(frozen=True)
class Pair:
    """A case and its two files, which have the same name."""

    case: str
    prediction: Path
    truth: Path


@dataclass(frozen=True)
class Pairs:
    """Pairs of two folders, in the order of their names.

    missing: cases without a prediction. extra: predictions without a truth. other: files with other endings, which
    nnU-Net could read.
    """

    pairs: tuple[Pair, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    other: tuple[Path, ...] = ()


def check_folders(predictions: Path, truth: Path) -> None:
    """InputError unless both are folders, and different ones."""
    for folder, what in ((predictions, "PREDICTIONS"), (truth, "TRUTH")):
        if not folder.is_dir():
            raise InputError(f"{what} {folder} is not a folder; give the folder that holds the segmentations")
    if predictions.resolve() == truth.resolve():
        raise InputError(f"PREDICTIONS and TRUTH are the same folder, {truth}; it would be compared with itself")


def look_swapped(predictions: Path, truth: Path) -> bool:
    """True if only the truth folder has what nnU-Net's prediction writes: nnUNetv2_evaluate_folder wants it first."""
    mark = "predict_from_raw_data_args.json"
    return (truth / mark).is_file() and not (predictions / mark).is_file()


def guess_file_ending(truth: Path) -> str:
    """The ending, of those nnU-Net reads, that the files in a folder have; InputError if there is none or several."""
    found = Counter(ending for file in truth.iterdir() if (ending := _ending(file)))
    if len(found) != 1:
        listed = ", ".join(f"{number} {ending}" for ending, number in found.most_common()) or "none"
        raise InputError(
            f"there is no dataset.json, and the files in {truth} that nnU-Net can read are: {listed}. "
            "Name the dataset's description with -djfile"
        )
    return next(iter(found))


def find_pairs(predictions: Path, truth: Path, file_ending: str) -> Pairs:
    """Pairs of files with the same name and ending in two folders; InputError if there is not a single one.

    Names in Unicode's two forms (a letter and its accent as one character or two) are the same.
    """
    of_truth, of_predictions = _cases(truth, file_ending), _cases(predictions, file_ending)
    for cases, folder in ((of_truth, truth), (of_predictions, predictions)):
        if not cases:
            raise InputError(f"there are no *{file_ending} files in {folder}; is it the right folder?")
    both = sorted(of_truth.keys() & of_predictions.keys())
    missing, extra = sorted(of_truth.keys() - of_predictions.keys()), sorted(of_predictions.keys() - of_truth.keys())
    if not both:
        raise InputError(
            f"no file in {predictions} has the name of one in {truth}: {listed(extra, 3)} against {listed(missing, 3)}"
        )
    pairs = (Pair(case, of_predictions[case], of_truth[case]) for case in both)
    known = {*of_truth.values(), *of_predictions.values()}
    other = (file for folder in (predictions, truth) for file in sorted(folder.iterdir()) if _ending(file))
    return Pairs(tuple(pairs), tuple(missing), tuple(extra), tuple(file for file in other if file not in known))


def listed(names: Sequence[str], most: int = 10) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _cases(folder: Path, file_ending: str) -> dict[str, Path]:
    # hidden files are leftovers of other systems (._case.nii.gz)
    return {
        unicodedata.normalize("NFC", file.name[: -len(file_ending)]): file
        for file in folder.iterdir()
        if file.name.endswith(file_ending) and not file.name.startswith(".") and file.is_file()
    }


def _ending(file: Path) -> str:
    """The ending of a file as it is written there, empty if it is hidden or none of nnU-Net's readers takes it."""
    endings = {ending for reader in LIST_OF_IO_CLASSES for ending in reader.supported_file_endings}
    fitting = [ending for ending in endings if file.name.lower().endswith(ending)]
    if not fitting or file.name.startswith(".") or not file.is_file():
        return ""
    return file.name[-len(max(fitting, key=len)) :]
