"""How much GPU memory a training step needs: the planner's model of activations, weights and overhead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nnunetv2_slicemamba.nets.base import default_candidates
from nnunetv2_slicemamba.nets.unet import SliceMambaUNet


@dataclass(frozen=True)
class MemoryModel:
    """Bytes kept for the backward pass of a mixed-precision training step, counted tensor by tensor.

    Per token of a block with C channels, E inner channels and K directions: `per_channel` * C (residual stream and
    the normalised copy), `per_inner` * E (both halves of in_proj, convolution, SiLU, scan output, norm, gate),
    `per_direction_inner` * K * E (time steps and saved states of the scan) and `per_projection` for every value of
    the low-rank projections; of a checkpointed block, `per_checkpoint` * C for its input. Per voxel of the full
    resolution: `per_head_channel` for the final mapping and `per_logit` for logits, softmax and loss. `overhead`:
    CUDA context, workspaces, fragmentation.
    """

    per_channel: float = 10
    per_checkpoint: float = 4
    per_inner: float = 22
    per_direction_inner: float = 4
    per_projection: float = 4
    per_head_channel: float = 14
    per_logit: float = 30
    per_input: float = 8
    overhead: float = 0.8 * 2**30


def feature_map_sizes(patch_size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Tokens per axis at every stage, for a patch padded to the total stride."""
    sizes, result = list(patch_size), []
    for stride in strides:
        sizes = [math.ceil(size / s) for size, s in zip(sizes, stride, strict=True)]
        result.append(tuple(sizes))
    return result


def bytes_per_sample(
    patch_size: Sequence[int],
    input_channels: int,
    num_classes: int,
    arch_kwargs: dict[str, Any],
    model: MemoryModel = MemoryModel(),
) -> float:
    """Bytes of one sample's activations in a training step; arch_kwargs as SliceMambaUNet takes them."""
    strides, features = arch_kwargs["strides"], arch_kwargs["features_per_stage"]
    n_dims, d_state, expand = len(strides[0]), arch_kwargs.get("d_state", 16), arch_kwargs.get("expand", 2)
    directions = 2 * n_dims
    blocks = [
        encoder + decoder
        for encoder, decoder in zip(
            arch_kwargs["n_blocks_per_stage"], reversed(arch_kwargs["n_blocks_per_stage_decoder"]), strict=True
        )
    ]
    checkpointed = arch_kwargs.get("activation_checkpointing", False)
    total = largest = 0.0
    for sizes, width, n_blocks in zip(feature_map_sizes(patch_size, strides), features, blocks, strict=True):
        inner, rank = expand * width, math.ceil(width / 16)
        per_token = (
            model.per_channel * width
            + model.per_inner * inner
            + model.per_direction_inner * directions * inner
            + model.per_projection * directions * (rank + 2 * d_state)
        )
        # a checkpointed block keeps its input, and the one that is computed again needs everything
        kept = model.per_checkpoint * width if checkpointed else per_token
        total += math.prod(sizes) * n_blocks * kept
        largest = max(largest, math.prod(sizes) * per_token)
    per_voxel = (
        model.per_head_channel * features[0] / 4 + model.per_logit * num_classes + model.per_input * input_channels
    )
    return total + checkpointed * largest + math.prod(patch_size) * per_voxel


def static_bytes(
    input_channels: int,
    num_classes: int,
    arch_kwargs: dict[str, Any],
    model: MemoryModel = MemoryModel(),
) -> float:
    """Bytes that do not depend on the batch: the supernet's weights and optimiser state, one path's gradients.

    The final network needs less; one plan serves both.
    """
    with torch.device("meta"):
        network = SliceMambaUNet(input_channels, num_classes, **arch_kwargs)
    n_candidates = len(default_candidates(network.n_dims))
    in_blocks = sum(p.numel() for block in network.block_positions() for p in block.parameters())
    everything = sum(p.numel() for p in network.parameters())
    supernet = everything - in_blocks + n_candidates * in_blocks
    # float32 weights and AdamW's two moments, gradients of the path only
    return 12 * supernet + 4 * everything + model.overhead
