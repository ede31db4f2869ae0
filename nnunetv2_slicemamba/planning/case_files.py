"""Files of preprocessed cases that cannot be read, found by their heads and ends, without decompressing anything."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def damaged_cases(data: Path, cases: Iterable[str]) -> dict[str, str]:
    """The cases in a folder of preprocessed data that cannot be read, and what is wrong with the first file of each.

    An empty, missing or cut file is found, and one that holds zeros; not one whose compressed values were changed.
    """
    is_blosc2 = any(data.glob("*.b2nd"))  # as nnU-Net tells its formats apart
    endings = (".pkl", ".b2nd", "_seg.b2nd") if is_blosc2 else (".pkl", ".npz")
    found = {}
    for case in cases:
        wrong = next(filter(None, (_damage(data / f"{case}{ending}") for ending in endings)), None)
        if wrong is not None:
            found[case] = wrong
    return found


def _damage(file: Path) -> str | None:
    if not file.is_file():
        return f"there is no {file}"
    if not file.stat().st_size:
        return f"{file} is empty"
    try:
        _READERS[file.suffix](file)
    except (OSError, ValueError, RuntimeError, LookupError, EOFError, zipfile.BadZipFile) as error:
        return f"{file} cannot be read ({type(error).__name__}: {error})"
    # nnU-Net may have unpacked it
    unpacked = [file.with_suffix(".npy"), file.with_name(f"{file.stem}_seg.npy")] if file.suffix == ".npz" else []
    return next(filter(None, map(_damage, filter(Path.is_file, unpacked))), None)


def _read_pickle(file: Path) -> None:
    # the instructions one by one, none of which is carried out
    with file.open("rb") as opened:
        for _ in pickletools.genops(opened):
            pass


def _read_blosc2(file: Path) -> None:
    import blosc2

    blosc2.open(urlpath=str(file), mode="r")  # head and trailer, at both ends of the file


def _read_zip(file: Path) -> None:
    with zipfile.ZipFile(file):  # the list of its arrays is at its end
        pass


def _read_numpy(file: Path) -> None:
    np.load(file, mmap_mode="r", allow_pickle=False)


_READERS = {".pkl": _read_pickle, ".b2nd": _read_blosc2, ".npz": _read_zip, ".npy": _read_numpy}
