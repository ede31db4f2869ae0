"""Model of the GPU memory of a training step: activations, weights and overhead; the planner's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nnunetv2_slicemamba.nets.resolutions import stem_strides
from nnunetv2_slicemamba.nets.unet import SliceMambaUNet
from nnunetv2_slicemamba.planning.architecture import planned_candidates
from nnunetv2_slicemamba.slicing.candidates import NO_BLOCK


@dataclass(frozen=True)
class MemoryModel:
    """Bytes per thing that `Sample` and `Static` count, for mixed precision and the fused block.

    Estimates are of what PyTorch's allocator reserves; `context` is what the GPU's driver takes beside it. CUDA graphs
    of a supernet's single blocks, which take memory of their own, are left out. The values are fitted to measured
    trainings by `python benchmarks/memory_gpu.py --fit FILE`.
    """

    kept: float = 2.33
    transient: float = 1.57
    head: float = 12.89
    logit: float = 22.37
    voxel: float = 9.72
    stem: float = 2.61
    weight: float = 11.01
    gradient: float = 5.80
    workspace: float = 0.128 * 2**30
    context: float = 0.82 * 2**30


@dataclass(frozen=True)
class Sample:
    """Counts of one sample of a batch.

    kept: half-precision values that blocks and resampling keep for the backward pass. transient: those that the
    backward pass of the largest block needs beside them. head: values of the final mapping, its channels at full
    resolution. logit: voxels times classes. voxel: voxels times input channels and the target.

    Of a convolutional stem: stem, half-precision values that its part before the S3 stages keeps, stem_decoder those of
    its part behind them, which are free again before the backward pass reaches a block; head counts what the backward
    pass of the convolutions at full resolution needs beside them.
    """

    kept: float
    transient: float
    head: float
    logit: float
    voxel: float
    stem: float = 0.0
    stem_decoder: float = 0.0

    def bytes(self, model: MemoryModel) -> float:
        """Bytes of one sample."""
        # the head's memory is free again before the backward pass reaches a block; the loss is outside the CUDA graph
        # of a training step, which therefore cannot use its memory
        peak = max(model.transient * self.transient, model.head * self.head + model.stem * self.stem_decoder)
        always = model.kept * self.kept + model.stem * self.stem
        return always + peak + model.logit * self.logit + model.voxel * self.voxel


@dataclass(frozen=True)
class Static:
    """Counts that do not depend on the batch.

    weight: parameters, with their optimiser state. gradient: those trained in one step (of a supernet those of one
    path), which have gradients and half-precision copies.
    """

    weight: float
    gradient: float

    def bytes(self, model: MemoryModel) -> float:
        """Bytes of the parameters and of the workspace."""
        return model.weight * self.weight + model.gradient * self.gradient + model.workspace


# of the fused block: channels of a thread block, to which channels are padded, and tokens between two saved states
BLOCK_CHANNELS = 64
STATE_TOKENS = 32


def block_values(width: int, n_dims: int, d_state: int, expand: int) -> tuple[float, float]:
    """Half-precision values per token that a fused block keeps and those that its backward pass needs beside them.

    Kept: its input (float32) and the normalised copy, both halves of in_proj, the scan's output, the projections and
    the scan's states. In the backward pass: gradients of all these, the convolution's output computed again, and per
    direction the time steps of full rank, the gradient of the tokens and partial sums of the states' gradients.
    """
    inner, directions = expand * width, 2 * n_dims
    blocks = math.ceil(inner / BLOCK_CHANNELS)
    projections = directions * (math.ceil(width / 16) + 2 * d_state)
    states = directions * blocks * BLOCK_CHANNELS * d_state / STATE_TOKENS
    partial_sums = 4 * directions * blocks * d_state
    kept = 3 * width + 3 * inner + projections + states
    return kept, 5 * width + 6 * inner + projections + 2 * directions * inner + partial_sums


def stem_values(patch_size: Sequence[int], arch_kwargs: dict[str, Any]) -> tuple[float, float]:
    """Half-precision values that a convolutional stem keeps before and behind the S3 stages; patch_size: padded.

    Every convolution keeps its output for InstanceNorm, and what the next one reads; a decoder stage begins with twice
    its channels side by side.
    """
    features, n = arch_kwargs["stem_features"], arch_kwargs.get("n_conv_per_stem_stage", 2)
    steps = [[1] * len(patch_size), *stem_strides(arch_kwargs["strides"][0], len(features))[:-1]]
    voxels = [math.prod(sizes) for sizes in feature_map_sizes(patch_size, steps)]
    values = [count * width for count, width in zip(voxels, features, strict=True)]
    return 2 * n * sum(values), (2 * n + 2) * sum(values)


def feature_map_sizes(patch_size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Tokens per axis at every stage, for a patch padded to the total stride."""
    sizes, result = list(patch_size), []
    for stride in strides:
        sizes = [math.ceil(size / s) for size, s in zip(sizes, stride, strict=True)]
        result.append(tuple(sizes))
    return result


def count_sample(
    patch_size: Sequence[int], input_channels: int, num_classes: int, arch_kwargs: dict[str, Any]
) -> Sample:
    """Counts one sample of the patch size; arch_kwargs as SliceMambaUNet takes them."""
    strides, widths = arch_kwargs["strides"], arch_kwargs["features_per_stage"]
    n_dims, d_state, expand = len(strides[0]), arch_kwargs.get("d_state", 16), arch_kwargs.get("expand", 2)
    checkpointed = arch_kwargs.get("activation_checkpointing", False)
    n_blocks = [
        encoder + decoder
        for encoder, decoder in zip(
            arch_kwargs["n_blocks_per_stage"], reversed(arch_kwargs["n_blocks_per_stage_decoder"]), strict=True
        )
    ]
    tokens = [math.prod(sizes) for sizes in feature_map_sizes(patch_size, strides)]
    kept = transient = 0.0
    for stage, width in enumerate(widths):
        in_block, in_backward = block_values(width, n_dims, d_state, expand)
        # a checkpointed block keeps its input (float32), and the one that is computed again needs everything
        kept += tokens[stage] * n_blocks[stage] * (2 * width if checkpointed else in_block)
        transient = max(transient, tokens[stage] * (in_backward + (in_block if checkpointed else 0)))
        if stage:
            # merging: the cells (float32) and what the product reads; expanding: its input, what it rearranges
            cells = math.prod(strides[stage]) * widths[stage - 1]
            kept += tokens[stage] * (3 * cells + width + cells)
    voxels = tokens[0] * math.prod(strides[0])
    stem = stem_decoder = 0.0
    head_width = widths[0] / 4
    if features := arch_kwargs.get("stem_features"):
        padded = [size * s for size, s in zip(feature_map_sizes(patch_size, strides)[0], strides[0], strict=True)]
        stem, stem_decoder = stem_values(padded, arch_kwargs)
        head_width = features[0]
    if arch_kwargs.get("skip") == "concatenate":
        # what enters the Linear, and what leaves it
        kept += sum(3 * count * width for count, width in zip(tokens[1:], widths[1:], strict=True))
    return Sample(
        kept=kept,
        transient=transient,
        head=voxels * head_width,
        logit=voxels * num_classes,
        voxel=voxels * (input_channels + 1),
        stem=stem,
        stem_decoder=stem_decoder,
    )


def count_static(input_channels: int, num_classes: int, arch_kwargs: dict[str, Any], supernet: bool = True) -> Static:
    """Counts the parameters of the supernet, or of the final network."""
    with torch.device("meta"):
        network = SliceMambaUNet(input_channels, num_classes, **arch_kwargs)
    everything = sum(p.numel() for p in network.parameters())
    if not supernet:
        return Static(everything, everything)
    in_blocks = sum(p.numel() for block in network.block_positions() for p in block.parameters())
    with_weights = sum(candidate != NO_BLOCK for candidate in planned_candidates(arch_kwargs))
    return Static(everything + (with_weights - 1) * in_blocks, everything)


def bytes_per_sample(
    patch_size: Sequence[int],
    input_channels: int,
    num_classes: int,
    arch_kwargs: dict[str, Any],
    model: MemoryModel = MemoryModel(),
) -> float:
    """Bytes of one sample's activations in a training step; arch_kwargs as SliceMambaUNet takes them."""
    return count_sample(patch_size, input_channels, num_classes, arch_kwargs).bytes(model)


def static_bytes(
    input_channels: int,
    num_classes: int,
    arch_kwargs: dict[str, Any],
    model: MemoryModel = MemoryModel(),
    supernet: bool = True,
) -> float:
    """Bytes that do not depend on the batch, the driver's included.

    By default of the supernet, of which the final network needs a part: one plan serves both.
    """
    return count_static(input_channels, num_classes, arch_kwargs, supernet).bytes(model) + model.context
