"""Checkpoints and pickles, read without running any code that they name.

PyTorch is imported only when a checkpoint is read.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import pickle
import pickletools
import re
import reprlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_slicemamba.common.archive import DamagedArchiveError, check_archive, is_archive
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.special_files import require_no_special

if TYPE_CHECKING:
    import torch

DOWNLOAD = "is the download complete?"
UNTRUSTED = (
    "If you trust its origin, save its weights alone with torch in the environment it comes from, and give that file"
)


class PlainDtype:
    """Stand-in for a numpy dtype: its code, such as "f8", and its byte order."""

    def __init__(self, code: str, *rest: Any) -> None:
        self.code, self.order = str(code).lstrip("<>=|"), "<"

    def __setstate__(self, state: Any) -> None:
        if state[1] == ">":
            self.order = ">"


NUMBERS = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")


def plain_scalar(dtype: PlainDtype, data: bytes | str) -> np.generic:
    """A pickled numpy number. Raises UnpicklingError for any other kind of value."""
    if dtype.code not in NUMBERS:
        raise pickle.UnpicklingError(f"a number of numpy's type {dtype.code[:20]!r} cannot be read")
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype=dtype.order + dtype.code, count=1)[0]


# names that checkpoints hold beside tensors -> harmless stand-ins, none of which runs what a file says
STAND_INS: dict[str, Any] = {
    "numpy.core.multiarray.scalar": plain_scalar,
    "numpy._core.multiarray.scalar": plain_scalar,
    "numpy.dtype": PlainDtype,
    # torch's loader fills no dict of another type
    "yacs.config.CfgNode": OrderedDict,
}


def read_checkpoint(
    path: Path,
    remedy: str = DOWNLOAD,
    untrusted: str = UNTRUSTED,
    device: torch.device | str = "cpu",
    tensors: bool = True,
) -> Any:
    """Content of a torch.save file, through torch's weights-only loader.

    Numbers of numpy are read as such, yacs settings as dicts. remedy, untrusted: what to do about a file that cannot
    be read, and about one that names code. tensors: False maps the file into memory and leaves the tensors' bytes
    unread, and their checksums unchecked. Raises InputError if the file is none, is damaged (see check_archive), or
    holds objects that only running its code could restore.
    """
    import torch

    require_file(path, remedy)
    try:
        archive = is_archive(path)
        if archive:
            check_archive(path, tensors)
        with _stand_ins_alone():
            return torch.load(path, map_location=device, weights_only=True, mmap=archive and not tensors)
    except DamagedArchiveError as error:
        raise InputError(f"{path} cannot be read: {error}; {remedy}") from None
    except pickle.UnpicklingError as error:
        if named := _named(error):
            raise InputError(
                f"{path} is not read: it holds more than weights, and restoring that could run code of whoever wrote "
                f"it (it names {named}). {untrusted}"
            ) from None
        raise InputError(f"{path} is not read: it is damaged or no checkpoint ({_reason(error)}); {remedy}") from None
    except PermissionError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); make it readable") from None
    except Exception as error:  # whatever torch's reader raises for bytes that are no checkpoint
        raise InputError(
            f"{path} cannot be read as a PyTorch checkpoint: it is damaged, or a file of another kind "
            f"({type(error).__name__}: {_reason(error)}); {remedy}"
        ) from error


@contextlib.contextmanager
def _stand_ins_alone() -> Iterator[None]:
    """Nothing that other code has allowed torch's loader is allowed, and all of it again afterwards."""
    from torch import serialization

    before = serialization.get_safe_globals()
    serialization.clear_safe_globals()
    serialization.add_safe_globals(safe_globals())
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def safe_globals() -> list[Any]:
    """The stand-ins, as torch.serialization.add_safe_globals takes them."""
    return [(value, name) for name, value in STAND_INS.items()]


def read_plain_pickle(path: Path) -> Any:
    """A pickle of plain values (numbers, text, tuples, lists, dicts); InputError if it names anything else."""
    require_file(path)
    try:
        return _unpickled(path, STAND_INS)
    except Exception as error:  # whatever bytes that are no pickle make it raise
        raise InputError(
            f"{path} is not read: it is no pickle of plain numbers, tuples and dicts ({_reason(error)})"
        ) from error


class _Inert:
    """Takes the place of a NumPy array or type in a pickle that is only examined."""

    def __init__(self, *arguments: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


_ARRAYS = {
    **{
        f"numpy.{core}.{name}": _Inert
        for core in ("core", "_core")
        for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    },
    **{f"numpy.{name}": _Inert for name in ("ndarray", "dtype")},
    **{f"{module}.{kind.__name__}": kind for module in ("builtins", "__builtin__") for kind in (set, frozenset)},
    **{f"{module}.slice": _Inert for module in ("builtins", "__builtin__")},
    "collections.OrderedDict": OrderedDict,
}


def check_array_pickle(path: Path, remedy: str) -> None:
    """Raises InputError unless a pickle holds plain values and NumPy arrays only, as nnU-Net's of a case does.

    After that, unpickling it runs nothing but NumPy's own code.
    """
    require_file(path, remedy)
    try:
        _unpickled(path, _ARRAYS)
    except Exception as error:  # whatever bytes that are no pickle make it raise
        raise InputError(
            f"{path} is not read: it is no pickle of plain values and NumPy arrays ({_reason(error)}); {remedy}"
        ) from error


def names_in(content: Mapping[Any, Any]) -> str:
    """The first names of a checkpoint's entries, for messages. Other keys may be as large as a file likes."""
    first = [key if isinstance(key, str) else reprlib.repr(key) for key in itertools.islice(content, 20)]
    return ", ".join(first)[:200] or "nothing"


def require_file(path: Path, remedy: str = "give or make another") -> None:
    """Raises InputError unless there is such a file with something in it. remedy: for an empty one."""
    require_no_special(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}; give the path of one")
    if not path.stat().st_size:
        raise InputError(f"{path} is empty, a kill or a full disk may have left it so; {remedy}")


def _unpickled(path: Path, known: Mapping[str, Any]) -> Any:
    content = path.read_bytes()
    # compares lengths with what is there; Python's reader also takes memory for the largest number of its memo at once
    end = 0
    for operation, argument, position in pickletools.genops(content):
        end = position or 0
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise pickle.UnpicklingError(f"it numbers {argument} objects in {len(content)} bytes")
    if end + 1 < len(content):
        raise pickle.UnpicklingError(f"{len(content) - end - 1} bytes follow the end of its pickle")
    return _PlainUnpickler(io.BytesIO(content), known).load()


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler that knows no code but the stand-ins; see "Restricting Globals" in Python's documentation of pickle."""

    def __init__(self, file: Any, known: Mapping[str, Any]) -> None:
        super().__init__(file)
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        try:
            return self._known[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to data outside itself")


def _latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def _named(error: BaseException) -> str | None:
    """The code that a pickle names, from torch's refusal of it; None for another error."""
    found = re.search(r"(?:GLOBAL|unrecognized function) (.+?)(?: was not an allowed| whose module|$)", str(error))
    return found[1][:160] if found else None


def _reason(error: BaseException) -> str:
    """An error of a reader in short."""
    # torch's advice to switch the protection off comes before what happened
    text = " ".join(str(error).split()).rpartition("WeightsUnpickler error: ")[2]
    return text[:160] or type(error).__name__
