"""nnU-Net's readers of images: the one that nnU-Net itself will use for a dataset. nnU-Net is imported when asked."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.silence import silently

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

# a name for annotations
Reader: TypeAlias = "type[BaseReaderWriter]"


def find_reader(dataset_json: Mapping[str, Any] | None, file_ending: str, example: Path) -> Reader:
    """nnU-Net's reader for a dataset, or for a file ending where there is no dataset.json.

    example: a file that decides between readers of one ending. Raises InputError if nnU-Net has no reader.
    """
    from nnunetv2.imageio.reader_writer_registry import (
        determine_reader_writer_from_dataset_json,
        determine_reader_writer_from_file_ending,
    )

    def choose(file: str | None) -> Reader:
        if dataset_json is not None:
            return determine_reader_writer_from_dataset_json(dict(dataset_json), file, verbose=False)
        return determine_reader_writer_from_file_ending(file_ending, file, verbose=False)

    with silently():  # the readers print warnings, and whole tracebacks of what they raise anyway
        for file in (str(example), None):  # that file may be the broken one: then by the ending alone
            with contextlib.suppress(RuntimeError):
                return choose(file)
    raise InputError(f"nnU-Net has no reader for files that end with {file_ending!r}")


def reason_of(error: Exception) -> str:
    """The last line of an exception's message: those of ITK begin with places in its source."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1]
