"""Residual networks in the plans: nnU-Net's own topology, and where S3 blocks are added to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_slicemamba.common.names import NETWORK_CLASSES, OPTIONS_IN_PLANS
from nnunetv2_slicemamba.nets.resolutions import reductions
from nnunetv2_slicemamba.planning.sizes import BLOCKS_FROM_STRIDE, PAPER, SIZES

RESIDUAL_CLASS = NETWORK_CLASSES["SliceMambaResidualUNet"][0]

# the S3 blocks; see BSS. By number of axes: in 3D a block reads six directions, and twice the width brought no Dice
BLOCKS = {"d_state": 4, "drop_path_rate": 0.0}
EXPAND = {2: 2, 3: 1}
# nnU-Net's widths at full resolution and at most, by number of axes
WIDTH = SIZES[PAPER].residual
MAX_FEATURES = {2: 512, 3: 320}
PLANNED = ("n_stages", "features_per_stage", "strides", "kernel_sizes", "n_conv_per_stage", "n_conv_per_stage_decoder")


def blocks_per_stage(strides: Sequence[Sequence[int]], from_stride: int) -> list[int]:
    """S3 blocks per encoder stage: one at every stage with that stride from full resolution, or a larger one.

    A stage's stride is that of the axis which is reduced most, so that a coarse axis, which is reduced later, does not
    count. The bottleneck has a block also where no stage has such a stride. from_stride 0: no blocks at all.
    """
    if from_stride == 0:
        return [0] * len(strides)
    reduced = [max(reduction) for reduction in reductions(strides)]
    return [int(stride >= min(from_stride, reduced[-1])) for stride in reduced]


def residual_kwargs(
    planned: Mapping[str, Any],
    from_stride: int = BLOCKS_FROM_STRIDE,
    activation_checkpointing: bool = False,
    decoder_blocks: bool = False,
) -> dict[str, Any]:
    """arch_kwargs of SliceMambaResidualUNet for those that nnU-Net planned for its PlainConvUNet.

    from_stride: see blocks_per_stage. decoder_blocks: the decoder's stages have blocks where the encoder's have.
    """
    kwargs = {name: _plain(planned[name]) for name in PLANNED}
    blocks = blocks_per_stage(kwargs["strides"], from_stride)
    return {
        **kwargs,
        "norm_eps": planned["norm_op_kwargs"]["eps"],
        "n_blocks_per_stage": blocks,
        "n_blocks_per_stage_decoder": [n if decoder_blocks else 0 for n in reversed(blocks[:-1])],
        **BLOCKS,
        "expand": EXPAND[len(kwargs["strides"][0])],
        **({"activation_checkpointing": True} if activation_checkpointing else {}),
    }


def planned_options(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `slicemamba plan` that plans were made with, by their names there, as far as the plans tell them.

    Plans of a residual network from before they kept their options tell where the blocks stand all the same.
    """
    networks = [one.get("architecture", {}) for one in plans["configurations"].values()]
    found = [one["arch_kwargs"] for one in networks if one.get("network_class_name") == RESIDUAL_CLASS]
    # a network whose bottleneck alone has a block tells the bottleneck's stride; the largest one serves all
    stride = max(map(_first_stride, found), default=0)
    told: dict[str, Any] = {}
    if found and all(blocks_per_stage(one["strides"], stride) == one["n_blocks_per_stage"] for one in found):
        told = {
            "blocks_from_stride": stride,
            "decoder_blocks": any(any(one["n_blocks_per_stage_decoder"]) for one in found),
        }
    return told | plans.get(OPTIONS_IN_PLANS, {})


def _first_stride(arch_kwargs: Mapping[str, Any]) -> int:
    """The stride of the first stage with blocks, 0 without any."""
    stages = zip(reductions(arch_kwargs["strides"]), arch_kwargs["n_blocks_per_stage"], strict=True)
    return next((max(reduction) for reduction, blocks in stages if blocks), 0)


def plain_unet_kwargs(
    strides: Sequence[Sequence[int]], kernel_sizes: Sequence[Sequence[int]], size: str
) -> dict[str, Any]:
    """arch_kwargs of nnU-Net's PlainConvUNet with these strides and kernels, as nnU-Net plans them.

    size: a key of SIZES; all widths are its share of nnU-Net's.
    """
    n, widest = len(strides), MAX_FEATURES[len(strides[0])]
    return {
        "n_stages": n,
        "features_per_stage": [
            min(widest * SIZES[size].residual // WIDTH, SIZES[size].residual * 2**i) for i in range(n)
        ],
        "strides": strides,
        "kernel_sizes": kernel_sizes,
        "n_conv_per_stage": [2] * n,
        "n_conv_per_stage_decoder": [2] * (n - 1),
        "norm_op_kwargs": {"eps": 1e-5},
    }


def _plain(value: Any) -> Any:
    """The value with Python's lists and whole numbers only."""
    return [_plain(one) for one in value] if hasattr(value, "__iter__") else int(value)
