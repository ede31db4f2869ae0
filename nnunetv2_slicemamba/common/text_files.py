"""Text files that others wrote, in whatever Unicode encoding they chose."""

from __future__ import annotations

import codecs
from pathlib import Path

# UTF-32's mark begins with UTF-16's
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, or in the encoding that its byte order mark names; the mark is left out.

    Raises ValueError that names the file and the line that cannot be decoded.
    """
    content = Path(path).read_bytes()
    encoding = _marked(content) or "utf-8"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: the byte 0x{content[error.start]:02x} does not fit {encoding}; save it as UTF-8"
        ) from error


def has_mark(path: str | Path) -> bool:
    """True if a file begins with a byte order mark."""
    with open(path, "rb") as file:
        return _marked(file.read(4)) is not None


def _marked(content: bytes) -> str | None:
    return next((name for mark, name in _MARKS if content.startswith(mark)), None)
