"""JSON files, read: whatever is wrong with one, the error names the file, the place in it and the remedy."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_shape import Shape, mismatch
from nnunetv2_slicemamba.common.special_files import special_kind

MOST_DIGITS = 300  # a whole number of more is no `float` any longer


class JsonFileError(InputError):
    """A JSON file that is missing, damaged, or not what it should be. file: which. reason: without the remedy."""

    def __init__(self, file: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{file} {reason}. {remedy}")
        self.file, self.reason = file, reason


@dataclass(frozen=True)
class JsonKind:
    """A kind of JSON file.

    name: for people, "a summary of nnU-Net's validation". shape: of its content, see json_shape. remedy: a sentence
    that says what makes such a file anew. for_nnunet: whether nnU-Net reads the file too, which takes no byte order
    mark in front of it.
    """

    name: str
    shape: Shape
    remedy: str
    for_nnunet: bool = False

    def read(self, file: Path, remedy: str | None = None) -> Any:
        """The content of a file of this kind. remedy: in place of the kind's own. Raises JsonFileError."""
        file, advice = Path(file), remedy or self.remedy
        if kind := special_kind(file):
            raise JsonFileError(file, f"is {kind}, which is not read", advice)
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise JsonFileError(file, f"cannot be read ({error.strerror or error})", advice) from error
        if self.for_nnunet and raw.startswith(codecs.BOM_UTF8):
            reason = "begins with a byte order mark (BOM), which nnU-Net cannot read"
            raise JsonFileError(file, reason, "Save it as UTF-8 without one")
        try:
            content = loads(raw)
        except ValueError as error:
            raise JsonFileError(file, f"is no JSON: {error}", advice) from error
        self.check(content, file, advice)
        return content

    def check(self, content: Any, file: Path, remedy: str | None = None) -> None:
        """Raises JsonFileError unless `content`, which was read from `file`, has the shape of this kind."""
        wrong = mismatch(content, self.shape)
        if wrong is not None:
            raise JsonFileError(file, f"is not {self.name}: {wrong}", remedy or self.remedy)

    def read_if_there(self, file: Path) -> Any:
        """`read`, or None if there is no such file."""
        return self.read(file) if file.is_file() else None

    def is_readable(self, file: Path) -> bool:
        """True if there is such a file and `read` takes it."""
        try:
            self.read(file)
        except JsonFileError:
            return False
        return True


def loads(raw: bytes) -> Any:
    """The value of JSON text in UTF-8, with or without a byte order mark.

    Raises ValueError that says what is wrong and where, for all that is no JSON or too large to be worked with.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is not UTF-8 (byte 0x{raw[error.start]:02x})") from error
    if not text.strip("\0 \t\r\n"):
        raise ValueError("it is empty" if not text.strip() else "it holds nothing but zeros")
    try:
        return json.loads(text, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def _whole_number(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"the number {text[:20]}... has {len(text)} digits, {MOST_DIGITS} are the most")
    return int(text)
