"""Counts of right and wrong voxels, made on the prediction's device as nnU-Net's evaluation makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Classes:
    """Classes that are judged.

    foreground: the labels that make up each class, one for labels, several for regions. written: for regions, the
    label that each head writes, in order; None for labels. ignore: label of unjudged voxels.
    """

    foreground: tuple[tuple[int, ...], ...]
    written: tuple[int, ...] | None = None
    ignore: int | None = None

    @classmethod
    def of(cls, label_manager: Any) -> Classes:
        """As nnU-Net's label manager has them."""
        classes = label_manager.foreground_regions if label_manager.has_regions else label_manager.foreground_labels
        return cls(
            tuple(tuple(map(int, c)) if isinstance(c, (tuple, list)) else (int(c),) for c in classes),
            tuple(map(int, label_manager.regions_class_order)) if label_manager.has_regions else None,
            label_manager.ignore_label,
        )


def segmentation_of(logits: Tensor, classes: Classes) -> Tensor:
    """(B, heads, *spatial) logits to (B, *spatial) labels, by nnU-Net's rule: the highest, or for regions each head
    with a probability above one half writes its label over the earlier ones'. A positive factor per voxel is no matter.
    """
    if classes.written is None:
        return logits.argmax(1)
    labels = torch.zeros_like(logits[:, 0], dtype=torch.int64)
    for head, label in enumerate(classes.written):
        labels = torch.where(logits[:, head] > 0, label, labels)
    return labels


def count(predicted: Tensor, truth: Tensor, classes: Classes) -> Tensor:
    """(B, *spatial) labels each -> (B, classes, 3) int64: true positives, false positives, false negatives."""
    judged = None if classes.ignore is None else truth != classes.ignore
    counted = []
    for labels in classes.foreground:
        ours, theirs = _has(predicted, labels), _has(truth, labels)
        if judged is not None:
            ours, theirs = ours & judged, theirs & judged
        both, n_ours, n_theirs = (_voxels(mask) for mask in (ours & theirs, ours, theirs))
        counted.append(torch.stack((both, n_ours - both, n_theirs - both), dim=-1))
    return torch.stack(counted, dim=1)


def _has(segmentation: Tensor, labels: tuple[int, ...]) -> Tensor:
    mask = segmentation == labels[0]
    for label in labels[1:]:
        mask = mask | (segmentation == label)
    return mask


def _voxels(mask: Tensor) -> Tensor:
    return mask.flatten(1).sum(1)
