"""The durable record of a search: finished evaluations as lines of JSON, in files that only grow.

The process that runs the search, the writer, appends to SEARCH.jsonl, whose first line says which search it is; a
process that helps it (search.workers) appends to a file of its own beside it. Each evaluation is written before
anybody else hears of it, by a single call of the operating system: whichever process is killed, at whatever moment,
what was finished before is there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import socket
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.common.json_lines import entries_in
from nnunetv2_slicemamba.common.json_shape import Shape, mismatch
from nnunetv2_slicemamba.common.whole_file import replacing
from nnunetv2_slicemamba.search.ledger.storage import LedgerError, sqlite_file
from nnunetv2_slicemamba.search.records import Record

FORMAT = 2  # 1: lines without checksums, one header
_CHECKSUM = ', "crc32": '
_HEADER = {"format": int, "study": str, "fingerprint": dict}
_RECORD = {
    "architecture": [int],
    "fitness": (float, None),
    "generation": int,
    "index": int,
    "origin": str,
    "seconds": float,
    "details": dict,
    "cost?": (float, None),
}
_KEYS = {key.removesuffix("?") for key in _RECORD}
# in a fold's slicing_search folder, beside study.db
LOG_FOLDER = "study.evaluations"


class EvaluationLog:
    """The files of one search's evaluations.

    folder: of the logs. search: which one, the beginning of its files' names, see `log_name`. helper: whether this
    process helps the writer, and appends to a file of its own.
    """

    def __init__(self, folder: Path, search: str, helper: bool = False) -> None:
        self.folder, self.search = folder, search
        self.file = folder / f"{search}.jsonl"
        self._helper = helper
        self._own = folder / f"{search}.{socket.gethostname()}.{os.getpid()}.jsonl" if helper else self.file
        self._descriptor: int | None = None
        self._size = 0
        self._is_torn = False

    def begin(self, header: Mapping[str, Any], records: Iterable[Record]) -> None:
        """Makes the writer's file, with what is known already: all of it or nothing."""
        # the first line twice: without it, nothing else in the file would be of use
        lines = [*2 * [{"format": FORMAT, **header}], *map(as_json, records)]
        try:
            with replacing(self.file) as temporary:
                temporary.write_text("".join(map(_checked_line, lines)), encoding="utf-8")
        except OSError as error:
            raise LedgerError(f"no search can be kept in {self.folder} ({error}). {file_advice(error)}") from error

    def header(self) -> dict[str, Any]:
        """The header that `begin` was given. Raises LedgerError if the file cannot be read."""
        remedy = "Move it away, and the same command goes on from the study that was made of it, or begins anew"
        try:
            with self.file.open("rb") as lines:
                first = lines.readline() + lines.readline()
        except OSError as error:
            raise LedgerError(f"{self.file} cannot be read ({error.strerror}). {remedy}") from error
        headers = [header for _, header in _whole_entries(first, {"format": int})[0]]
        if not headers:
            raise LedgerError(f"{self.file} does not begin as the evaluations of a search do. {remedy}")
        if headers[0]["format"] > FORMAT:
            raise LedgerError(
                f"{self.file} has format {headers[0]['format']}, of a later version of this package: update it"
            )
        wrong = mismatch(headers[0], _HEADER)
        if wrong is not None:
            raise LedgerError(f"{self.file} does not begin as the evaluations of a search do: {wrong}. {remedy}")
        return {key: headers[0][key] for key in ("study", "fingerprint")}

    def open(self) -> None:
        """Opens this process's file; whoever else appends to it from now on is noticed."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._own, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o644)
        except OSError as error:
            raise LedgerError(f"no evaluation can be kept in {self._own} ({error}). {file_advice(error)}") from error
        self._size = os.fstat(self._descriptor).st_size
        if self._size:
            os.lseek(self._descriptor, -1, os.SEEK_END)
            self._is_torn = os.read(self._descriptor, 1) != b"\n"

    def append(self, record: Record) -> None:
        """Keeps an evaluation; LedgerError if it cannot be written, or another process writes to the same file."""
        if self._descriptor is None:
            self.open()
            assert self._descriptor is not None
        try:
            self._refuse_second_writer(self._descriptor)
            # what a kill or a full disk cut off before must not spoil this line
            line = ("\n" * self._is_torn + _checked_line(as_json(record))).encode()
            written = os.write(self._descriptor, line)
            self._size += written
            self._is_torn = written < len(line)
            if self._is_torn:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise LedgerError(
                f"the evaluation of {record.architecture} could not be written to {self._own} ({error}). What was "
                f"evaluated before is kept there. {file_advice(error)}"
            ) from error

    def _refuse_second_writer(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if found.st_nlink == 0:
            raise LedgerError(f"another process deleted {self._own} (--discard?). Stop one of the two")
        if not self._helper and found.st_size != self._size:
            raise LedgerError(
                f"{self._own} has {found.st_size} bytes where this search left {self._size}: another process writes to "
                "it. Stop one of the two; the same command continues"
            )

    def files(self) -> list[Path]:
        """The files of all processes, the writer's first."""
        return [self.file, *sorted(self.folder.glob(f"{self.search}.*.jsonl"))]

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def delete(self) -> None:
        """Deletes the search's evaluations, of all processes."""
        self.close()
        for file in self.files():
            file.unlink(missing_ok=True)


class LogReader:
    """Reads a log as it grows. damaged: its lines that hold no evaluation, as "FILE, line NUMBER"."""

    def __init__(self, log: EvaluationLog) -> None:
        self.damaged: list[str] = []
        self._log = log
        self._read: dict[Path, tuple[int, int]] = {}  # bytes and lines

    def new(self) -> list[Record]:
        """The evaluations added since the last call; a line that is still being written is left for the next one."""
        records = []
        for file in self._log.files():
            at, number = self._read.get(file, (0, 0))
            if not file.is_file():
                continue
            with file.open("rb") as opened:
                opened.seek(at)
                content = opened.read()
            whole = content[: content.rfind(b"\n") + 1]
            entries, damaged = _whole_entries(whole, dict, number + 1)
            for line, entry in entries:
                try:
                    if "format" not in entry:  # not a header
                        records.append(record_of(entry))
                except ValueError:
                    damaged.append(line)
            self.damaged += [f"{file.name}, line {line}" for line in sorted(damaged)]
            self._read[file] = (at + len(whole), number + whole.count(b"\n"))
        return records


def records_in(log: EvaluationLog) -> tuple[dict[tuple[int, int], Record], tuple[str, ...]]:
    """A log's evaluations by (generation, index), of two the older one, and its lines that hold none."""
    reader = LogReader(log)
    records: dict[tuple[int, int], Record] = {}
    for record in reader.new():
        records.setdefault((record.generation, record.index), record)
    return records, tuple(reader.damaged)


def log_folder(storage: str | Path, folder: Path | None = None) -> Path | None:
    """Folder of the logs: LOG_FOLDER in `folder`, else one beside the SQLite file `storage`; None beside a server."""
    if folder is not None:
        return folder / LOG_FOLDER
    file = sqlite_file(storage)
    return None if file is None else file.with_name(f"{file.stem}.evaluations")


def log_name(study: str) -> str:
    """The beginning of the names of a study's files, whatever characters the study's name has."""
    return hashlib.sha256(study.encode()).hexdigest()[:16]


def logs_in(folder: Path) -> dict[str, EvaluationLog]:
    """Every search that has a log in a folder of logs, by the name of its study."""
    logs = [EvaluationLog(folder, file.stem) for file in sorted(folder.glob("*.jsonl")) if "." not in file.stem]
    return dict(sorted((log.header()["study"], log) for log in logs))


def file_advice(error: OSError) -> str:
    """Remedy of an error of the evaluations' files."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Make room on the disk, and the same command continues"
    return "Make the folder writable, and the same command continues"


def _checked_line(entry: Mapping[str, Any]) -> str:
    """An entry as a line with a checksum of the rest of it, so that a digit that a disk changed is noticed."""
    text = json.dumps(entry)
    return f"{text[:-1]}{_CHECKSUM}{zlib.crc32(text.encode())}}}\n"


def _whole_entries(content: bytes, shape: Shape, first: int = 1) -> tuple[list[tuple[int, Any]], list[int]]:
    """`entries_in` with their checksums right; older versions wrote none."""
    lines = content.split(b"\n")
    entries, damaged = entries_in(content, shape, first)
    whole = []
    for number, entry in entries:
        checksum = entry.pop("crc32", None)
        text = lines[number - first].rpartition(_CHECKSUM.encode())[0] + b"}"
        if checksum is None or checksum == zlib.crc32(text):
            whole.append((number, entry))
        else:
            damaged.append(number)
    return whole, damaged


def as_json(record: Record) -> dict[str, Any]:
    """A record as values that JSON keeps; an undefined fitness is null."""
    return {**vars(record), "architecture": list(record.architecture), "fitness": plain_json(record.fitness)}


def record_of(entry: dict[str, Any]) -> Record:
    """The inverse of as_json. Raises ValueError for anything else."""
    wrong = mismatch(entry, _RECORD)
    if wrong is None and set(entry) - _KEYS:
        wrong = f"it has {', '.join(sorted(set(entry) - _KEYS))}"
    if wrong is not None:
        raise ValueError(f"this is no evaluation: {wrong}")
    fitness = math.nan if entry["fitness"] is None else float(entry["fitness"])
    if min(entry["generation"], entry["index"]) < 0 or math.isinf(fitness):
        raise ValueError(f"this is no evaluation: it has a negative place or an infinite fitness ({entry})")
    return Record(**{**entry, "architecture": tuple(entry["architecture"]), "fitness": fitness})
