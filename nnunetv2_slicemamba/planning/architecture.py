"""From nnU-Net's pooling strides to SliceMamba's stages: widths, depths and strides of the three sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

NETWORK_CLASS = "nnunetv2_slicemamba.nets.unet.SliceMambaUNet"

# width of the first stage; L is the paper's network
BASE_FEATURES = {"S": 24, "M": 48, "L": 96}
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


def architecture_kwargs(
    pool_strides: Sequence[Sequence[int]], size: str, activation_checkpointing: bool = False
) -> dict[str, Any]:
    """arch_kwargs of SliceMambaUNet for nnU-Net's pooling strides; size: "S", "M" or "L".

    A network with fewer than four stages is the paper's without its deepest ones. activation_checkpointing: see there.
    """
    strides = fuse_strides(pool_strides)
    n = len(strides)
    return {
        "n_stages": n,
        "features_per_stage": [BASE_FEATURES[size] * 2**i for i in range(n)],
        "strides": strides,
        "n_blocks_per_stage": list(BLOCKS_ENCODER[:n]),
        "n_blocks_per_stage_decoder": list(BLOCKS_DECODER[-n:]),
        "d_state": 16,
        "expand": 2,
        "drop_path_rate": 0.2,
        # absent by default, so that plans stay what they were
        **({"activation_checkpointing": True} if activation_checkpointing else {}),
    }
