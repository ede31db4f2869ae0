"""Files that make a marker appear when a reader runs what they say: checkpoints, pickles and archives."""

from __future__ import annotations

import io
import os
import pickle
import runpy
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Call:
    """Pickled as the call of a function, which a reader makes unless it is careful."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def touching(marker: Path) -> Call:
    """The plainest of them."""
    return Call(os.system, f"touch '{marker}'")


def calls(marker: Path) -> dict[str, Any]:
    """Objects whose unpickling makes the marker, by what they use."""
    code = f"open({str(marker)!r}, 'w').close()"
    inner = pickle.dumps(Call(exec, code))
    hidden = marker.with_name(f"{marker.name}.hidden")
    hidden.write_bytes(inner)
    return {
        "system": touching(marker),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "call": Call(subprocess.call, ["touch", str(marker)]),
        "getattr": Call(Path.touch, marker),
        "codecs": Call(exec, code.encode()),  # protocol 2 writes bytes as a call of _codecs.encode
        "pickle in a pickle": Call(pickle.loads, inner),
        "torch.load": Call(partial(torch.load, str(hidden), weights_only=False)),
        "numpy scalar": np.array(Call(exec, code), dtype=object),
        "module's code": Call(runpy._run_code, Call(compile, code, "x", "exec"), {}),
    }


def checkpoint_with(value: Any, where: str) -> dict[str, Any]:
    """A checkpoint like nnU-Net's that holds `value` in one of its entries."""
    content: dict[str, Any] = {
        "network_weights": {"weight": torch.ones(2), "slicing": torch.full((7, 2), 2, dtype=torch.uint8)},
        "optimizer_state": {},
        "logging": {"train_losses": [np.float64(0.5)]},
        "init_args": {"configuration": "2d"},
        "trainer_name": "SliceMambaTrainer",
        "identity": {},
    }
    return content | ({where: value} if where not in content else {where: {**content[where], "x": value}})


def _old_tar(value: Any, path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in (("sys_info", {}), ("pickle", value), ("storages", 0), ("tensors", 0)):
            data = pickle.dumps(content, protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def _script_archive(value: Any, path: Path) -> None:
    """As torch.jit.save's, whose reader is another one."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"a/{name}", pickle.dumps(value, protocol=2))
        archive.writestr("a/version", "3\n")


def _newer_pickle(value: Any, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(value, protocol=4))
        archive.writestr("a/version", "3\n")


def _objects(value: Any, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, data=np.array([value], dtype=object))


def _pickled(protocol: int) -> Callable[[Any, Path], None]:
    return lambda value, path: path.write_bytes(pickle.dumps(value, protocol=protocol))


def malicious_files(folder: Path, marker: Path) -> Iterator[tuple[str, Path]]:
    """Writes the files, and gives what each is with its path."""
    found = calls(marker)
    system = found["system"]
    writers: dict[str, Callable[[Path], Any]] = {
        **{f"zip, {name}": lambda path, call=call: torch.save(call, path) for name, call in found.items()},
        **{
            f"zip, in {where}": lambda path, where=where: torch.save(checkpoint_with(system, where), path)
            for where in ("network_weights", "optimizer_state", "logging", "init_args", "identity", "another")
        },
        **{
            f"legacy, {name}": lambda path, value=value: torch.save(value, path, _use_new_zipfile_serialization=False)
            for name, value in (
                ("whole", system),
                ("codecs", found["codecs"]),
                ("in init_args", checkpoint_with(system, "init_args")),
                ("in network_weights", checkpoint_with(system, "network_weights")),
            )
        },
        **{f"pickle, protocol {n}": lambda path, n=n: _pickled(n)(system, path) for n in range(6)},
        "pickle, codecs": lambda path: _pickled(2)(found["codecs"], path),
        "pickle, nested": lambda path: _pickled(4)({"class_locations": {1: [system]}}, path),
        "pickle, in a set of arrays": lambda path: _pickled(4)(np.array([system, 1], dtype=object), path),
        "tar of PyTorch before 0.4": lambda path: _old_tar(system, path),
        "TorchScript": lambda path: _script_archive(system, path),
        "zip, protocol 4": lambda path: _newer_pickle(system, path),
        "npz of objects": lambda path: _objects(system, path),
    }
    for number, (name, write) in enumerate(writers.items()):
        path = folder / f"malicious_{number}.pth"
        write(path)
        yield name, path
