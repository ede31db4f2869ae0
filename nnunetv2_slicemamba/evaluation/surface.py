"""Distances between the borders of two masks: HD95 and NSD, with MONAI.

HD95 takes the pixels at the border (4 neighbours in 2D, 6 in 3D) and their distances to the other border's nearest
pixel; of each direction's 95th percentiles the larger one counts. medpy's, which publications on Synapse use, joins
the distances of both directions first, and is given no spacing there. NSD (Nikolov et al. 2021) weighs each border
element by its length in 2D or area in 3D, so that anisotropic pixels count for what they cover.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_slicemamba.evaluation.masks import Masks

if TYPE_CHECKING:
    from torch import Tensor


def hd95(masks: Masks, one_empty: str = "undefined") -> float:
    """95th percentile of the Hausdorff distance, in the spacing's unit.

    Both masks empty: NaN. One empty: NaN, or the image's diagonal for one_empty="diagonal".
    """
    if masks.both_empty:
        return math.nan
    if masks.one_empty:
        extent = [(size - 1) * step for size, step in zip(masks.truth.shape, masks.spacing, strict=True)]
        return math.hypot(*extent) if one_empty == "diagonal" else math.nan
    from monai.metrics import compute_hausdorff_distance

    prediction, truth, spacing = _for_monai(masks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about an argument that MONAI itself passes
        return float(
            compute_hausdorff_distance(prediction, truth, include_background=True, percentile=95, spacing=spacing)
        )


def nsd(masks: Masks, tolerance: float) -> float:
    """Normalised surface Dice, 0..1. tolerance: in the spacing's unit; a distance equal to it is tolerated.

    Both masks empty: NaN. One empty: 0.
    """
    if masks.both_empty or masks.one_empty:
        return math.nan if masks.both_empty else 0.0
    from monai.metrics import compute_surface_dice

    prediction, truth, spacing = _for_monai(masks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return float(
            compute_surface_dice(
                prediction, truth, [float(tolerance)], include_background=True, spacing=spacing, use_subvoxels=True
            )
        )


def _for_monai(masks: Masks) -> tuple[Tensor, Tensor, list[float]]:
    """Prediction, truth and spacing as MONAI takes them, in the box around the objects.

    Distances inside the box are those of the whole image: MONAI pads it with background.
    """
    import torch

    prediction, truth = (
        torch.from_numpy(np.ascontiguousarray(mask[masks.box]))[None, None] for mask in (masks.prediction, masks.truth)
    )
    return prediction, truth, [float(step) for step in masks.spacing]  # one type for all numbers: MONAI wants it
