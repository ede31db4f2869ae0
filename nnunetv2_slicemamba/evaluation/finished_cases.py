"""File of the cases that are done: it grows by a line per case, so that an interrupted evaluation continues."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.full_disk import full_disk_told
from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.common.json_lines import read_json_lines
from nnunetv2_slicemamba.evaluation.cases import CaseJob, scores_from
from nnunetv2_slicemamba.evaluation.confusion import Counts
from nnunetv2_slicemamba.evaluation.metrics import MASK_METRICS
from nnunetv2_slicemamba.evaluation.results import CaseResult, Scores

_SCORES = {
    "counts": {field.name: int for field in fields(Counts)},
    **{f"{metric.key}?": (float, None) for metric in MASK_METRICS},
}
_ENTRY = {"key": str, "shape": [int], "spacing": [float], "scores": {str: _SCORES}}


class FinishedCases:
    """Results of earlier runs, valid as long as files and settings are the same. path: None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: dict[str, dict[str, Any]] = {}
        if path is not None:
            entries: list[dict[str, Any]] = read_json_lines(path, _ENTRY)
            self._lines = {entry["key"]: entry for entry in entries}

    def split(self, jobs: Sequence[CaseJob]) -> tuple[list[CaseResult], list[CaseJob]]:
        """Results of the jobs that are done, and the jobs that are left."""
        done, left = [], []
        for job in jobs:
            try:
                done.append(_result(job, self._lines[_key(job)]))
            except KeyError:  # never evaluated, or not with all of today's metrics
                left.append(job)
        return done, left

    def add(self, job: CaseJob, result: CaseResult) -> None:
        """Appends a line for a case that is done."""
        if self._path is None:
            return
        scores = {
            name: {"counts": asdict(one.counts), **{metric.key: one.value(metric.key) for metric in MASK_METRICS}}
            for name, one in result.scores.items()
        }
        entry = {"key": _key(job), "shape": result.shape, "spacing": result.spacing, "scores": scores}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with full_disk_told(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(plain_json(entry)))  # first the break: the line before may be half a line


def _key(job: CaseJob) -> str:
    files = [
        (str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
        for file in (job.pair.prediction, job.pair.truth)
    ]
    tolerance = job.settings.tolerance if job.settings.surface else None
    # what changes a value; a setting of a new metric is to be added here
    settings = [[asdict(one) for one in job.classes], job.ignore_label, tolerance, job.settings.hd95_one_empty]
    versions = [version("monai"), version("nnunetv2"), job.reader.__name__]
    return hashlib.sha256(json.dumps([files, settings, versions]).encode()).hexdigest()


def _result(job: CaseJob, entry: dict[str, Any]) -> CaseResult:
    scores = {name: _scores(one, job.settings.surface) for name, one in entry["scores"].items()}
    pair = job.pair
    return CaseResult(pair.case, pair.prediction, pair.truth, tuple(entry["shape"]), tuple(entry["spacing"]), scores)


def _scores(entry: dict[str, Any], surface: bool) -> Scores:
    of_masks = {metric.key: _number(entry[metric.key]) for metric in MASK_METRICS} if surface else {}
    return scores_from(Counts(**entry["counts"]), of_masks)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
