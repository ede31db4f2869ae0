"""The images of a source's search folder, recognised among those of its other parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.datasets.examined import ExaminedPair
from nnunetv2_slicemamba.datasets.pairing import SEARCH, TEST, TRAIN, VAL, Pair


@dataclass(frozen=True)
class MatchedPairs:
    """All pairs, each once. part_of: their parts, `search` for what is in no other. search: the search folder's,
    without copies of test images.
    """

    pairs: tuple[Pair, ...]
    part_of: Mapping[Pair, str]
    search: tuple[Pair, ...]
    notes: tuple[str, ...]


def match_search_folder(examined: Sequence[ExaminedPair]) -> MatchedPairs:
    """Recognises the search folder's images by their pixels and else by name.

    Images that are nowhere else become cases; copies are not written again. What is a copy of a test image is left
    out of the search, which would otherwise choose on the test set.
    """
    others = [one for one in examined if one.pair.part != SEARCH]
    by_digest = {one.digest: one.pair for one in others}
    by_stem = {one.pair.stem: one.pair for one in others}
    pairs = [one.pair for one in others]
    part_of = {one.pair: one.pair.part for one in others}
    searched: list[Pair] = []
    where: Counter[str] = Counter()
    by_name_only = 0
    for one in examined:
        if one.pair.part != SEARCH:
            continue
        copy = by_digest.get(one.digest)
        if copy is None and (copy := by_stem.get(one.pair.stem)) is not None:
            by_name_only += 1
        if copy is None:
            pairs.append(one.pair)
            part_of[one.pair] = SEARCH
        where["new" if copy is None else copy.part] += 1
        if copy is None or copy.part != TEST:
            searched.append(copy or one.pair)
    notes = notes_of(where, by_name_only)
    return MatchedPairs(tuple(pairs), part_of, tuple(dict.fromkeys(searched)), notes)


def notes_of(where: Counter[str], by_name_only: int) -> tuple[str, ...]:
    """Notes of the parts in which the search folder's images were found. where: part, or "new", -> images."""
    if not where:
        return ()
    words = {TRAIN: "of training images", VAL: "of validation images", TEST: "of test images"}
    found = [f"{where[part]} copies {text}" for part, text in words.items() if where[part]]
    found += [f"{where['new']} found nowhere else, added to the training images"] if where["new"] else []
    notes = [f"search folder: {count(sum(where.values()), 'image')}, {', '.join(found)}"]
    if where[TEST]:
        notes.append("the copies of test images are not used for searching, so that the test set stays unseen")
    if by_name_only:
        notes.append(f"{by_name_only} of the copies were recognised by name only, their pixels differ")
    return tuple(notes)
