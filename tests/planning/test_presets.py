"""`slicemamba_unet` builds what `slicemamba plan` plans, without plans."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

import nnunetv2_slicemamba
from nnunetv2_slicemamba import slicemamba_unet
from nnunetv2_slicemamba.planning.planner import planner_of
from nnunetv2_slicemamba.planning.sizes import NETWORKS, SIZES

TINY: dict[str, Any] = {"size": "S", "patch_size": (32, 32)}
# spacing and size of a data set's images: large ones, and small or coarse ones
DATA = {
    2: [((1.0, 1.0), (767, 1022)), ((0.5, 0.8), (40, 60))],
    3: [((1.0, 1.0, 1.0), (200, 220, 210)), ((5.0, 1.0, 1.0), (24, 90, 110))],
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("dims", "dataset"), [(2, 901), (3, 902)])
def test_it_is_the_planned_network(dims: int, dataset: int, network: str, workspace: Path) -> None:
    for size in SIZES:
        planner = planner_of(size, network)(dataset, gpu_memory_target_in_gb=24)
        for spacing, shape in DATA[dims]:
            plan = planner.get_plans_for_configuration(np.array(spacing), np.array(shape), "data", 1e9, {})
            architecture = plan["architecture"]
            with torch.device("meta"):
                planned = get_network_from_plans(
                    architecture["network_class_name"],
                    architecture["arch_kwargs"],
                    (),
                    1,
                    2,
                    False,
                    deep_supervision=True,
                )
                sizes = {"patch_size": plan["patch_size"], "spacing": plan["spacing"]}
                built = slicemamba_unet(dims, size, network, **sizes, deep_supervision=True)
            assert type(built) is type(planned)
            assert built.settings == planned.settings


def test_the_default_is_the_recommended_network_with_the_recommended_slicing() -> None:
    with torch.device("meta"):
        for dims, thickness, blocks in ((2, (2, 4), 6), (3, (2, 4, 2), 4)):
            network = slicemamba_unet(dims)
            assert network.settings == slicemamba_unet(dims, "L", "residual").settings
            assert set(network.get_slicing()) == {thickness}
            assert network.n_blocks == blocks


def test_one_thickness_serves_all_blocks_and_a_list_each_its_own() -> None:
    assert set(slicemamba_unet(**TINY, slicing=(4, 2)).get_slicing()) == {(4, 2)}
    n = slicemamba_unet(**TINY).n_blocks
    own = [(2, 2 + i) for i in range(n)]
    assert slicemamba_unet(**TINY, slicing=own).get_slicing() == tuple(own)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dims": 4}, "dims is 4, the number of spatial axes: give 2 or 3"),
        ({"size": "XL"}, "size 'XL' does not exist; give one of S, M, L"),
        ({"network": "unet"}, "network 'unet' does not exist; give one of paper, hybrid, residual"),
        ({"patch_size": 256}, r"patch_size is 256, it must be 2 numbers above 0: give for example \(512, 512\)"),
        # which nnU-Net would halve for ever
        ({"patch_size": (math.inf, 64)}, r"patch_size is \(inf, 64\), it must be 2 numbers above 0"),
        ({"patch_size": ("32", "32")}, r"patch_size is \('32', '32'\), it must be 2 numbers above 0"),
        ({"spacing": (1, 1, 3)}, r"spacing is \(1, 1, 3\), it must be 2 numbers above 0"),
        ({"slicing": 2}, r"thickness 2 is one number: give one per spatial axis, such as \(2, 2\)"),
        ({"slicing": (2, 4, 2)}, r"thickness \(2, 4, 2\) has 3 entries for 2 spatial axes"),
        ({"slicing": [(2, 4)] * 9}, "the slicing has 9 blocks, this network has"),
        ({"in_channels": 0}, "input_channels and num_classes .* must all be at least 1"),
        ({"network": "residual", "patch_size": (4, 4)}, "a U-Net has 2 resolutions or more"),
    ],
)
def test_what_makes_no_network_is_refused_with_value_rule_and_remedy(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        slicemamba_unet(**{**TINY, **arguments})


def test_the_package_imports_without_pytorch_and_knows_its_names() -> None:
    code = "import sys, nnunetv2_slicemamba as n; print('torch' in sys.modules, n.slicemamba_unet.__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False slicemamba_unet\n"
    with pytest.raises(AttributeError, match="has no attribute 'slicemamba_net'"):
        nnunetv2_slicemamba.slicemamba_net  # type: ignore[attr-defined] # noqa: B018
