"""How far apart are two borders? HD95 and NSD of one class, with MONAI.

HD95 takes the pixels at the border (4 neighbours in 2D, 6 in 3D) and their distances to the other border's nearest
pixel; of each direction's 95th percentiles the larger one counts. medpy's, which publications on Synapse use, joins
the distances of both directions first, and is given no spacing there. NSD (Nikolov et al. 2021) weighs each border
element by its length in 2D or area in 3D, so that anisotropic pixels count for what they cover.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SurfaceScores:
    """hd95 in the spacing's unit, nsd 0..1; NaN where undefined."""

    hd95: float
    nsd: float


def surface_scores(
    truth: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    spacing: tuple[float, ...],
    tolerance: float,
    hd95_one_empty: str = "undefined",
) -> SurfaceScores:
    """HD95 and NSD of two masks of one shape, 2D or 3D, neither axis of which is a single pixel.

    spacing: per axis. tolerance: NSD's, in the same unit; a distance equal to it is tolerated. Both masks empty: both
    NaN. One empty: NSD 0, HD95 NaN, or the image's diagonal for hd95_one_empty="diagonal".
    """
    if not truth.any() or not prediction.any():
        if truth.any() == prediction.any():
            return SurfaceScores(math.nan, math.nan)
        extent = [(size - 1) * step for size, step in zip(truth.shape, spacing, strict=True)]
        return SurfaceScores(math.hypot(*extent) if hd95_one_empty == "diagonal" else math.nan, 0.0)

    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    box = bounding_box(truth | prediction)
    predicted, true = (torch.from_numpy(np.ascontiguousarray(mask[box]))[None, None] for mask in (prediction, truth))
    # MONAI wants one type for all numbers of the spacing
    steps = [float(step) for step in spacing]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about an argument that MONAI itself passes
        hd95 = compute_hausdorff_distance(predicted, true, include_background=True, percentile=95, spacing=steps)
        nsd = compute_surface_dice(
            predicted, true, [float(tolerance)], include_background=True, spacing=steps, use_subvoxels=True
        )
    return SurfaceScores(float(hd95), float(nsd))


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty. Distances inside it do not change: MONAI pads it with 0."""
    box = []
    for axis in range(mask.ndim):
        inside = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)
