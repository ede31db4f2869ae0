"""SliceMamba's networks in the plans: widths, depths and strides per size, and the supernet's candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunetv2_slicemamba.common.names import NETWORK_CLASSES
from nnunetv2_slicemamba.planning.sizes import SIZES
from nnunetv2_slicemamba.slicing.candidates import Slicing, check_candidates, default_candidates

NETWORK_CLASS = NETWORK_CLASSES["SliceMambaUNet"][0]

MAX_STAGES = 4
BLOCKS_ENCODER = (2, 2, 9, 2)
BLOCKS_DECODER = (2, 2, 2, 1)
# nnU-Net's first stage keeps the resolution and two poolings of 2 follow: together the paper's patch embedding of 4
FUSED_STRIDES = 3


def fuse_strides(pool_strides: Sequence[Sequence[int]]) -> list[list[int]]:
    """nnU-Net's strides per stage (the first all ones) -> ours, the first of them the patch embedding's.

    The first three become one, at most MAX_STAGES - 1 follow. Since nnU-Net never pools an axis below 4 voxels, no
    feature map of ours is smaller than 4 tokens on an axis that is reduced at all.
    """
    embedding = np.prod(np.array(pool_strides[:FUSED_STRIDES]), axis=0)
    rest = pool_strides[FUSED_STRIDES : FUSED_STRIDES + MAX_STAGES - 1]
    return [[int(s) for s in stride] for stride in (embedding, *rest)]


def stem_features(stride: Sequence[int], size: str) -> list[int]:
    """Channels of the convolutional stages for the total stride in front of the S3 stages.

    Two stages where two steps lead there, else one.
    """
    from nnunetv2_slicemamba.nets.resolutions import stem_strides  # with which PyTorch is imported

    for n in (2, 1):
        features = SIZES[size].stem[:n]
        try:
            stem_strides(stride, n)
        except ValueError:
            continue
        return list(features)
    raise AssertionError("one stage fits any stride")


def architecture_kwargs(
    pool_strides: Sequence[Sequence[int]], size: str, activation_checkpointing: bool = False, hybrid: bool = False
) -> dict[str, Any]:
    """arch_kwargs of SliceMambaUNet for nnU-Net's pooling strides; size: a key of SIZES.

    A network with fewer than four stages is the paper's without its deepest ones. activation_checkpointing, hybrid
    (a convolutional stem): see SliceMambaUNet.
    """
    strides = fuse_strides(pool_strides)
    n = len(strides)
    return {
        "n_stages": n,
        "features_per_stage": [SIZES[size].width * 2**i for i in range(n)],
        "strides": strides,
        "n_blocks_per_stage": list(BLOCKS_ENCODER[:n]),
        "n_blocks_per_stage_decoder": list(BLOCKS_DECODER[-n:]),
        "d_state": 16,
        "expand": 2,
        "drop_path_rate": 0.2,
        # absent by default, so that plans stay what they were
        **({"activation_checkpointing": True} if activation_checkpointing else {}),
        **({"stem_features": stem_features(strides[0], size)} if hybrid else {}),
    }


def planned_candidates(arch_kwargs: Mapping[str, Any]) -> Slicing:
    """The candidates, by index, of the supernet that `arch_kwargs` in the plans describe.

    Their entry `candidates`, for instance [[2, 2], [2, 4], [8, 8], "no-scan"], else {2, 4}^n. Raises ValueError
    naming a candidate that does not fit.
    """
    n_dims, named = len(arch_kwargs["strides"][0]), arch_kwargs.get("candidates")
    return default_candidates(n_dims) if named is None else check_candidates(named, n_dims)
