"""Checkpoints and pickles from elsewhere, read without running any code that they name.

PyTorch is imported only when a checkpoint is read.
"""

from __future__ import annotations

import contextlib
import pickle
import struct
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.folders import InputError


class PlainDtype:
    """Stand-in for a numpy dtype: its code, such as "f8"."""

    def __init__(self, code: str, *rest: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like; numbers of published files are little-endian."""


FORMATS = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "u8": "<Q", "b1": "?"}


def plain_scalar(dtype: PlainDtype, data: bytes | str) -> float | int:
    """The Python number of a pickled numpy scalar; ValueError for any other kind of value."""
    code = dtype.code.lstrip("<=|")
    if code not in FORMATS:
        raise ValueError(f"a number of numpy's type {dtype.code!r} cannot be read")
    raw = data.encode("latin1") if isinstance(data, str) else data
    return struct.unpack(FORMATS[code], raw)[0]


# names that published checkpoints hold beside tensors -> harmless stand-ins, none of which runs what a file says
STAND_INS: dict[str, Any] = {
    "numpy.core.multiarray.scalar": plain_scalar,
    "numpy._core.multiarray.scalar": plain_scalar,
    "numpy.dtype": PlainDtype,
    # torch's loader fills no dict of another type
    "yacs.config.CfgNode": OrderedDict,
}


def read_checkpoint(path: Path) -> Any:
    """Content of a torch.save file, on the CPU, through torch's weights-only loader.

    Numbers of numpy and yacs settings, which published trainings save along, are read as plain numbers and dicts.
    Raises InputError if the file is none, is damaged, or holds objects that only running its code could restore.
    """
    import torch

    require_file(path)
    try:
        with _stand_ins_allowed():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is not read: it is damaged, or holds more than weights, and restoring that could run code of "
            f"whoever wrote it ({_first_sentence(error)}). If you trust its origin, save its weights alone with torch "
            "in the environment it comes from, and import that file"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as a PyTorch checkpoint ({type(error).__name__}: {_first_sentence(error)}); "
            "is the download complete?"
        ) from error


def read_plain_pickle(path: Path) -> Any:
    """A pickle of plain values (numbers, text, tuples, lists, dicts); InputError if it names anything else."""
    require_file(path)
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not read: it is no pickle of plain numbers, tuples and dicts ({_first_sentence(error)})"
        ) from error


def require_file(path: Path) -> None:
    """Raises InputError unless there is such a file."""
    if not path.is_file():
        raise InputError(f"there is no file {path}; give the path of a checkpoint")


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler that knows no code but the stand-ins; see "Restricting Globals" in Python's documentation of pickle."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode("latin1")
        try:
            return STAND_INS[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to data outside itself")


@contextlib.contextmanager
def _stand_ins_allowed() -> Iterator[None]:
    from torch import serialization

    with contextlib.ExitStack() as stack:
        # PyTorch before 2.6 has no stand-ins: such files are refused
        with contextlib.suppress(AttributeError, TypeError):
            stack.enter_context(serialization.safe_globals([(value, name) for name, value in STAND_INS.items()]))
        yield


def _first_sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    # torch's advice to switch the protection off comes before what happened
    text = text.rpartition("WeightsUnpickler error: ")[2].removeprefix("Unsupported global: GLOBAL ")
    named, _, rest = text.partition(" was not an allowed global")
    return f"it names {named}" if rest else text[:160] or type(error).__name__
