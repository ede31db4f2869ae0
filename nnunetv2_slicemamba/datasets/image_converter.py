"""From a source of 2D images to everything that will be written: checks, names, search folder, split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from nnunetv2_slicemamba.datasets.cases import Case, Rules, safe_name
from nnunetv2_slicemamba.datasets.conversion import Conversion, Request, describe_dataset
from nnunetv2_slicemamba.datasets.image_checks import Examined, examine, same_names
from nnunetv2_slicemamba.datasets.layouts import find_pairs, pairs_of
from nnunetv2_slicemamba.datasets.pairing import SEARCH, TEST, TRAIN, VAL, Found, Pair
from nnunetv2_slicemamba.datasets.parallel import for_each
from nnunetv2_slicemamba.datasets.problems import Problem, count, describe
from nnunetv2_slicemamba.datasets.published import CLINICDB_TEST, KVASIR_TEST, clinicdb_sequence
from nnunetv2_slicemamba.datasets.splits import Split, parts_split, random_folds, sequence_split

PUBLISHED_TEST = {"kvasir": KVASIR_TEST, "clinicdb": CLINICDB_TEST}
OWN_COUNTS = {"kvasir": 900, "clinicdb": 550}


def prepare_images(request: Request, processes: int, console: Console | None) -> Conversion:
    """Finds and examines all pairs. ValueError lists every problem at once."""
    train = "own" if request.split.kind == "by-sequence" else request.train
    found = (
        pairs_of(*request.sources) if request.key == "folders" else find_pairs(request.key, request.sources[0], train)
    )
    labels = dict(request.facts.labels)
    if request.labels:
        labels = {"background": 0} | {label: number for number, label in enumerate(request.labels, start=1)}
    examined = for_each(
        lambda pair: examine(pair, len(labels)), found.pairs, processes, "Checking images and masks", console
    )
    names = {pair: case_name(request.key, pair.stem) for pair in found.pairs}
    problems = [*found.problems, *same_names(found.pairs), *same_case_names(names)]
    problems += [problem for one in examined for problem in one.problems]
    if problems:
        raise ValueError(describe(problems, " and ".join(map(str, request.sources))))

    resolved = resolve_search(examined)
    notes = [*found.notes, *count_notes(request, found, train), *resolved.notes, *duplicate_notes(examined)]
    empty = sum(one.empty for one in examined)
    if empty:
        notes.append(f"{count(empty, 'mask')} without foreground")
    split = choose_split(request, found.layout, resolved, names)
    cases = tuple(
        Case(
            names[pair],
            "Ts" if names[pair] in split.test else "Tr",
            "image",
            (str(pair.image.resolve()),),
            None if pair.mask is None else str(pair.mask.resolve()),
        )
        for pair in resolved.pairs
    )
    grey = request.key == "folders" and all(one.grey for one in examined)
    channels = {"0": "grey"} if grey else {"0": "R", "1": "G", "2": "B"}
    notes += split.notes
    return Conversion(
        cases,
        Rules(request.resize, len(labels), grey),
        split.folds,
        describe_dataset(request, found.layout, channels, labels, cases, notes),
        tuple(notes),
    )


def case_name(key: str, stem: str) -> str:
    """The case's name: the image's, made safe; CVC-ClinicDB's bare frame numbers say what they are."""
    return f"clinicdb_{int(stem):03d}" if key in PUBLISHED_TEST and stem.isdigit() else safe_name(stem)


def same_case_names(names: Mapping[Pair, str]) -> list[Problem]:
    """Images whose names differ only in characters that case names do not have, or only in case."""
    seen: dict[str, Pair] = {}
    problems = []
    for pair, name in names.items():
        # file systems that ignore case would overwrite one with the other
        other = seen.setdefault(name.lower(), pair)
        if other.stem != pair.stem:
            problems.append(Problem("names too alike", f"{other.image} and {pair.image} would both be {name}"))
    return problems


@dataclass(frozen=True)
class Resolved:
    """pairs: those to be written, each once. part_of: their parts, `search` for what is in no other. search:
    the search folder's, without copies of test images.
    """

    pairs: tuple[Pair, ...]
    part_of: Mapping[Pair, str]
    search: tuple[Pair, ...]
    notes: tuple[str, ...]


def resolve_search(examined: Sequence[Examined]) -> Resolved:
    """Recognises the search folder's images among the others, by their pixels and else by name.

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
    renamed = 0
    for one in examined:
        if one.pair.part != SEARCH:
            continue
        copy = by_digest.get(one.digest)
        if copy is None and (copy := by_stem.get(one.pair.stem)) is not None:
            renamed += 1
        if copy is None:
            pairs.append(one.pair)
            part_of[one.pair] = SEARCH
        where[part_of[copy] if copy is not None else "new"] += 1
        if copy is None or copy.part != TEST:
            searched.append(copy or one.pair)
    notes = []
    if where:
        words = {TRAIN: "of training images", VAL: "of validation images", TEST: "of test images"}
        told = [f"{where[part]} copies {text}" for part, text in words.items() if where[part]]
        told += [f"{where['new']} found nowhere else, added to the training images"] if where["new"] else []
        notes.append(f"search folder: {count(sum(where.values()), 'image')}, {', '.join(told)}")
        if where[TEST]:
            notes.append("the copies of test images are not used for searching, so that the test set stays unseen")
        if renamed:
            notes.append(f"{renamed} of the copies were recognised by name only, their pixels differ")
    return Resolved(tuple(pairs), part_of, tuple(dict.fromkeys(searched)), tuple(notes))


def choose_split(request: Request, layout: str, resolved: Resolved, names: Mapping[Pair, str]) -> Split:
    """The split that was asked for. ValueError where the cases do not allow it."""
    cases_of: dict[str, list[str]] = {TRAIN: [], VAL: [], TEST: [], SEARCH: []}
    for pair in resolved.pairs:
        part = resolved.part_of[pair]
        listed = layout == "flat" and request.split.kind == "published"
        if listed and pair.stem in PUBLISHED_TEST.get(request.key, frozenset()):
            part = TEST
        cases_of[part].append(names[pair])
    if request.split.kind == "by-sequence":
        return sequence_split(
            {names[pair]: clinicdb_sequence(frame_number(pair)) for pair in resolved.pairs}, request.split.seed
        )
    if request.split.kind == "published":
        split = parts_split(cases_of, [names[pair] for pair in resolved.search])
        benchmark = len(PUBLISHED_TEST.get(request.key, ()))
        if layout == "flat" and benchmark:
            note = f"{len(split.test)} of the polyp benchmark's {benchmark} test images are here and held out"
            return Split(split.test, split.folds, (note, *split.notes))
        return split
    test = frozenset(cases_of[TEST])
    rest = cases_of[TRAIN] + cases_of[VAL] + cases_of[SEARCH]
    if request.split.kind == "random":
        note = f"five random folds of {len(rest)} cases, seed {request.split.seed}"
        return Split(test, random_folds(rest, request.split.seed), (note,))
    return Split(test, None, (f"no split: nnU-Net draws five folds of {len(rest)} cases",))


def frame_number(pair: Pair) -> int:
    if not pair.stem.isdigit():
        raise ValueError(f"{pair.image} is not named by its frame number, so its sequence cannot be told")
    return int(pair.stem)


def count_notes(request: Request, found: Found, train: str) -> list[str]:
    """Parts with another number of images than the complete source has."""
    expected = dict(request.facts.counts.get(found.layout, {}))
    if found.layout == "joint" and train == "own":
        expected[TRAIN] = OWN_COUNTS[request.key]
    there = Counter(pair.part for pair in found.pairs)
    return [
        f"{part}: {there[part]} images, the complete source has {number}"
        for part, number in expected.items()
        if there[part] != number
    ]


def duplicate_notes(examined: Sequence[Examined]) -> list[str]:
    """Equal images under different names, above all those on two sides of the split."""
    groups: dict[str, list[Pair]] = {}
    for one in examined:
        if one.pair.part != SEARCH:
            groups.setdefault(one.digest, []).append(one.pair)
    twice = [group for group in groups.values() if len(group) > 1]
    across = [group for group in twice if len({pair.part for pair in group}) > 1]
    if not twice:
        return []
    first = (across or twice)[0]
    sides = f", {len(across)} of them in different parts" if across else ""
    return [
        f"{count(len(twice), 'image')} there more than once under other names{sides}, kept as they are "
        f"(e.g. {' and '.join(f'{pair.part}/{pair.image.name}' for pair in first[:2])})"
    ]
