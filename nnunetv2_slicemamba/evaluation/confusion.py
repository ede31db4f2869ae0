"""Counts of the pixels of each class that are right and wrong.

The published protocol (SliceMamba's and VM-UNet's code, one foreground class) binarises prediction and truth at 0.5,
joins the pixels of all images, makes one 2x2 confusion matrix and computes from it accuracy (TN+TP)/all, sensitivity
TP/(TP+FN), specificity TN/(TN+FP), DSC 2TP/(2TP+FP+FN), and TP/(TP+FP+FN) under the name mIoU: the foreground's IoU,
neither averaged with the background's nor over images. A metric without pixels to compute it from is 0 there, and
undefined (NaN) here. nnU-Net's label maps are binarised already: of two softmax outputs the larger is above 0.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Counts:
    """Pixels of one class against all others; counts of several images add up. Metrics of them are in metrics.py."""

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def truth_is_empty(self) -> bool:
        return self.tp + self.fn == 0

    @property
    def prediction_is_empty(self) -> bool:
        return self.tp + self.fp == 0


def contingency_table(
    truth: NDArray, prediction: NDArray, labels: Sequence[int], ignore_label: int | None = None
) -> NDArray[np.int64]:
    """Pixels with every pair of labels: (len(labels), len(labels)) int64, rows the truth's, columns the prediction's.

    truth, prediction: arrays of one shape. labels: ascending, all that occur, the ignore label included if there is
    one. Pixels that the truth ignores count nowhere, as in nnU-Net's evaluation. Raises ValueError for other labels.
    """
    known = np.asarray(labels)
    rows, columns = _indices(truth, known), _indices(prediction, known)
    table = np.bincount(rows * len(known) + columns, minlength=len(known) ** 2).reshape(len(known), len(known))
    if ignore_label is not None:
        table[known == ignore_label] = 0
    return table


def counts_of(table: NDArray[np.int64], labels: Sequence[int], members: Iterable[int]) -> Counts:
    """Counts of the class (or region) that consists of the labels `members`, from a contingency table over `labels`."""
    inside = np.isin(np.asarray(labels), list(members))
    tp = int(table[np.ix_(inside, inside)].sum())
    fn = int(table[inside].sum()) - tp
    fp = int(table[:, inside].sum()) - tp
    return Counts(tp, fp, fn, int(table.sum()) - tp - fp - fn)


def _indices(values: NDArray, known: NDArray) -> NDArray[np.int64]:
    flat = np.ravel(values)
    indices = np.minimum(np.searchsorted(known, flat), len(known) - 1)
    wrong = flat != known[indices]
    if wrong.any():
        raise ValueError(f"labels {np.unique(flat[wrong])[:5].tolist()} are not among {known.tolist()}")
    return indices
