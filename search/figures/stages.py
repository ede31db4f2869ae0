"""Stages of the U-shaped network, and the names of its blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """A resolution of the U-shape: numbers of its blocks, and its width in channels.

    reduction: cumulated stride, image voxels per token, per axis.
    """

    encoder_blocks: int
    decoder_blocks: int
    channels: int
    reduction: tuple[int, ...]


def stages_of(arch_kwargs: Mapping[str, Any]) -> tuple[Stage, ...]:
    """Stages of a network with these arguments, highest resolution first."""
    reduction = (1,) * len(arch_kwargs["strides"][0])
    stages = []
    # the decoder's first stage works at the bottleneck's resolution; a residual network's decoder has no such stage
    decoder = list(reversed(arch_kwargs["n_blocks_per_stage_decoder"]))
    decoder += [0] * (len(arch_kwargs["strides"]) - len(decoder))
    parts = (arch_kwargs[name] for name in ("strides", "features_per_stage", "n_blocks_per_stage"))
    for strides, channels, encoder_blocks, decoder_blocks in zip(*parts, decoder, strict=True):
        reduction = tuple(total * int(step) for total, step in zip(reduction, strides, strict=True))
        stages.append(Stage(int(encoder_blocks), int(decoder_blocks), int(channels), reduction))
    return tuple(stages)


def block_names(stages: Sequence[Stage]) -> list[str]:
    """e1.1, e1.2, ... of the encoder from the highest resolution down, then d4.1, ... of the decoder upwards."""
    names = [f"e{i}.{j + 1}" for i, stage in enumerate(stages, 1) for j in range(stage.encoder_blocks)]
    upwards = reversed(list(enumerate(stages, 1)))
    return names + [f"d{i}.{j + 1}" for i, stage in upwards for j in range(stage.decoder_blocks)]


def stage_names(stages: Sequence[Stage]) -> list[tuple[str, int]]:
    """(name, number of blocks) in network order; a decoder stage has the number of its resolution."""
    encoder = [(f"encoder {i}", stage.encoder_blocks) for i, stage in enumerate(stages, 1)]
    decoder = [(f"decoder {i}", stage.decoder_blocks) for i, stage in enumerate(stages, 1)]
    return [*encoder, *reversed(decoder)]
