"""Evaluation of one case: reads its two files and computes every metric of every class.

Nothing but the values is kept in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunetv2_slicemamba.common.nnunet_readers import Reader
from nnunetv2_slicemamba.evaluation.confusion import Counts, contingency_table, counts_of
from nnunetv2_slicemamba.evaluation.masks import Masks
from nnunetv2_slicemamba.evaluation.metrics import COUNT_METRICS, MASK_METRICS
from nnunetv2_slicemamba.evaluation.pairs import Pair
from nnunetv2_slicemamba.evaluation.reading import read_segmentation
from nnunetv2_slicemamba.evaluation.results import CaseResult, ClassLabel, EvaluationSettings, Scores


@dataclass(frozen=True)
class CaseJob:
    """A pair to evaluate. labels: all that occur in the two folders, ascending."""

    pair: Pair
    reader: Reader
    classes: tuple[ClassLabel, ...]
    labels: tuple[int, ...]
    ignore_label: int | None
    settings: EvaluationSettings


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
        of_masks: dict[str, float] = {}
        if job.settings.surface:
            masks = Masks(
                _mask(truth.labels, truth.labels, one, job.ignore_label),
                _mask(prediction.labels, truth.labels, one, job.ignore_label),
                spacing,
            )
            of_masks = {metric.key: float(metric.function(masks, job.settings)) for metric in MASK_METRICS}
        scores[one.name] = scores_from(counts_of(table, job.labels, one.labels), of_masks)
    pair = job.pair
    return CaseResult(pair.case, pair.prediction, pair.truth, truth.labels.shape, spacing, scores)


def scores_from(counts: Counts, of_masks: Mapping[str, float]) -> Scores:
    """Scores of one class. of_masks: the values of the metrics that counts do not give, empty if not computed."""
    of_counts = {metric.key: float(metric.function(counts)) for metric in COUNT_METRICS if metric.per_case}
    return Scores(counts, {**of_counts, **of_masks})


def _mask(labels: NDArray, truth: NDArray, one: ClassLabel, ignore_label: int | None) -> NDArray[np.bool_]:
    mask = labels == one.labels[0] if len(one.labels) == 1 else np.isin(labels, one.labels)
    # background in both masks: what the truth does not know has no border to be wrong about
    return mask if ignore_label is None else mask & (truth != ignore_label)
