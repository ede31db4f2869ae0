"""Packer of unfinished trainings of accuracy.py: they go on, bit by bit the same, on another machine.

    python benchmarks/carry.py pack WORK PARTS [--limit MIB] [--part MIB]    # at the end of a machine's time
    python benchmarks/carry.py unpack PARTS WORK                             # on the next one, before accuracy.py
    python benchmarks/carry.py pack WORK PARTS --finished                    # trained models, to be used

PARTS is a new folder. Its folders 0, 1, ... are copied one by one. Each has at most --limit MiB, files of at most
--part MiB, and index.json with their hashes. A training's checkpoint is kept to the last bit, compressed. Trainings
that have come furthest are packed first. One that is larger than --limit is named, and the exit code is 1. Trainings
may run meanwhile: what is packed is their latest checkpoint. `unpack` takes the folders that are there, checks all
parts before it writes, and leaves files alone that are there. --finished packs the models of finished trainings,
without the optimiser's state: unpacked, they lie in WORK/runs/RUN/nnUNet_results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MIB = 2**20
INDEX = "index.json"
# nnU-Net deletes the latest when it has written the final one
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth")
SUMMARY = Path("validation") / "summary.json"
MODEL = ("plans.json", "dataset.json", "dataset_fingerprint.json")


def packed(data: bytes) -> bytes:
    """Compressed bytes. Of float32 numbers the first bytes, then the second ones, ...: signs and exponents repeat."""
    padded = np.frombuffer(data + bytes(-len(data) % 4), np.uint8)
    return zlib.compress(padded.reshape(-1, 4).T.tobytes(), level=1)


def unpacked(data: bytes, size: int) -> bytes:
    """The `size` bytes that `packed` was given."""
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(4, -1).T.tobytes()[:size]


@dataclass(frozen=True)
class Found:
    """A training to pack. epochs: that are done. files: to pack, the first its notes."""

    run: str
    epochs: int
    files: list[Path]


def trainings(work: Path, finished: bool) -> list[Found]:
    """The trainings that have a validation, or those that have a checkpoint and none; the furthest first."""
    found = []
    for notes in sorted((work / "runs").glob("*/notes.json")):
        saved = [file for name in CHECKPOINTS for file in sorted(notes.parent.rglob(name))][:1]
        if not saved or (saved[0].parent / SUMMARY).is_file() != finished:
            continue
        fold = saved[0].parent
        more = [fold / SUMMARY, *(fold.parent / name for name in MODEL)] if finished else []
        epochs = len(json.loads(notes.read_text()).get("epochs", {}).get("seconds", []))
        found.append(Found(notes.parent.name, epochs, [notes, *saved, *(file for file in more if file.is_file())]))
    return sorted(found, key=lambda one: -one.epochs)


def content_of(file: Path, finished: bool) -> bytes:
    """Bytes of a file as it is packed: as it is, but for a finished training's checkpoint."""
    if not finished or file.name not in CHECKPOINTS:
        return file.read_bytes()
    from nnunetv2_slicemamba.common.checkpoints import read_training
    from nnunetv2_slicemamba.exporting.model_zip import bytes_of, without_optimizer

    return bytes_of(without_optimizer(read_training(file, "train the fold anew")))


def pack(work: Path, parts: Path, limit: float, part: float, finished: bool = False) -> list[str]:
    """Packs trainings into folders `parts`/0, 1, ... of at most `limit` MiB; the names of those that are larger.

    Raises ValueError for a folder that is not empty.
    """
    if parts.is_dir() and any(parts.iterdir()):
        raise ValueError(f"{parts} is not empty: give a new folder, so that no parts of two times are mixed")
    indices: list[list[dict[str, Any]]] = []
    sizes: list[int] = []
    left_out = []
    for one in trainings(work, finished):
        contents = [(file, content_of(file, finished)) for file in one.files]
        made = [packed(data) for _, data in contents]
        size = sum(map(len, made))
        if size > limit * MIB:
            left_out.append(f"{one.run}, which has {size / MIB:.1f} MiB")
            continue
        box = next((i for i, used in enumerate(sizes) if used + size <= limit * MIB), len(sizes))
        if box == len(sizes):
            sizes.append(0)
            indices.append([])
            (parts / str(box)).mkdir(parents=True)
        sizes[box] += size
        for (file, data), small in zip(contents, made, strict=True):
            entry = {"file": str(file.relative_to(work)), "bytes": len(data), "sha256": _hash(data)}
            pieces = _write_pieces(parts / str(box), len(indices[box]), small, int(part * MIB))
            indices[box].append({**entry, "parts": pieces})
    for box, index in enumerate(indices):
        (parts / str(box) / INDEX).write_text(json.dumps(index, indent=1))
    return left_out


def _write_pieces(folder: Path, number: int, data: bytes, step: int) -> list[dict[str, str]]:
    """Writes file `number` of a folder in pieces of at most `step` bytes; their names and hashes."""
    found = []
    for start in range(0, len(data), step):
        name, piece = f"{number:03d}.{start // step:03d}", data[start : start + step]
        (folder / name).write_bytes(piece)
        found.append({"name": name, "sha256": _hash(piece)})
    return found


def unpack(parts: Path, work: Path) -> list[str]:
    """Writes what the folders in `parts` hold below `work`, but for files that are there; names of the files written.

    Raises ValueError naming a part that is missing or torn; nothing is written then.
    """
    entries = []
    for folder in sorted(file.parent for file in parts.glob(f"*/{INDEX}")):
        index = json.loads((folder / INDEX).read_text())
        for part in (part for entry in index for part in entry["parts"]):
            file = folder / part["name"]
            if not file.is_file() or _hash(file.read_bytes()) != part["sha256"]:
                raise ValueError(f"{file} is missing or torn; copy the parts again")
        entries += [(folder, entry) for entry in index]
    if not entries:
        raise ValueError(f"{parts} holds no folder with {INDEX}; give the folder that `pack` wrote")
    written = []
    for folder, entry in entries:
        target = work / entry["file"]
        if not target.resolve().is_relative_to(work.resolve()):
            raise ValueError(f"{folder / INDEX} names {entry['file']}, which is outside of {work}")
        if target.exists():
            continue
        data = unpacked(b"".join((folder / part["name"]).read_bytes() for part in entry["parts"]), entry["bytes"])
        if _hash(data) != entry["sha256"]:
            raise ValueError(f"{entry['file']} in {folder} is not what was packed; copy the parts again")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.part")
        temporary.write_bytes(data)
        os.replace(temporary, target)
        written.append(entry["file"])
    return written


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main(given: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 if a training had no room, 2 for folders that cannot be worked with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("pack", "unpack"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--limit", type=float, default=63, help="MiB of a folder at most")
    parser.add_argument("--part", type=float, default=15.9, help="MiB of a part at most")
    parser.add_argument("--finished", action="store_true", help="pack trained models in place of unfinished trainings")
    arguments = parser.parse_args(given)
    try:
        if arguments.do == "unpack":
            print("written:", *unpack(arguments.source, arguments.target), sep="\n  ")
            return 0
        places, sizes = (arguments.source, arguments.target), (arguments.limit, arguments.part)
        left_out = pack(*places, *sizes, arguments.finished)
    except (ValueError, OSError) as error:
        print(f"error: {error}")
        return 2
    for folder in sorted(arguments.target.glob("*")):
        print(f"{folder}: {sum(file.stat().st_size for file in folder.iterdir()) / MIB:.1f} MiB")
    print(*(f"no room for {run}" for run in left_out), sep="\n")
    return int(bool(left_out))


if __name__ == "__main__":
    sys.exit(main())
