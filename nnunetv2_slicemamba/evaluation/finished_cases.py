"""Which cases are done? A file that grows by a line per case, so that an interrupted evaluation continues."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.evaluation.cases import CaseJob
from nnunetv2_slicemamba.evaluation.confusion import Counts
from nnunetv2_slicemamba.evaluation.results import CaseResult, Scores


class Journal:
    """Results of earlier runs, valid as long as files and settings are the same. path: None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: dict[str, dict[str, Any]] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # the line during which the computer stopped
                    entry = json.loads(line)
                    self._lines[entry["key"]] = entry

    def split(self, jobs: Sequence[CaseJob]) -> tuple[list[CaseResult], list[CaseJob]]:
        """What is done, and what is left to do."""
        done, left = [], []
        for job in jobs:
            entry = self._lines.get(_key(job))
            if entry is None:
                left.append(job)
            else:
                done.append(_result(job, entry))
        return done, left

    def add(self, job: CaseJob, result: CaseResult) -> None:
        if self._path is None:
            return
        scores = {
            name: {"counts": asdict(one.counts), "hd95": _plain(one.hd95), "nsd": _plain(one.nsd)}
            for name, one in result.scores.items()
        }
        entry = {"key": _key(job), "shape": result.shape, "spacing": result.spacing, "scores": scores}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(entry))  # first the break: the line before may be half a line


def _key(job: CaseJob) -> str:
    files = [
        (str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
        for file in (job.pair.prediction, job.pair.truth)
    ]
    settings = [[asdict(one) for one in job.classes], job.ignore_label, job.tolerance, job.hd95_one_empty]
    versions = [version("monai"), version("nnunetv2"), job.reader.__name__]
    return hashlib.sha256(json.dumps([files, settings, versions]).encode()).hexdigest()


def _result(job: CaseJob, entry: dict[str, Any]) -> CaseResult:
    scores = {
        name: Scores(Counts(**one["counts"]), _number(one["hd95"]), _number(one["nsd"]))
        for name, one in entry["scores"].items()
    }
    pair = job.pair
    return CaseResult(pair.case, pair.prediction, pair.truth, tuple(entry["shape"]), tuple(entry["spacing"]), scores)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value
