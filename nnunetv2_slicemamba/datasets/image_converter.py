"""The base of converters of 2D images: pairs found and examined, named, and divided as asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.console import Console

from nnunetv2_slicemamba.datasets.cases import Case, Rules, safe_names
from nnunetv2_slicemamba.datasets.conversion import Conversion
from nnunetv2_slicemamba.datasets.converter import Converter
from nnunetv2_slicemamba.datasets.examined import (
    ExaminedPair,
    black_and_white_only,
    duplicate_notes,
    empty_notes,
    label_notes,
    same_case_names,
    same_names,
    transparency_notes,
)
from nnunetv2_slicemamba.datasets.layouts import FolderLayout, find_pairs
from nnunetv2_slicemamba.datasets.pairing import SEARCH, TEST, TRAIN, VAL, FoundPairs, Pair
from nnunetv2_slicemamba.datasets.problems import count_notes, describe
from nnunetv2_slicemamba.datasets.request import Request
from nnunetv2_slicemamba.datasets.search_folder import MatchedPairs, match_search_folder
from nnunetv2_slicemamba.datasets.source_files import left_out
from nnunetv2_slicemamba.datasets.splits import Split, drawn_split, parts_split, sequence_split


@dataclass(frozen=True)
class Videos:
    """The videos of which a dataset's images are frames. number_of: that of an image; ValueError if it cannot be told.

    note: what the user should know of them.
    """

    number_of: Callable[[Pair], int]
    note: str


@dataclass(frozen=True)
class Form:
    """The form of the new dataset's files. kind: as of cases. channels: dataset.json's channel_names. grey: pictures of
    one channel are written. ending, reader: None for the converter's.
    """

    kind: str
    channels: Mapping[str, str]
    grey: bool = False
    ending: str | None = None
    reader: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageConverter(Converter):
    """A dataset of 2D images with a mask each.

    labels: names of the labels 1, 2, ...; with several, the values of the masks are the labels. videos: those that
    `--split by-sequence` keeps apart.
    """

    labels: tuple[str, ...]
    layouts: tuple[FolderLayout, ...]
    videos: Videos | None = None

    file_ending: ClassVar[str] = ".png"
    reader: ClassVar[str | None] = "NaturalImage2DIO"
    files_at_once: ClassVar[int] = 8
    resizable: ClassVar[bool] = True

    @property
    def has_videos(self) -> bool:
        return self.videos is not None

    def find(self, request: Request) -> FoundPairs:
        """All pairs of the source, not yet opened. ValueError where no layout fits."""
        return find_pairs(self.key, self.layouts, request.sources[0])

    def case_names(self, stems: Iterable[str]) -> dict[str, str]:
        """Names of cases, by those of their images."""
        return safe_names(stems)

    def published_split(self, layout: str, cases_of: Mapping[str, Sequence[str]], search: Sequence[str]) -> Split:
        """The split of `--split published`. cases_of: part -> cases. search: the search folder's cases."""
        return parts_split(cases_of, search)

    def examine(
        self, found: FoundPairs, n_labels: int, processes: int, console: Console | None
    ) -> Sequence[ExaminedPair]:
        """All pairs, decoded. n_labels: as in `to_labels`."""
        # Pillow and scipy are slow to import, and lists of the converters do without
        from nnunetv2_slicemamba.datasets.image_checks import examine_pairs

        return examine_pairs(found.pairs, n_labels, processes, console)

    def form(self, request: Request, found: FoundPairs, examined: Sequence[ExaminedPair]) -> Form:
        """The form of the new files. ValueError where it is not what the request says."""
        return Form("image", {"0": "R", "1": "G", "2": "B"})

    def case(self, one: ExaminedPair, name: str, subset: str, form: Form) -> Case:
        """A case of the new dataset."""
        # not where links lead: a volume is known by the ending of its name
        mask = None if one.pair.mask is None else str(one.pair.mask.absolute())
        return Case(name, subset, form.kind, tuple(str(path.absolute()) for path in one.pair.images), mask)

    def prepare(self, request: Request, processes: int, console: Console | None) -> Conversion:
        found = self.find(request)
        labels = {"background": 0} | {label: i for i, label in enumerate(request.labels or self.labels, start=1)}
        examined = self.examine(found, len(labels), processes, console)
        name_of = self.case_names(dict.fromkeys(pair.stem for pair in found.pairs))
        names = {pair: name_of[pair.stem] for pair in found.pairs}
        unused = left_out(request.folders, found.files)
        problems = [*found.problems, *same_names(found.pairs), *same_case_names(names)]
        problems += [problem for one in examined for problem in one.problems]
        problems += black_and_white_only(examined, len(labels))
        if problems:
            raise ValueError(describe(problems, " and ".join(map(str, request.folders)), unused))

        form = self.form(request, found, examined)
        matched = match_search_folder(examined)
        split = self.choose_split(request, found.layout, matched, names)
        there = Counter(pair.part for pair in found.pairs)
        notes = (
            *found.notes,
            *count_notes(there, self.complete_counts(request, found.layout), "images"),
            *matched.notes,
            *duplicate_notes(examined),
            *empty_notes(examined),
            *label_notes(examined, labels),
            *transparency_notes(examined),
            *form.notes,
            *split.notes,
        )
        by_pair = {one.pair: one for one in examined}
        cases = tuple(
            self.case(by_pair[pair], names[pair], "Ts" if names[pair] in split.test else "Tr", form)
            for pair in matched.pairs
        )
        description = self.dataset_json(
            request, found.layout, form.channels, labels, cases, notes, form.ending, form.reader
        )
        rules = Rules(request.resize, len(labels), form.grey, reader=found.reader)
        return Conversion(cases, rules, split.folds, description, notes, unused)

    def choose_split(self, request: Request, layout: str, matched: MatchedPairs, names: Mapping[Pair, str]) -> Split:
        """The split that was asked for. ValueError where the cases do not allow it."""
        if request.split.kind == "by-sequence" and self.videos is not None:
            number_of = {names[pair]: self.videos.number_of(pair) for pair in matched.pairs}
            return sequence_split(number_of, request.split.seed).with_note(self.videos.note)
        cases_of: dict[str, list[str]] = {TRAIN: [], VAL: [], TEST: [], SEARCH: []}
        for pair in matched.pairs:
            cases_of[matched.part_of[pair]].append(names[pair])
        if request.split.kind == "published":
            return self.published_split(layout, cases_of, [names[pair] for pair in matched.search])
        return drawn_split(request.split, cases_of[TRAIN] + cases_of[VAL] + cases_of[SEARCH], frozenset(cases_of[TEST]))
