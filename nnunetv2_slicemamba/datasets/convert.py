"""The conversion itself: source checked, dataset written, interrupted work continued, nothing foreign overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.dataset_names import dataset_id_of, datasets_in, sharing_id
from nnunetv2_slicemamba.common.folder_lock import in_use_after_others
from nnunetv2_slicemamba.common.folders import check_folder
from nnunetv2_slicemamba.common.nnunet_files import SPLITS_JSON
from nnunetv2_slicemamba.datasets.conversion import Conversion
from nnunetv2_slicemamba.datasets.manifest import fingerprint, read_begun, write_json, write_manifest
from nnunetv2_slicemamba.datasets.parallel import for_each
from nnunetv2_slicemamba.datasets.part_files import remove_parts
from nnunetv2_slicemamba.datasets.registry import converter_of
from nnunetv2_slicemamba.datasets.request import Request
from nnunetv2_slicemamba.datasets.request_check import check_request
from nnunetv2_slicemamba.datasets.splits import Fold
from nnunetv2_slicemamba.datasets.write_case import write_case

SPLITS = "splits_final.json"


@dataclass(frozen=True)
class Converted:
    """A finished conversion. folder: the dataset in nnUNet_raw. written: cases written now; the others were there."""

    folder: Path
    conversion: Conversion
    written: int


def convert(
    request: Request,
    raw: Path,
    preprocessed: Path | None = None,
    results: Path | None = None,
    processes: int = 1,
    console: Console | None = None,
) -> Converted:
    """Checks the source, then writes raw/DatasetXXX_NAME and, where `preprocessed` is given, its splits_final.json.

    The same call continues what was interrupted, without checking again, and does nothing once all is written.
    results: nnUNet_results, in which the ID must not be taken either. console: for progress bars. Raises ValueError
    before anything is written: for a request that does not fit, for everything that is wrong with the source, and for
    a target that is not this conversion's.
    """
    converter = converter_of(request.key)
    check_request(request, converter)
    dataset = converter.dataset_name(request)
    folder = raw / dataset
    refuse_taken_id(request.dataset_id, dataset, [root for root in (raw, preprocessed, results) if root is not None])
    sources = fingerprint(request.folders)
    begun = read_begun(request, folder, sources)
    conversion = converter.prepare(request, processes, console) if begun is None else begun
    if preprocessed is not None:
        refuse_other_split(conversion.folds, preprocessed / dataset, begun is None)
        if conversion.folds is not None and not (preprocessed / dataset / SPLITS).is_file():
            check_folder(preprocessed, "nnUNet_preprocessed", writable=True)

    # the source was checked meanwhile, and another process may have begun here
    with in_use_after_others(folder, console.print if console is not None else lambda text: None):
        conversion = read_begun(request, folder, sources) or conversion
        # first of all: a folder without it is taken for somebody else's
        write_manifest(request, conversion, sources, folder)
        return _write(conversion, folder, preprocessed, processes, console)


def _write(
    conversion: Conversion, folder: Path, preprocessed: Path | None, processes: int, console: Console | None
) -> Converted:
    """Writes what is not there yet. folder: the dataset, locked. preprocessed: nnUNet_preprocessed."""
    dataset = folder.name
    remove_parts(folder)
    for subset in sorted({Path(target).parts[0] for case in conversion.cases for target in case.targets}):
        (folder / subset).mkdir(exist_ok=True)
    todo = [case for case in conversion.cases if not all((folder / target).is_file() for target in case.targets)]
    if todo:
        for_each(
            lambda case: write_case(case, folder, conversion.rules), todo, processes, f"Writing {dataset}", console
        )
    if conversion.folds is not None:
        # nnU-Net's planner copies the file from here; it is also put where training reads it
        write_json(conversion.folds, folder / SPLITS)
        if preprocessed is not None and not (preprocessed / dataset / SPLITS).is_file():
            (preprocessed / dataset).mkdir(exist_ok=True)
            write_json(conversion.folds, preprocessed / dataset / SPLITS)
    # without this file nnU-Net refuses the folder, so it comes last
    write_json(conversion.description, folder / "dataset.json")
    return Converted(folder, conversion, len(todo))


def refuse_taken_id(dataset_id: int, dataset: str, roots: Sequence[Path]) -> None:
    """Raises ValueError if nnU-Net could not tell the ID from that of another dataset: it works with neither then."""
    for root in roots:
        for other in sharing_id(dataset_id, datasets_in(root)):
            if dataset_id_of(other) != dataset_id:
                raise ValueError(
                    f"ID {dataset_id} and that of {other} in {root} begin with the same digits, by which nnU-Net "
                    "finds data sets; give another one with -d"
                )
            if other != dataset:
                raise ValueError(f"ID {dataset_id} is taken by {other} in {root}; give another one with -d")


def refuse_other_split(folds: list[Fold] | None, preprocessed: Path, first: bool) -> None:
    """Raises ValueError if training would use a split that is there already and differs.

    folds: None leaves it to nnU-Net. first: nothing of this conversion is there yet, so neither is nnU-Net's split.
    """
    file = preprocessed / SPLITS
    if (folds is not None or first) and (found := SPLITS_JSON.read_if_there(file)) is not None and found != folds:
        raise ValueError(
            f"{file} holds {count(len(found), 'fold')} of another split; remove "
            f"{preprocessed} if it belongs to an earlier dataset, or give another ID with -d"
        )
