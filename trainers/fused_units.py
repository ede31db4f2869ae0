"""nnU-Net's units of convolution, instance norm and leaky ReLU, run channels last with norm and activation as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from torch import Tensor, nn
from torch.nn import functional as F

from nnunetv2_slicemamba.nets.conv_norm_act import in_channels_last
from nnunetv2_slicemamba.ops.instance_norm import instance_norm_leaky_relu

_CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}
_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)


def fuse_units(network: nn.Module) -> int:
    """Has nnU-Net's units in a network run their norm and activation as one operation; returns how many do.

    Parameters, their names and the results stay, up to rounding. The convolution leaves out its bias, which the norm
    would subtract again: it has no gradient any more. Units with dropout, other norms or other activations, and
    those that activate before they norm, stay as they are.
    """
    units = [one for one in network.modules() if isinstance(one, ConvDropoutNormReLU) and _can_be_fused(one)]
    for unit in units:
        slope = unit.nonlin.negative_slope if hasattr(unit, "nonlin") else 1.0
        unit.forward = partial(_fused, unit.conv, unit.norm, slope)
    return len(units)


def can_fuse(arch_kwargs: Mapping[str, Any]) -> bool:
    """True if the units of a network of nnU-Net's with these arguments, as plans have them, can be fused."""
    norm, activation = (str(arch_kwargs.get(name)).rpartition(".")[2] for name in ("norm_op", "nonlin"))
    return (
        norm in [one.__name__ for one in _NORMS]
        and (arch_kwargs.get("norm_op_kwargs") or {}).get("affine", False)
        and activation == nn.LeakyReLU.__name__
        and arch_kwargs.get("dropout_op") is None
        and not arch_kwargs.get("nonlin_first", False)
    )


def _can_be_fused(unit: ConvDropoutNormReLU) -> bool:
    """True for a unit that does nothing but convolve, norm each sample's channels, and activate."""
    conv, *others = unit.all_modules
    if type(conv) not in _CONVOLUTIONS or conv.padding_mode != "zeros" or not others:
        return False
    norm, *rest = others
    normal = isinstance(norm, _NORMS) and norm.affine and not norm.track_running_stats
    return normal and (not rest or (len(rest) == 1 and isinstance(rest[0], nn.LeakyReLU)))


def _fused(conv: nn.Conv2d | nn.Conv3d, norm: nn.InstanceNorm2d | nn.InstanceNorm3d, slope: float, x: Tensor) -> Tensor:
    convolve = _CONVOLUTIONS[type(conv)]
    x = convolve(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    return instance_norm_leaky_relu(in_channels_last(x), norm.weight, norm.bias, norm.eps, slope)
