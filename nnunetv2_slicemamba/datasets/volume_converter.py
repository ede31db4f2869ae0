"""From a source of Synapse's scans to everything that will be written: checks, label numbers, split."""

from __future__ import annotations

from rich.console import Console

from nnunetv2_slicemamba.datasets.cases import Case, Rules
from nnunetv2_slicemamba.datasets.conversion import Conversion, Request, describe_dataset
from nnunetv2_slicemamba.datasets.converters.synapse import FoundVolumes, find_volumes
from nnunetv2_slicemamba.datasets.parallel import for_each
from nnunetv2_slicemamba.datasets.problems import count, describe
from nnunetv2_slicemamba.datasets.published import BTCV_LABELS, ORGAN_LABELS, TO_EIGHT_ORGANS
from nnunetv2_slicemamba.datasets.splits import Split, parts_split, random_folds
from nnunetv2_slicemamba.datasets.volume_checks import doubtful_order, examine_volume, numbering

NO_SPACING = (
    "the preprocessed files have neither spacing nor orientation: 1 x 1 x 1 is written, so distances measured on "
    "them are in voxels, and the plans treat slices as if they lay one pixel apart"
)
RENUMBERED = "the labels are BTCV's 13, renumbered to eight organs in TransUNet's order"


def prepare_volumes(request: Request, processes: int, console: Console | None) -> Conversion:
    """Finds and reads all scans. ValueError lists every problem at once."""
    found = find_volumes(request.sources[0])
    examined = for_each(examine_volume, found.volumes, processes, "Checking scans and labels", console)
    problems = [*found.problems, *(problem for one in examined for problem in one.problems)]
    if problems:
        raise ValueError(describe(problems, str(request.sources[0])))
    notes = list(found.notes)
    numbers = "btcv" if found.layout == "nifti" else numbering(examined)
    if request.organs == 13 and numbers == "organs":
        raise ValueError(
            f"{request.sources[0]} holds the labels of eight organs only; --organs 13 needs all 13 of BTCV"
        )
    mapping = tuple(TO_EIGHT_ORGANS.items()) if request.organs == 8 and numbers == "btcv" else None
    if mapping is not None:
        notes.append(RENUMBERED)
    if found.layout == "preprocessed":
        notes.append(NO_SPACING)
        if numbers == "organs" and (doubt := doubtful_order(examined)) is not None:
            notes.append(doubt)
    moved = sum(one.moved for one in examined)
    if moved:
        notes.append(f"{count(moved, 'label file')} with another origin than the image: the image's is written")
    split = choose_volume_split(request, found)
    notes += [*count_notes(request, found), *split.notes]
    cases = tuple(
        Case(
            volume.name,
            "Ts" if volume.name in split.test else "Tr",
            volume.kind,
            tuple(str(path.resolve()) for path in volume.images),
            None if volume.mask is None else str(volume.mask.resolve()),
        )
        for volume in found.volumes
    )
    # nnU-Net's normalisation for "CT" expects Hounsfield units
    channels = {"0": "CT" if found.layout == "nifti" else "clipped_CT"}
    labels = ORGAN_LABELS if request.organs == 8 else BTCV_LABELS
    return Conversion(
        cases,
        Rules(None, len(labels), mapping=mapping),
        split.folds,
        describe_dataset(request, found.layout, channels, labels, cases, notes),
        tuple(notes),
    )


def choose_volume_split(request: Request, found: FoundVolumes) -> Split:
    """The split that was asked for; a test set in a folder of its own is held out whatever was asked for."""
    separate = found.layout == "preprocessed"
    test = [v.name for v in found.volumes if v.number in found.test and (separate or request.split.kind == "published")]
    train = [volume.name for volume in found.volumes if volume.name not in test]
    if request.split.kind == "published":
        search = [volume.name for volume in found.volumes if volume.number in found.search]
        return parts_split({"train": train, "test": test}, search)
    if request.split.kind == "random":
        note = f"five random folds of {len(train)} cases, seed {request.split.seed}"
        return Split(frozenset(test), random_folds(train, request.split.seed), (note,))
    return Split(frozenset(test), None, (f"no split: nnU-Net draws five folds of {len(train)} cases",))


def count_notes(request: Request, found: FoundVolumes) -> list[str]:
    expected = request.facts.counts[found.layout]
    test = sum(volume.number in found.test for volume in found.volumes)
    there = {"train": len(found.volumes) - test, "test": test}
    return [
        f"{part}: {there[part]} scans, the complete source has {number}"
        for part, number in expected.items()
        if there[part] != number
    ]
