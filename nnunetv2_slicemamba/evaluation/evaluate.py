"""Evaluation of a folder of predictions: find pairs, check all of them, compute case by case, summarise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.nnunet_readers import Reader, find_reader
from nnunetv2_slicemamba.evaluation.cases import CaseJob, evaluate_case
from nnunetv2_slicemamba.evaluation.checks import CheckJob, check_pair, refuse_problems
from nnunetv2_slicemamba.evaluation.finished_cases import FinishedCases
from nnunetv2_slicemamba.evaluation.job_pool import JobPool, choose_processes
from nnunetv2_slicemamba.evaluation.labels import (
    Labelling,
    find_dataset_json,
    labelling_of,
    labelling_without_dataset,
    read_dataset_json,
    refuse_absent,
)
from nnunetv2_slicemamba.evaluation.metrics import per_case_metrics
from nnunetv2_slicemamba.evaluation.notes import (
    notes_on_cases,
    notes_on_input,
    notes_on_means,
    notes_on_metrics,
    notes_on_paper,
)
from nnunetv2_slicemamba.evaluation.pairs import Pairs, check_folders, find_pairs, guess_file_ending
from nnunetv2_slicemamba.evaluation.reading import read_segmentation
from nnunetv2_slicemamba.evaluation.results import CaseResult, Evaluation, EvaluationSettings, pixels
from nnunetv2_slicemamba.evaluation.summaries import paper_result, per_case_result

Progress = Callable[[str, int, int], None]  # what is done, how many of how many


@dataclass(frozen=True)
class _Input:
    dataset_json: Path | None
    labelling: Labelling | None  # None: whatever the files hold
    reader: Reader
    pairs: Pairs


def evaluate_folders(
    predictions: str | Path,
    truth: str | Path,
    *,
    settings: EvaluationSettings | None = None,
    dataset_json: str | Path | None = None,
    labels: Sequence[int] | None = None,
    ignore_label: int | None = None,
    partial: bool = False,
    processes: int | None = None,
    journal: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compares the segmentations in `predictions` with those of the same names in `truth`.

    dataset_json: default: see labels.find_dataset_json; without one, the classes are `labels` or what the files hold.
    labels: evaluate these in place of dataset.json's classes. ignore_label: pixels with it in the truth count nowhere;
    default: dataset.json's. partial: leave out cases without a prediction. processes: default: several only where the
    work is long. journal: file that keeps finished cases, for an interrupted evaluation to continue; delete it when the
    result is safe. progress: called as (phase, done, total).

    Every file is read and checked first. Raises InputError (a ValueError) listing all that is wrong before anything is
    computed, RuntimeError if a case fails later.
    """
    settings = settings or EvaluationSettings()
    if processes is not None and processes < 1:
        raise InputError(f"-np is {processes}, it must be at least 1")
    given = _find_input(Path(predictions), Path(truth), dataset_json, labels, ignore_label)
    known = given.labelling.known if given.labelling else None
    # reading is quick beside measuring borders
    work = _pixels(given) if settings.surface else _pixels(given) // 10
    count = choose_processes(processes, work, len(given.pairs.pairs))
    with JobPool(count) as pool:
        check_jobs = [CheckJob(pair, given.reader, known) for pair in given.pairs.pairs]
        checks = _reported("Checking", pool.results_of(check_pair, check_jobs), len(check_jobs), progress)
        checked = sorted(checks, key=lambda one: one.case)
        refuse_problems(checked, () if partial else given.pairs.missing)
        found = sorted(frozenset[int]().union(*(one.truth_labels | one.prediction_labels for one in checked)))
        labelling = given.labelling or labelling_without_dataset(found, ignore_label, given=False)
        refuse_absent(labelling, found)
        jobs = [
            CaseJob(
                pair,
                given.reader,
                labelling.classes,
                tuple(sorted({*found, *(labelling.known or ())})),
                labelling.ignore_label,
                settings,
            )
            for pair in given.pairs.pairs
        ]
        cases = _evaluate_cases(jobs, pool, FinishedCases(Path(journal) if journal else None), progress)
    metrics = tuple(metric.key for metric in per_case_metrics(settings))
    per_case = per_case_result(cases, labelling.classes, metrics, settings)
    in_pixels = "voxels" if pixels(cases) == "voxels" else "px"
    return Evaluation(
        predictions=Path(predictions),
        truth=Path(truth),
        dataset_json=given.dataset_json,
        settings=settings,
        classes=labelling.classes,
        ignore_label=labelling.ignore_label,
        metrics=metrics,
        unit="mm" if any(one.has_spacing for one in checked) else in_pixels,
        cases=cases,
        paper=paper_result(cases, labelling.classes),
        per_case=per_case,
        notes=(
            *notes_on_input(
                Path(predictions), Path(truth), given.pairs, checked, given.dataset_json, labels is not None
            ),
            *notes_on_means(cases, labelling),
        ),
        metric_notes=notes_on_metrics(per_case, settings),
        protocol_notes={
            "paper": tuple(notes_on_paper(cases, labelling)),
            "per-case": tuple(notes_on_cases(cases, labelling, settings)),
        },
    )


def _find_input(
    predictions: Path,
    truth: Path,
    dataset_json: str | Path | None,
    labels: Sequence[int] | None,
    ignore_label: int | None,
) -> _Input:
    check_folders(predictions, truth)
    file = find_dataset_json(predictions, truth, dataset_json)
    content = read_dataset_json(file) if file else None
    labelling = None
    if file and content:
        labelling = labelling_of(content, file, labels, ignore_label)
    elif labels is not None:
        labelling = labelling_without_dataset(labels, ignore_label, given=True)
    ending = str(content["file_ending"]) if content else guess_file_ending(truth)
    pairs = find_pairs(predictions, truth, ending)
    return _Input(file, labelling, find_reader(content, ending, pairs.pairs[0].truth), pairs)


def _pixels(given: _Input) -> int:
    """Number of pixels in all cases, roughly, by the first file: only the number of processes depends on it."""
    try:
        shape = read_segmentation(given.pairs.pairs[0].truth, given.reader).labels.shape
    except (ValueError, OSError):
        return 0  # the check says so
    return int(np.prod(shape)) * len(given.pairs.pairs)


def _evaluate_cases(
    jobs: Sequence[CaseJob], pool: JobPool, finished: FinishedCases, progress: Progress | None
) -> tuple[CaseResult, ...]:
    done, left = finished.split(jobs)
    by_case = {job.pair.case: job for job in jobs}
    for result in _reported("Evaluating", pool.results_of(evaluate_case, left), len(jobs), progress, len(done)):
        finished.add(by_case[result.case], result)
        done.append(result)
    return tuple(sorted(done, key=lambda one: one.case))


def _reported(phase: str, results: Iterable, total: int, progress: Progress | None, before: int = 0) -> Iterable:
    if progress:
        progress(phase, before, total)
    for done, result in enumerate(results, before + 1):
        yield result
        if progress:
            progress(phase, done, total)
