"""Conversion of a weight to another shape: other input channels, classes, widths, or a third axis.

Every function takes and returns float weights and leaves its argument alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunetv2_slicemamba.nets.base import SliceMambaBase

INFLATIONS = ("mean", "center")


def adapt_input_channels(weight: Tensor, channels: int) -> Tensor:
    """A patch embedding's kernel (C, 3, *kernel) for another number of input channels: (C, channels, *kernel).

    One channel: the three summed, which is exact where a network repeated its only channel three times. More: the
    three in turn, scaled by 3 / channels, so that the sum over the inputs keeps its size. The convention of timm's
    adapt_input_conv (Wightman, PyTorch Image Models). Raises ValueError if the weight has neither 3 channels nor as
    many as asked for.
    """
    given = weight.shape[1]
    if given == channels:
        return weight.clone()
    if given != 3:
        raise ValueError(f"only 3 input channels can be adapted to {channels}, the checkpoint has {given}")
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, torch.arange(channels) % 3] * (3 / channels)


def background_and_foreground(value: Tensor) -> Tensor:
    """A sigmoid head's weight or bias (1, ..) for two classes (2, ..): softmax of (0, z) is sigmoid of z."""
    return torch.cat([torch.zeros_like(value), value])


@dataclass(frozen=True)
class Layout:
    """Layout of the channels in a network's weights, which has to be known to cut or repeat them.

    strides: per stage. d_state: N. directions: K.
    """

    strides: tuple[tuple[int, ...], ...]
    d_state: int
    directions: int

    @classmethod
    def from_network(cls, network: SliceMambaBase) -> Layout:
        """Layout of a network of ours."""
        scan = next(module for name, module in network.named_modules() if name.endswith(".bss"))
        return cls(tuple(network.strides), int(scan.d_state), int(scan.directions))

    def stride(self, name: str) -> tuple[int, ...]:
        """Stride of the merging or expanding that holds our weight `name`."""
        words = name.split(".")
        if "final_mapping" in words:
            return self.strides[0]
        stage = int(words[words.index("stages") + 1])
        return self.strides[stage if words[0] == "encoder" else len(self.strides) - stage]

    def segments(self, name: str, dim: int, size: int) -> list[int]:
        """Sizes of the parts that axis `dim`, of `size`, of our weight `name` consists of."""
        end = ".".join(name.split(".")[-2:])
        if end.startswith("bss.x_proj_weight") and dim == 1:
            return [size - 2 * self.d_state, self.d_state, self.d_state]
        if end == "in_proj.weight" and dim == 0:
            return [size // 2] * 2
        if end in ("bss.A_logs", "bss.Ds") and dim == 0:
            return [size // self.directions] * self.directions
        merged = ".downsample." in name and (dim == 1 or ".norm." in name)
        if merged or (end == "expand.weight" and dim == 0):
            cells = math.prod(self.stride(name))
            return [size // cells] * cells
        return [size]


def select_widths(name: str, value: Tensor, shape: Sequence[int], source: Layout, target: Layout) -> Tensor:
    """Evenly spaced channels of a wider weight: the uniform element selection of Xu et al., ICLR 2024.

    "Initializing Models with Larger Ones". Channels that mean the same in several weights are chosen alike, within each
    part of an axis. name: ours. shape: wanted, nowhere larger than the value's. Raises ValueError if it is.
    """
    if len(shape) != value.ndim:
        raise ValueError(f"{value.ndim} axes, this network's has {len(shape)}")
    for dim, wanted in enumerate(shape):
        have, want = source.segments(name, dim, value.shape[dim]), target.segments(name, dim, wanted)
        if len(have) != len(want) or any(w > h for h, w in zip(have, want, strict=True)):
            raise ValueError("nothing wider to select from")
        indices, start = [], 0
        for h, w in zip(have, want, strict=True):
            indices.append(start + torch.arange(w) * h // w)
            start += h
        value = value.index_select(dim, torch.cat(indices))
    return value.clone()


def inflate(name: str, value: Tensor, shape: Sequence[int], target: Layout, kernels: str) -> Tensor:
    """A weight of the 2D network for the 3D one, the new axis being the first (depth).

    kernels: what becomes of convolutions along depth, "mean": repeated and divided by the depth (I3D, Carreira &
    Zisserman 2017); "center": in the middle slice, zero elsewhere (as in ViViT, Arnab et al. 2021). Merging averages
    over depth, expanding repeats along it. The two scan directions along depth start silent (their C and D are zero),
    so that on a volume one slice deep the network computes what the 2D one does, with "center" exactly.
    shape: that the weight must get, but for widths. Raises ValueError for an unknown kind of kernels.
    """
    if kernels not in INFLATIONS:
        raise ValueError(f"kernels are inflated by {' or '.join(INFLATIONS)}, not by {kernels!r}")
    last = name.rpartition(".")[2]
    if ".stem.upsamples." in name and value.ndim == 4:
        return value.unsqueeze(2).repeat(1, 1, shape[2], 1, 1)
    if name.endswith(("patch_embedding.proj.weight", "bss.conv.weight")) or (
        (".seg_layers." in name or ".stem." in name) and value.ndim == 4
    ):
        return inflate_kernel(value, shape[2], kernels)
    if last in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias"):
        along_h = value[2:].clone()
        if last == "x_proj_weight":
            along_h[:, -target.d_state :] = 0
        return torch.cat([value, along_h])
    if last in ("A_logs", "Ds"):
        along_h = value.unflatten(0, (4, -1))[2:].flatten(0, 1)
        return torch.cat([value, torch.zeros_like(along_h) if last == "Ds" else along_h])
    if ".downsample." in name or name.endswith("expand.weight"):
        return inflate_cells(name, value, target.stride(name))
    return value.clone()


def inflate_kernel(value: Tensor, depth: int, kernels: str) -> Tensor:
    """(out, in, h, w) -> (out, in, depth, h, w)."""
    stacked = value.unsqueeze(2).repeat(1, 1, depth, 1, 1)
    if kernels == "mean":
        return stacked / depth
    middle = torch.zeros(depth)
    middle[depth // 2] = 1
    return stacked * middle[:, None, None]


def inflate_cells(name: str, value: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Weights over the neighbours of a cell, of stride (d, h, w); merging lays them out w slowest, expanding d."""
    depth, height, width = stride
    if ".downsample." not in name:
        return value.repeat(depth, *[1] * (value.ndim - 1))
    cells = value.unflatten(-1, (width, height, 1, -1))
    repeated = cells.repeat_interleave(depth, dim=-2).flatten(-4)
    return repeated / depth if name.endswith("reduction.weight") else repeated
