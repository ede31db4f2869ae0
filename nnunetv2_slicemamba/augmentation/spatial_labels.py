"""Segmentations resampled label by label, so that no label appears between two others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

# batchgeneratorsv2 compares scores of 0 to 1000 in half precision, which makes near ties exact ones
FULL_SCORE = 1000
ELEMENTS_AT_ONCE = 2**25  # of the scores' float32 sources, to bound memory


def resample_labels(seg: Tensor, grid: Tensor, labels: Sequence[int], outside: int) -> Tensor:
    """seg (n, S, *source) at grid (n, *patch, axes): the label with the highest bilinear score, (n, S, *patch).

    labels: all that seg holds. outside: the label of what lies outside the source; its score counts there. Between
    labels with equal scores the nearest voxel's is taken if it is one of them, else the lowest.
    """
    axes, shape = grid.shape[-1], (*seg.shape[:2], *grid.shape[1:-1])
    spatial = (1,) * axes
    nearest = grid_sample((seg - outside).float(), grid, "nearest", "zeros", False).add_(outside).to(seg.dtype)
    best = own = None
    at_once = max(1, ELEMENTS_AT_ONCE // seg.numel())
    names = sorted({*labels, outside})
    for start in range(0, len(names), at_once):
        part = torch.tensor(names[start : start + at_once], dtype=seg.dtype).to(seg.device, non_blocking=True)
        full = (part == outside).view(-1, *spatial) * float(FULL_SCORE)
        # zeros outside are a full score of the label `outside`
        source = (seg[:, :, None] == part.view(-1, *spatial)) * float(FULL_SCORE) - full
        sampled = grid_sample(source.flatten(1, 2), grid, "bilinear", "zeros", False)
        scores = (sampled.unflatten(1, (shape[1], len(part))) + full).half()
        high, which = scores.max(2)
        of_nearest = scores.where(nearest[:, :, None] == part.view(-1, *spatial), -torch.inf).amax(2)
        if best is None:
            best, own, result = high, of_nearest, part[which]
        else:
            result = part[which].where(high > best, result)
            best, own = torch.maximum(best, high), torch.maximum(own, of_nearest)
    return nearest.where(own == best, result)
