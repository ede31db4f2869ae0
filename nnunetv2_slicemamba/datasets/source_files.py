"""Files of a source: all of them, at any depth and behind links, and those that a conversion leaves out."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.special_files import require_no_special

# files that belong to no case, whose absence nobody would notice
_HARMLESS = (".txt", ".md", ".csv", ".json")
_HARMLESS_NAMES = ("thumbs.db", "desktop.ini")
TIFF = (".tif", ".tiff")
EXAMPLES = 3


@functools.cache
def image_endings() -> frozenset[str]:
    """Endings, in lower case with the dot, of the image formats that Pillow decodes by itself."""
    from PIL import Image, ImageFile

    endings = Image.registered_extensions()  # fills Image.OPEN, too
    # EPS is a program for another program, and of films and of stubs Pillow reads the header only
    readable = {
        name
        for name, (factory, _) in Image.OPEN.items()
        if name not in ("EPS", "MPEG")
        and not (isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile))
    }
    return frozenset(ending for ending, name in endings.items() if name in readable)


def is_hidden(path: Path) -> bool:
    """True for names that begin with a dot."""
    return path.name.startswith(".")


def is_source_file(path: Path) -> bool:
    """True for a file that is not hidden, and for a link that leads nowhere, which reading it will report.

    Raises InputError for pipes, sockets and devices.
    """
    if is_hidden(path):
        return False
    require_no_special(path)
    return path.is_file() or (path.is_symlink() and not path.exists())


def files_below(folder: Path) -> list[Path]:
    """All files at any depth, in order of their paths; hidden files and folders left out.

    Links to folders are followed. A folder that is reached in two ways is listed once, so that a loop of links ends.
    Raises OSError for a folder that cannot be read.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [path for name in files if is_source_file(path := Path(here, name))]
    return sorted(found)


def left_out(sources: Sequence[Path], used: Iterable[Path]) -> str:
    """The files of the sources that are not `used`, in words for a summary; empty if there are none.

    Files that belong to no case are not counted: hidden ones, texts, tables, JSON, and those that Windows makes.
    """
    taken = {os.path.realpath(path) for path in used}
    rest: dict[str, tuple[Path, Path]] = {}
    for source in sources:
        for path in files_below(source):
            harmless = path.suffix.lower() in _HARMLESS or path.name.lower() in _HARMLESS_NAMES
            if not harmless and (real := os.path.realpath(path)) not in taken:
                rest.setdefault(real, (path, source))
    if not rest:
        return ""
    kinds = Counter(path.suffix.lower() or "without ending" for path, _ in rest.values())
    told = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    names = [
        str((source.name if len(sources) > 1 else "") / path.relative_to(source))
        for path, source in list(rest.values())[:EXAMPLES]
    ]
    more = f" and {len(rest) - EXAMPLES} more" if len(rest) > EXAMPLES else ""
    return f"{count(len(rest), 'file')} of the source left out ({told}): {', '.join(names)}{more}"


def _raise(error: OSError) -> None:
    raise error
