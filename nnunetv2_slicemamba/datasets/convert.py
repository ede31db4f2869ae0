"""Writing a conversion to nnUNet_raw, so that an interrupted one is continued and nothing foreign is overwritten."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from nnunetv2_slicemamba import __version__
from nnunetv2_slicemamba.datasets.cases import atomically, write_case
from nnunetv2_slicemamba.datasets.conversion import Conversion, Request, check_request
from nnunetv2_slicemamba.datasets.image_converter import prepare_images
from nnunetv2_slicemamba.datasets.pairing import ENDINGS
from nnunetv2_slicemamba.datasets.parallel import for_each
from nnunetv2_slicemamba.datasets.problems import count
from nnunetv2_slicemamba.datasets.splits import Fold
from nnunetv2_slicemamba.datasets.volume_converter import prepare_volumes

MANIFEST = "slicemamba_convert.json"
SCHEMA = 1
SOURCE_ENDINGS = (*ENDINGS, ".nii", ".gz", ".npz", ".h5", ".txt")


@dataclass(frozen=True)
class Converted:
    """folder: the dataset in nnUNet_raw. written: cases written now; the others were there already."""

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
    check_request(request)
    folder = raw / request.dataset
    refuse_taken_id(request, [root for root in (raw, preprocessed, results) if root is not None])
    sources = fingerprint(request.sources)
    begun = read_begun(request, folder, sources)
    if begun is None:
        prepare = prepare_volumes if request.key == "synapse" else prepare_images
        conversion = prepare(request, processes, console)
    else:
        conversion = begun
    if preprocessed is not None:
        refuse_other_split(conversion.folds, preprocessed / request.dataset, begun is None)

    # first of all: a folder without it is taken for somebody else's
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"schema": SCHEMA, "version": __version__, "request": request.as_json(), "sources": sources}
    write_json(manifest | conversion.as_json(), folder / MANIFEST)
    for rest in folder.rglob(".part_*"):
        rest.unlink()
    for subset in sorted({Path(target).parts[0] for case in conversion.cases for target in case.targets}):
        (folder / subset).mkdir(exist_ok=True)
    todo = [case for case in conversion.cases if not all((folder / target).is_file() for target in case.targets)]
    if todo:
        for_each(
            lambda case: write_case(case, folder, conversion.rules),
            todo,
            processes,
            f"Writing {request.dataset}",
            console,
        )
    if conversion.folds is not None:
        # nnU-Net's planner copies the file from here; it is also put where training reads it
        write_json(conversion.folds, folder / "splits_final.json")
        if preprocessed is not None:
            (preprocessed / request.dataset).mkdir(parents=True, exist_ok=True)
            write_json(conversion.folds, preprocessed / request.dataset / "splits_final.json")
    # without this file nnU-Net refuses the folder, so it comes last
    write_json(conversion.description, folder / "dataset.json")
    return Converted(folder, conversion, len(todo))


def fingerprint(sources: Sequence[Path]) -> str:
    """A digest of names, sizes and modification times of all files that a conversion could read."""
    digest = hashlib.sha256()
    for source in sources:
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in SOURCE_ENDINGS and not path.name.startswith(".") and path.is_file():
                status = path.stat()
                digest.update(f"{path.relative_to(source)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def read_begun(request: Request, folder: Path, sources: str) -> Conversion | None:
    """The conversion that an earlier call with the same request began, or None if there is no target yet.

    ValueError if the target is something else, was made with other options, or the source has changed since.
    """
    if not folder.exists() or all(path.name.startswith(".part_") for path in folder.iterdir()):
        return None
    remedy = "remove it, or give another ID with -d"
    file = folder / MANIFEST
    if not file.is_file():
        raise ValueError(f"{folder} exists and was not made by slicemamba convert; {remedy}")
    try:
        manifest = json.loads(file.read_text())
        schema = manifest["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read ({error}); {remedy}") from error
    if schema != SCHEMA:
        raise ValueError(f"{folder} was made by another version of slicemamba ({manifest.get('version')}); {remedy}")
    wanted = json.loads(json.dumps(request.as_json()))
    differing = [key for key, value in wanted.items() if manifest["request"].get(key) != value]
    if differing:
        told = "; ".join(f"{key}: {manifest['request'].get(key)}, now {wanted[key]}" for key in differing)
        raise ValueError(f"{folder} was converted with other options ({told}); {remedy}")
    if manifest["sources"] != sources:
        raise ValueError(f"{folder} was begun from the same source, whose files have changed since; {remedy}")
    return Conversion.from_json(manifest)


def refuse_taken_id(request: Request, roots: Sequence[Path]) -> None:
    """Raises ValueError if the ID belongs to another dataset: nnU-Net refuses to work with two."""
    for root in roots:
        for path in root.glob(f"Dataset{request.dataset_id:03d}_*"):
            if path.is_dir() and path.name != request.dataset:
                raise ValueError(f"ID {request.dataset_id} is taken by {path.name} in {root}; give another one with -d")


def refuse_other_split(folds: list[Fold] | None, preprocessed: Path, first: bool) -> None:
    """Raises ValueError if training would use a split that is there already and differs.

    folds: None leaves it to nnU-Net. first: nothing of this conversion is there yet, so neither is nnU-Net's split.
    """
    file = preprocessed / "splits_final.json"
    if (folds is not None or first) and file.is_file() and json.loads(file.read_text()) != folds:
        raise ValueError(
            f"{file} holds {count(len(json.loads(file.read_text())), 'fold')} of another split; remove "
            f"{preprocessed} if it belongs to an earlier dataset, or give another ID with -d"
        )


def write_json(values: Any, target: Path) -> None:
    def write(part: Path) -> None:
        part.write_text(json.dumps(values, indent=2) + "\n")

    atomically(target, write)
