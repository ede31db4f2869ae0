"""nnU-Net's networks whose units are fused compute what they computed, from the same checkpoints."""

from __future__ import annotations

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from torch import nn

from nnunetv2_slicemamba.trainers.fused_units import can_fuse, fuse_units

UNIT = {"norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin": nn.LeakyReLU, "nonlin_kwargs": {"inplace": True}}


def network(architecture: type[nn.Module], dims: int, **changed) -> nn.Module:
    torch.manual_seed(0)
    blocks = "n_conv_per_stage" if architecture is PlainConvUNet else "n_blocks_per_stage"
    conv, norm = {2: (nn.Conv2d, nn.InstanceNorm2d), 3: (nn.Conv3d, nn.InstanceNorm3d)}[dims]
    settings = {"conv_op": conv, "norm_op": norm, "conv_bias": True, **UNIT, **changed}
    settings |= {blocks: [1, 2], "n_conv_per_stage_decoder": [1], "deep_supervision": False}
    return architecture(1, 2, [4, 8], kernel_sizes=3, strides=[1, 2], num_classes=2, **settings)


@pytest.mark.parametrize(("architecture", "dims", "units"), [(PlainConvUNet, 2, 4), (ResidualEncoderUNet, 3, 9)])
def test_fused_units_give_the_same_results_and_gradients_from_the_same_checkpoint(architecture, dims, units):
    torch.manual_seed(1)
    plain, fused = network(architecture, dims), network(architecture, dims)
    assert fuse_units(fused) == units
    fused.load_state_dict(plain.state_dict())
    assert list(fused.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 1, *[16] * dims)
    expected, got = plain(x), fused(x)
    torch.testing.assert_close(got, expected)
    weights = torch.randn_like(expected)
    for made in (expected, got):
        (made * weights).sum().backward()
    left_out = 0
    for (name, p), q in zip(plain.named_parameters(), fused.parameters(), strict=True):
        if q.grad is None:
            left_out += 1
            assert name.endswith("conv.bias")
            assert p.grad.abs().max() < 1e-3 * max(float(one.grad.abs().max()) for one in plain.parameters())
        else:
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-3, atol=1e-4)
    biases = {id(one.conv.bias) for one in fused.modules() if isinstance(one, ConvDropoutNormReLU)} - {id(None)}
    assert left_out == len(biases)


@pytest.mark.parametrize(
    "changed",
    [
        {"nonlin": nn.ReLU},
        {"dropout_op": nn.Dropout2d, "dropout_op_kwargs": {"p": 0.2}},
        {"norm_op": nn.BatchNorm2d},
        {"norm_op_kwargs": {"affine": False}},
        {"nonlin_first": True},
    ],
)
def test_other_units_stay_as_they_are(changed):
    assert fuse_units(network(PlainConvUNet, 2, **changed)) == 0
    assert not can_fuse(as_in_plans(changed))


def test_plans_tell_whether_units_can_be_fused():
    assert can_fuse(as_in_plans({}))
    assert not can_fuse({"features": [4, 8]})


def as_in_plans(changed):
    """Arguments of `network` in 2D with names of classes in place of the classes."""
    settings = {"norm_op": nn.InstanceNorm2d, **UNIT, **changed}
    return {k: f"{v.__module__}.{v.__name__}" if isinstance(v, type) else v for k, v in settings.items()}
