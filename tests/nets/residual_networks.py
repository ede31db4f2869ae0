"""Small residual networks, and nnU-Net's own network with the same convolutions."""

from __future__ import annotations

from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunetv2_slicemamba.nets import SlicedNetwork

# anisotropic on purpose: an axis mixed up with another shows
SHAPES: dict[int, dict[str, Any]] = {
    2: {"strides": [[1, 1], [2, 2], [2, 2], [2, 1]], "kernel_sizes": [[3, 3], [3, 3], [3, 3], [3, 1]]},
    3: {
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 1]],
        "kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3]],
    },
}
SIZES = {2: (16, 24), 3: (8, 16, 12)}


def planned(n_dims: int) -> dict[str, Any]:
    """The arguments that nnU-Net's network and ours have in common."""
    return {
        "n_stages": 4,
        "features_per_stage": [6, 12, 16, 16],
        **SHAPES[n_dims],
        "n_conv_per_stage": [2, 1, 2, 2],
        "n_conv_per_stage_decoder": [2, 1, 2],
    }


def arguments(n_dims: int, **changes: Any) -> dict[str, Any]:
    """Arguments of SliceMambaResidualUNet with 4 blocks: in two encoder stages and one of the decoder."""
    blocks = {"n_blocks_per_stage": [0, 0, 1, 2], "n_blocks_per_stage_decoder": [1, 0, 0], "d_state": 4}
    return {"input_channels": 2, "num_classes": 3, **planned(n_dims), **blocks} | changes


def image(n_dims: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 2, *SIZES[n_dims], generator=generator)


def nnunets(n_dims: int, deep_supervision: bool) -> PlainConvUNet:
    """nnU-Net's network for the same plans, with random norms and biases."""
    network = PlainConvUNet(
        2,
        conv_op={2: nn.Conv2d, 3: nn.Conv3d}[n_dims],
        norm_op={2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[n_dims],
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        conv_bias=True,
        num_classes=3,
        deep_supervision=deep_supervision,
        **planned(n_dims),
    )
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return network


@torch.no_grad()
def take_weights(network: SlicedNetwork, stock: PlainConvUNet) -> None:
    """Gives our convolutions nnU-Net's weights; the biases in front of its norms are left out."""

    def take(units: Any, theirs: Any) -> None:
        for ours, block in zip(units, theirs.convs, strict=True):
            ours.conv.weight.copy_(block.conv.weight)
            ours.weight.copy_(block.norm.weight)
            ours.bias.copy_(block.norm.bias)

    for stage, theirs in zip(network.encoder.stages, stock.encoder.stages, strict=True):
        take(stage.convolutions, theirs[0])
    parts = (stock.decoder.stages, stock.decoder.transpconvs)
    for stage, theirs, upsample in zip(network.decoder.stages, *parts, strict=True):
        take(stage.convolutions, theirs)
        stage.upsample.load_state_dict(upsample.state_dict())
    network.decoder.seg_layers.load_state_dict(stock.decoder.seg_layers.state_dict())


@torch.no_grad()
def wake(network: nn.Module) -> None:
    """Ends the blocks' start at zero, so that they count."""
    for name, parameter in network.named_parameters():
        if name.endswith("out_proj.weight"):
            parameter.normal_(std=0.3)
