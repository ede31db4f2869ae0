"""Weights start as published, and nnU-Net's initialisation leaves what it must."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.abstract_arch import test_submodules_loadable as check_submodules
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn
from torch.nn import functional as F

from nnunetv2_slicemamba.nets import BSS, SliceMambaSupernet, SliceMambaUNet

SCAN_PARAMETERS = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")


def test_the_first_step_sizes_are_log_uniform_between_a_thousandth_and_a_tenth() -> None:
    steps = F.softplus(BSS(64).dt_projs_bias.detach().double()).flatten()
    assert steps.min() >= 1e-3 * (1 - 1e-4)
    assert steps.max() <= 0.1 * (1 + 1e-4)
    # 512 draws: every third of the logarithmic range has its share
    counts = torch.histc(steps.log(), 3, math.log(1e-3), math.log(0.1))
    assert counts.min() > 512 / 3 * 0.75


def test_the_other_scan_parameters_start_as_published() -> None:
    bss = BSS(32, d_state=8)
    assert torch.equal(bss.A_logs, torch.arange(1, 9).float().log().expand(4 * 64, 8))
    assert torch.equal(bss.Ds, torch.ones(4 * 64))
    for weight, bound in ((bss.x_proj_weight, 64**-0.5), (bss.dt_projs_weight, bss.rank**-0.5)):
        assert bound * 0.95 < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize("kind", [SliceMambaUNet, SliceMambaSupernet])
def test_nnunets_initialisation_leaves_scan_parameters_and_convolutions_alone(
    kind: type[nn.Module], settings: Callable[..., dict[str, Any]]
) -> None:
    network = kind(**settings())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.apply(network.initialize)  # as get_network_from_plans does
    untouched = 0
    for name, module in network.named_modules():
        if isinstance(module, BSS):
            for parameter in SCAN_PARAMETERS:
                assert torch.equal(getattr(module, parameter), before[f"{name}.{parameter}"]), f"{name}.{parameter}"
                untouched += 1
        elif isinstance(module, nn.Conv2d):
            assert torch.equal(module.weight, before[f"{name}.weight"]), name
        elif isinstance(module, nn.Linear):
            assert module.weight.abs().max() < 0.2
        elif isinstance(module, nn.LayerNorm):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))
    assert untouched == 5 * 8 * (4 if kind is SliceMambaSupernet else 1)


def test_linear_weights_have_a_deviation_of_two_hundredths() -> None:
    bss = BSS(64)
    assert bss.in_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert bss.out_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("kind", ["unet.SliceMambaUNet", "supernet.SliceMambaSupernet"])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_nnunet_builds_the_network_by_name_with_the_arguments_of_plans(
    kind: str, n_dims: int, settings: Callable[..., dict[str, Any]]
) -> None:
    kwargs = settings(n_dims)
    channels, classes = kwargs.pop("input_channels"), kwargs.pop("num_classes")
    network = get_network_from_plans(
        f"nnunetv2_slicemamba.nets.{kind}", kwargs, [], channels, classes, allow_init=True, deep_supervision=True
    )
    size = (2, 32, 32)[-n_dims:]
    assert network(torch.randn(1, channels, *size))[0].shape == (1, classes, *size)


@pytest.mark.parametrize("kind", [SliceMambaUNet, SliceMambaSupernet])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_nnunets_keys_name_the_encoder_and_what_depends_on_the_input_channels(
    kind: Any, n_dims: int, settings: Callable[..., dict[str, Any]]
) -> None:
    network = kind(**settings(n_dims))
    check_submodules(network)
    assert network.get_submodule(network.key_to_encoder) is network.encoder
    other = kind(**settings(n_dims, input_channels=5)).state_dict()
    differing = {name for name, value in network.state_dict().items() if value.shape != other[name].shape}
    assert differing == {f"{key}.weight" for key in network.keys_to_in_proj}
    assert all(name.startswith(f"{network.key_to_stem}.") for name in differing)
