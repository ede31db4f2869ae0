"""What does one case score? Reads its two files, counts pixels and measures borders; nothing else is kept in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunetv2_slicemamba.evaluation.confusion import contingency_table, counts_of
from nnunetv2_slicemamba.evaluation.pairs import Pair
from nnunetv2_slicemamba.evaluation.reading import Reader, read_segmentation
from nnunetv2_slicemamba.evaluation.results import CaseResult, ClassLabel, Scores
from nnunetv2_slicemamba.evaluation.surface import SurfaceScores, surface_scores


@dataclass(frozen=True)
class CaseJob:
    """A pair to evaluate. labels: all that occur in the two folders, ascending. tolerance: None: no HD95, no NSD."""

    pair: Pair
    reader: Reader
    classes: tuple[ClassLabel, ...]
    labels: tuple[int, ...]
    ignore_label: int | None
    tolerance: float | None
    hd95_one_empty: str


def evaluate_case(job: CaseJob) -> CaseResult:
    """Scores of every class. Raises RuntimeError naming the case if anything fails."""
    try:
        return _evaluate(job)
    except Exception as error:
        raise RuntimeError(f"case {job.pair.case} could not be evaluated: {error}") from error


def _evaluate(job: CaseJob) -> CaseResult:
    truth, prediction = (read_segmentation(file, job.reader) for file in (job.pair.truth, job.pair.prediction))
    spacing = truth.spacing or prediction.spacing or (1.0,) * truth.labels.ndim
    table = contingency_table(truth.labels, prediction.labels, job.labels, job.ignore_label)
    scores = {}
    for one in job.classes:
        counts = counts_of(table, job.labels, one.labels)
        surface = SurfaceScores(float("nan"), float("nan"))
        if job.tolerance is not None:
            surface = surface_scores(
                _mask(truth.labels, truth.labels, one, job.ignore_label),
                _mask(prediction.labels, truth.labels, one, job.ignore_label),
                spacing,
                job.tolerance,
                job.hd95_one_empty,
            )
        scores[one.name] = Scores(counts, surface.hd95, surface.nsd)
    pair = job.pair
    return CaseResult(pair.case, pair.prediction, pair.truth, truth.labels.shape, spacing, scores)


def _mask(labels: NDArray, truth: NDArray, one: ClassLabel, ignore_label: int | None) -> NDArray[np.bool_]:
    mask = labels == one.labels[0] if len(one.labels) == 1 else np.isin(labels, one.labels)
    # background in both masks: what the truth does not know has no border to be wrong about
    return mask if ignore_label is None else mask & (truth != ignore_label)
