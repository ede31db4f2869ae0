"""The polyp benchmark (Fan et al., PraNet, MICCAI 2020): its folders and its test images, for the datasets it joins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetv2_slicemamba.common.names import is_number
from nnunetv2_slicemamba.datasets.cases import safe_name
from nnunetv2_slicemamba.datasets.image_converter import ImageConverter
from nnunetv2_slicemamba.datasets.layouts import FLAT, FolderLayout, child, images_and_masks
from nnunetv2_slicemamba.datasets.pairing import SEARCH, TEST, TRAIN, FolderPair, FoundPairs
from nnunetv2_slicemamba.datasets.request import Request
from nnunetv2_slicemamba.datasets.splits import Split, parts_split

JOINT = "joint"
WORDS = "TrainDataset, TestDataset/{Kvasir,CVC-ClinicDB,...}, searchDataset (polyp benchmark)"
# Kvasir's and ClinicDB's together
TRAINING_IMAGES = 1450


@dataclass(frozen=True, kw_only=True)
class PolypConverter(ImageConverter):
    """A dataset of the polyp benchmark, from the benchmark's folders or from its own.

    test: names of its images on which the benchmark tests. training: number of its images among those that the
    benchmark trains on. is_own: True for the names of its own training images, which lie beside the other dataset's.
    """

    test: frozenset[str]
    training: int
    is_own: Callable[[str], bool]

    def find(self, request: Request) -> FoundPairs:
        found = super().find(request)
        if takes_own(request, found.layout):
            other = {pair for pair in found.pairs if pair.part != TEST and not self.is_own(pair.stem)}
            found.pairs = [pair for pair in found.pairs if pair not in other]
            found.files -= {path for pair in other for path in (pair.image, pair.mask) if path is not None}
        return found

    def complete_counts(self, request: Request, layout: str) -> Mapping[str, int]:
        counts = super().complete_counts(request, layout)
        return {**counts, TRAIN: self.training} if takes_own(request, layout) else counts

    def case_names(self, stems: Iterable[str]) -> dict[str, str]:
        # bare numbers are CVC-ClinicDB's frames; names that are then the same are refused, as a name says which images
        # the benchmark tests on
        return {stem: f"clinicdb_{int(stem):03d}" if is_number(stem) else safe_name(stem) for stem in stems}

    def published_split(self, layout: str, cases_of: Mapping[str, Sequence[str]], search: Sequence[str]) -> Split:
        """Holds the benchmark's test images out of a source that is not divided."""
        if layout != FLAT:
            return super().published_split(layout, cases_of, search)
        names = set(self.case_names(self.test).values())
        test = [case for case in cases_of[TRAIN] if case in names]
        split = parts_split({TRAIN: [case for case in cases_of[TRAIN] if case not in names], TEST: test})
        note = f"{len(test)} of the polyp benchmark's {len(self.test)} test images are here and held out"
        return replace(split, notes=(note, *split.notes))


def names_in(text: str) -> frozenset[str]:
    """The names in a text, between white space."""
    return frozenset(text.split())


def takes_own(request: Request, layout: str) -> bool:
    """True if the other dataset's training images are left out. Frames are told apart by video only in ClinicDB."""
    return layout == JOINT and (request.train == "own" or request.split.kind == "by-sequence")


def joint(test_folder: Sequence[str], test: int) -> FolderLayout:
    """The benchmark's folders. test_folder: names, in lower case, of the dataset's one. test: its images there."""
    counts = {TRAIN: TRAINING_IMAGES, TEST: test}
    return FolderLayout(JOINT, WORDS, counts, read=lambda folder: read_joint(folder, test_folder))


def read_joint(folder: Path, test_folder: Sequence[str]) -> list[FolderPair] | None:
    """TrainDataset, the dataset's folder of TestDataset, and perhaps searchDataset. ValueError without images."""
    training, tests = child(folder, ("traindataset",)), child(folder, ("testdataset",))
    if training is None or tests is None:
        return None
    found = []
    for part, place in (
        (TRAIN, training),
        (TEST, child(tests, test_folder)),
        (SEARCH, child(folder, ("searchdataset",))),
    ):
        pair = images_and_masks(part, place)
        if pair is not None:
            found.append(pair)
        elif part != SEARCH:
            wanted = place or tests / test_folder[0]
            raise ValueError(f"{folder} is laid out as the polyp benchmark, but {wanted} has no folder of images")
    return found
