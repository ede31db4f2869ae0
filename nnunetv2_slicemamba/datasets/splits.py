"""Divisions of cases into those that train, validate and stay held out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from nnunetv2_slicemamba.common.counts import count

FOLDS = 5
TEST_FRACTION = 0.1
Fold = dict[str, list[str]]
T = TypeVar("T")


@dataclass(frozen=True)
class SplitChoice:
    """The split asked for. kind: published, random, by-sequence, holdout or none. seed: of those that draw.

    fraction: of the cases, for holdout.
    """

    kind: str
    seed: int = 0
    fraction: float = 0.0

    def __str__(self) -> str:
        share = f":{self.fraction:g}" if self.kind == "holdout" else ""
        return self.kind if self.kind in ("published", "none") else f"{self.kind}{share}:{self.seed}"

    def as_json(self) -> dict[str, Any]:
        """Plain values; the fraction only where there is one."""
        values = asdict(self)
        return values if self.kind == "holdout" else {"kind": self.kind, "seed": self.seed}


PUBLISHED = SplitChoice("published")


def parse_split(text: str) -> SplitChoice:
    """`published`, `none`, `random:SEED`, `by-sequence`, `by-sequence:SEED`, `holdout:SHARE` or `holdout:SHARE:SEED`.

    Raises ValueError for anything else.
    """
    if text in ("published", "none", "by-sequence"):
        return SplitChoice(text)
    held = re.fullmatch(r"holdout:(0?\.[0-9]{1,6})(?::([0-9]+))?", text, re.ASCII)
    if held is not None and float(held[1]) > 0:
        return SplitChoice("holdout", int(held[2] or 0), float(held[1]))
    match = re.fullmatch(r"(random|by-sequence):([0-9]+)", text)
    if match is None:
        raise ValueError(
            f"there is no split {text!r}; give published, random:SEED (e.g. random:1), holdout:SHARE:SEED (e.g. "
            "holdout:0.2:1), by-sequence[:SEED] or none"
        )
    return SplitChoice(match[1], int(match[2]))


@dataclass(frozen=True)
class Split:
    """A division of the cases. test: those that no fold sees. folds: for splits_final.json, or None where nnU-Net
    shall draw its own five. notes: what the user should know of it.
    """

    test: frozenset[str]
    folds: list[Fold] | None
    notes: tuple[str, ...] = ()

    def with_note(self, note: str) -> Split:
        """This split with one more note."""
        return replace(self, notes=(*self.notes, note))


def drawn_split(choice: SplitChoice, cases: Sequence[str], test: frozenset[str]) -> Split:
    """The split of `random`, of `holdout`, which draws folds too, or of `none`, which leaves them to nnU-Net.

    cases: all but those of the test. ValueError for `holdout` where there is a test set or no case would be left.
    """
    if choice.kind == "holdout":
        if test:
            raise ValueError(
                f"--split {choice} draws a test set, and the source has one of {count(len(test), 'case')}; give "
                "--split random:SEED or none"
            )
        held_out = drawn_test(cases, choice)
        rest = [case for case in cases if case not in held_out]
        note = f"{len(held_out)} of {count(len(cases), 'case')} held out at random, seed {choice.seed}"
        others = drawn_split(SplitChoice("random" if len(rest) > 1 else "none", choice.seed), rest, held_out)
        return replace(others, notes=(note, *others.notes))
    if choice.kind == "random":
        folds = random_folds(cases, choice.seed)
        number = "five" if len(folds) == FOLDS else len(folds)
        return Split(test, folds, (f"{number} random folds of {len(cases)} cases, seed {choice.seed}",))
    return Split(test, None, (left_to_nnunet("no split", len(cases)),))


def drawn_test(cases: Sequence[str], choice: SplitChoice) -> frozenset[str]:
    """The share of the cases that `holdout` draws, rounded, at least one. ValueError where none would train."""
    number = max(1, round(choice.fraction * len(cases)))
    if number >= len(cases):
        raise ValueError(
            f"--split {choice} would hold out {number} of {count(len(cases), 'case')}, and none would train; give a "
            "smaller share or --split none"
        )
    return frozenset(shuffled(sorted(cases), choice.seed)[:number])


def left_to_nnunet(why: str, cases: int) -> str:
    """The note of a dataset whose folds nnU-Net draws, or cannot draw: it wants one case per fold at least."""
    if cases >= FOLDS:
        return f"{why}: nnU-Net draws five folds of the {count(cases, 'training case')}"
    remedy = f", or give --split random:0, which makes {cases} folds" if cases > 1 else ""
    return f"{why}, and {count(cases, 'training case')} cannot make nnU-Net's five folds: train with -f all{remedy}"


def random_folds(cases: Sequence[str], seed: int) -> list[Fold]:
    """Five folds over shuffled cases, of fewer cases one each; every case validates once. ValueError for one case."""
    if len(cases) < 2:
        raise ValueError(f"{count(len(cases), 'training case')} cannot make folds; give --split none")
    order = shuffled(sorted(cases), seed)
    n = min(FOLDS, len(order))
    # the first folds get one case more where the number does not divide
    size, larger = divmod(len(order), n)
    ends = [(i + 1) * size + min(i + 1, larger) for i in range(n)]
    return folds_of([order[start:end] for start, end in zip([0, *ends], ends, strict=False)])


def shuffled(items: Sequence[T], seed: int) -> list[T]:
    """The items in an order that the seed decides."""
    # numpy is slow to import, and lists of the converters do without
    import numpy as np

    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]


def folds_of(validations: Sequence[Sequence[str]]) -> list[Fold]:
    """One fold per set of validation cases, training on all the others."""
    everything = [case for validation in validations for case in validation]
    return [
        {"train": sorted(set(everything) - set(validation)), "val": sorted(validation)} for validation in validations
    ]


def sequence_split(sequence_of: Mapping[str, int], seed: int) -> Split:
    """Test set and five folds of whole sequences, so that no video has frames on two sides.

    sequence_of: case -> number of its video. The test set takes sequences in shuffled order until it has a tenth of
    the frames; the others go, largest first, to the fold that has the fewest frames. ValueError with fewer than three
    sequences.
    """
    members: dict[int, list[str]] = {}
    for case, sequence in sequence_of.items():
        members.setdefault(sequence, []).append(case)
    if len(members) < 3:
        raise ValueError(
            f"the source has frames of {count(len(members), 'sequence')}; splitting by sequence needs at least three"
        )
    order = shuffled(sorted(members), seed)
    test: list[int] = []
    # at least two sequences have to remain for training and validation
    while sum(len(members[s]) for s in test) < TEST_FRACTION * len(sequence_of) and len(order) > 2:
        test.append(order.pop(0))
    bins: list[list[int]] = [[] for _ in range(min(FOLDS, len(order)))]
    for sequence in sorted(order, key=lambda s: (-len(members[s]), s)):
        min(bins, key=lambda chosen: sum(len(members[s]) for s in chosen)).append(sequence)
    folds = folds_of([[case for sequence in chosen for case in members[sequence]] for chosen in bins])
    held_out = frozenset(case for sequence in test for case in members[sequence])
    note = (
        f"by sequence: {count(len(test), 'sequence')} ({', '.join(map(str, sorted(test)))}) with "
        f"{count(len(held_out), 'frame')} held out, {count(len(order), 'sequence')} in {len(folds)} folds"
    )
    return Split(held_out, folds, (note,))


def parts_split(cases_of: Mapping[str, Sequence[str]], search: Sequence[str] = ()) -> Split:
    """The split that the source's own folders make.

    cases_of: part (train, val, test) -> cases. search: cases of the folder on which the published search measures
    its candidates, none of them a test case, some perhaps in no other part. Fold 0 trains on train and validates on
    val; one more fold validates on the search cases and trains on the other training cases, so that the slicing can
    be searched as published.
    """
    train, val = list(cases_of.get("train", ())), list(cases_of.get("val", ()))
    test = frozenset(cases_of.get("test", ()))
    folds: list[Fold] = []
    notes: list[str] = []
    if val:
        folds.append({"train": sorted(train), "val": sorted(val)})
        notes.append(f"fold 0: the source's own division, {len(train)} train, {len(val)} validate")
    if search and set(search) != set(val):
        rest = sorted(set(train) - set(search))
        if rest:
            folds.append({"train": rest, "val": sorted(search)})
            notes.append(
                f"fold {len(folds) - 1}: the search folder's {len(search)} validate, {len(rest)} others train; "
                f"'slicemamba search -f {len(folds) - 1}' measures on these images as the published search does"
            )
        else:
            notes.append("the search folder holds every training case, so no fold can validate on it")
    elif search:
        notes.append("the search folder is the validation folder: fold 0 is the published search's division too")
    if not folds:
        notes.append(left_to_nnunet("no validation set is given", len(train)))
    return Split(test, folds or None, tuple(notes))
