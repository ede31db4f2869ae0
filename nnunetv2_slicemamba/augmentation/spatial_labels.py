"""Segmentations resampled label by label, so that no label appears between two others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

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
    spatial = (1,) * grid.shape[-1]
    nearest = grid_sample((seg - outside).float(), grid, "nearest", "zeros", False).add_(outside).to(seg.dtype)
    best = torch.full_like(nearest, -torch.inf, dtype=torch.float16)
    of_nearest, winner = best, nearest
    at_once = max(1, ELEMENTS_AT_ONCE // seg.numel())
    names = sorted({*labels, outside})
    for start in range(0, len(names), at_once):
        part = _on_device(tuple(names[start : start + at_once]), seg.dtype, seg.device)
        each = part.view(-1, *spatial)
        # zeros beyond the source are then a full score of the label `outside`
        below = (each == outside) * float(FULL_SCORE)
        source = (seg[:, :, None] == each) * float(FULL_SCORE) - below
        sampled = grid_sample(source.flatten(1, 2), grid, "bilinear", "zeros", False)
        scores = (sampled.unflatten(1, (-1, len(part))) + below).half()
        high, which = scores.max(2)
        winner = part[which].where(high > best, winner)
        best = torch.maximum(best, high)
        own = scores.where(nearest[:, :, None] == each, -torch.inf).amax(2)
        of_nearest = torch.maximum(of_nearest, own)
    return nearest.where(of_nearest == best, winner)


@lru_cache(maxsize=64)
def _on_device(names: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(names, dtype=dtype, device=device)
