"""The manifest beside a converted dataset: the request, and what it led to, so that the same command continues."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba import __version__
from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.common.json_reading import JsonFileError, JsonKind
from nnunetv2_slicemamba.datasets.channels import CHANNEL_SUFFIX
from nnunetv2_slicemamba.datasets.conversion import Conversion
from nnunetv2_slicemamba.datasets.part_files import holds_parts_only, write_whole
from nnunetv2_slicemamba.datasets.request import Request
from nnunetv2_slicemamba.datasets.source_files import TIFF, files_below, image_endings

MANIFEST = "slicemamba_convert.json"
SCHEMA = 1
_REMEDY = "Remove the folder, or give another ID with -d"
_MANIFEST = JsonKind(
    "the manifest of a conversion",
    {
        "schema": int,
        "version?": str,
        "request?": dict,
        "sources?": str,
        "cases?": [dict],
        "rules?": dict,
        "folds?": ([dict], None),
        "description?": dict,
        "notes?": [str],
    },
    _REMEDY,
)
VOLUME_ENDINGS = frozenset({".nii", ".gz", ".nrrd", ".mha", ".gipl", ".npz", ".h5", ".txt"})


def fingerprint(sources: Sequence[Path]) -> str:
    """A digest of names, sizes and modification times of all files that a conversion could read."""
    digest = hashlib.sha256()
    for source in sources:
        files = files_below(source)
        # the voxel size of a stack lies in a file named as its case
        stacks = {CHANNEL_SUFFIX.sub("", str(p.with_suffix(""))) for p in files if p.suffix.lower() in TIFF}
        for path in files:
            is_size = path.suffix == ".json" and str(path.with_suffix("")) in stacks
            if is_size or path.suffix.lower() in image_endings() | VOLUME_ENDINGS:
                status = path.stat() if path.exists() else path.lstat()
                name = os.fsencode(path.relative_to(source))  # need not be text
                digest.update(name + f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def write_manifest(request: Request, conversion: Conversion, sources: str, folder: Path) -> None:
    """Writes the manifest into the new dataset's folder. sources: their fingerprint."""
    values = {"schema": SCHEMA, "version": __version__, "request": request.as_json(), "sources": sources}
    write_json(values | conversion.as_json(), folder / MANIFEST)


def read_begun(request: Request, folder: Path, sources: str) -> Conversion | None:
    """The conversion that an earlier call with the same request began, or None if there is no target yet.

    ValueError if the target is something else, was made with other options, or the source has changed since.
    """
    if not folder.exists() or holds_parts_only(folder):
        return None
    remedy = "remove it, or give another ID with -d"
    file = folder / MANIFEST
    if not file.is_file():
        raise ValueError(f"{folder} exists and was not made by slicemamba convert; {remedy}")
    manifest = _MANIFEST.read(file)
    if manifest["schema"] != SCHEMA:
        raise ValueError(f"{folder} was made by another version of slicemamba ({manifest.get('version')}); {remedy}")
    wanted = plain_json(request.as_json())
    given = manifest["request"]
    differing = [key for key in wanted | given if given.get(key) != wanted.get(key)]
    if differing:
        told = "; ".join(f"{key}: {given.get(key)}, now {wanted.get(key)}" for key in differing)
        raise ValueError(f"{folder} was converted with other options ({told}); {remedy}")
    if manifest["sources"] != sources:
        raise ValueError(f"{folder} was begun from the same source, whose files have changed since; {remedy}")
    try:
        return Conversion.from_json(manifest)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise JsonFileError(file, f"is not {_MANIFEST.name} ({type(error).__name__}: {error})", _REMEDY) from error


def write_json(values: Any, target: Path) -> None:
    """Indented JSON, whole or not at all."""

    def write(part: Path) -> None:
        part.write_text(json.dumps(values, indent=2) + "\n")

    write_whole(target, write)
