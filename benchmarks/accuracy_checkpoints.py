"""Unfinished trainings, packed into parts that are small enough to be carried away, and unpacked to go on."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from accuracy_results import CHECKPOINTS, RunFolder

PART = 15 * 2**20


def _needed(folder: RunFolder) -> list[Path]:
    """The latest checkpoint, the notes and the slicing file; nothing where there is no checkpoint."""
    names = ("checkpoint_final.pth", *CHECKPOINTS)
    latest = next((folder.fold / name for name in names if (folder.fold / name).is_file()), None)
    if latest is None:
        return []
    slicings = folder.results.glob("*/*/fold_*/slicing_search/best_slicing.json")
    return [latest, *(file for file in (folder.state, *slicings) if file.is_file())]


def pack(folder: RunFolder, out: Path, most: int) -> list[Path]:
    """Writes NAME.tar.00, .01, ... of at most PART bytes to `out`; nothing if that were more than `most` bytes."""
    discard(folder, out)
    files = _needed(folder)
    if not files or sum(file.stat().st_size for file in files) > most:
        return []
    # weights do not compress
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for file in files:
            archive.add(file, file.relative_to(folder.root))
    content, parts = packed.getbuffer(), []
    out.mkdir(parents=True, exist_ok=True)
    for i, start in enumerate(range(0, len(content), PART)):
        part = out / f"{folder.run.name}.tar.{i:02d}"
        part.write_bytes(content[start : start + PART])
        parts.append(part)
    return parts


def discard(folder: RunFolder, out: Path) -> None:
    """Removes what an earlier `pack` wrote."""
    for part in _parts(folder, out):
        part.unlink()


def _parts(folder: RunFolder, source: Path) -> list[Path]:
    return sorted(source.glob(f"{folder.run.name}.tar.[0-9][0-9]"))


def unpack(folder: RunFolder, sources: Iterable[Path]) -> bool:
    """Restores a packed training where the run has not begun; whether there was one."""
    if folder.fold.is_dir():
        return False
    for source in sources:
        parts = _parts(folder, source)
        if parts:
            folder.root.mkdir(parents=True, exist_ok=True)
            with tarfile.open(fileobj=io.BytesIO(b"".join(_contents(parts)))) as archive:
                archive.extractall(folder.root, filter="data")
            return True
    return False


def _contents(parts: list[Path]) -> Iterator[bytes]:
    for part in parts:
        yield part.read_bytes()
