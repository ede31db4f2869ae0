"""Archives as torch.save writes them: zip files of stored entries, each with a checksum."""

from __future__ import annotations

import zipfile
from pathlib import Path

SIGNATURE = b"PK\x03\x04"  # with which PyTorch tells its archives from its older format
_BLOCK = 1 << 20


class DamagedArchiveError(ValueError):
    """An archive that is cut off, changed, or claims more than it holds; the message says what is wrong with it."""


def is_archive(path: Path) -> bool:
    """True if a file begins as torch.save's archives do."""
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def check_archive(path: Path, tensors: bool = True) -> None:
    """Raises DamagedArchiveError unless an archive is whole and its entries have the checksums written with them.

    tensors: False leaves the tensors' bytes unread, which are nearly all of a checkpoint. PyTorch itself compares no
    checksum (CRC-32). Sizes are compared with the file's before memory is taken for them: torch.save compresses
    nothing. An archive written with torch.serialization.set_crc32_options(False) has no checksums to compare.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_sizes(entries, path.stat().st_size)
            if not any(entry.CRC for entry in entries):
                return
            for entry in entries:
                if tensors or "/data/" not in entry.filename:
                    _check_content(archive, entry)
    except zipfile.BadZipFile as error:
        raise DamagedArchiveError(f"it begins as a checkpoint, but its end is missing or damaged ({error})") from None


def _check_sizes(entries: list[zipfile.ZipInfo], available: int) -> None:
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise DamagedArchiveError(
                f"its entry {entry.filename!r} is compressed, from {entry.file_size} bytes to {entry.compress_size}, "
                "and torch.save compresses nothing"
            )
    claimed = sum(entry.file_size for entry in entries)
    if claimed > available:
        raise DamagedArchiveError(f"its entries claim {claimed} bytes, the file has {available}")


def _check_content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    try:
        with archive.open(entry) as content:  # compares the checksum at the end
            while content.read(_BLOCK):
                pass
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DamagedArchiveError(f"its entry {entry.filename!r} was changed after it was written ({error})") from None
