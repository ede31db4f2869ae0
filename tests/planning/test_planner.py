"""Plans name our network, fit the dataset and the GPU, and keep what the user added."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_slicemamba.common.hashing import sha256_of_plans
from nnunetv2_slicemamba.common.names import OPTIONS_IN_PLANS
from nnunetv2_slicemamba.common.verbosity import SliceMambaWarning
from nnunetv2_slicemamba.planning.memory import bytes_per_sample, feature_map_sizes, static_bytes
from nnunetv2_slicemamba.planning.planner import (
    PLANNERS,
    RESIDUAL_PLANNERS,
    SliceMambaPlanner,
    SliceMambaPlannerM,
    SliceMambaPlannerS,
)
from nnunetv2_slicemamba.planning.sizes import BLOCKS_FROM_STRIDE
from nnunetv2_slicemamba.planning.trained import differences

DISKS, SLABS = "Dataset901_Disks", "Dataset902_Slabs"


def plans_of(workspace: Path, dataset: str, name: str = "nnUNetSliceMambaSPlans") -> dict[str, Any]:
    return json.loads((workspace / "nnUNet_preprocessed" / dataset / f"{name}.json").read_text())


def pretend(
    workspace: Path, dataset: str, shape: tuple[int, ...], spacing: tuple[float, ...], cases: int = 500
) -> None:
    """Lets the fingerprint tell of images of another size: planning reads nothing else of them."""
    file = workspace / "nnUNet_raw" / dataset / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"numTraining": cases}))
    file = workspace / "nnUNet_preprocessed" / dataset / "dataset_fingerprint.json"
    changed = json.loads(file.read_text())
    changed["shapes_after_crop"] = [list(shape)] * len(changed["shapes_after_crop"])
    changed["spacings"] = [list(spacing)] * len(changed["spacings"])
    file.write_text(json.dumps(changed))


def plan(size: str, dataset: int = 901, gpu_memory: float = 8) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="size ., patch")
        return plan_experiment_dataset(dataset, PLANNERS[size], gpu_memory)[0]


def test_sizes_have_names_of_their_own_and_the_papers_is_the_plain_one() -> None:
    names = {planner: planner.default_plans_name for planner in PLANNERS.values()}
    assert names == {
        SliceMambaPlannerS: "nnUNetSliceMambaSPlans",
        SliceMambaPlannerM: "nnUNetSliceMambaMPlans",
        SliceMambaPlanner: "nnUNetSliceMambaPlans",
    }
    assert [PLANNERS[size].size for size in ("S", "M", "L")] == ["S", "M", "L"]
    # nnU-Net splits its result folders at the double underscore
    assert not any("__" in name for name in names.values())


@pytest.mark.parametrize(("dataset", "configuration"), [(DISKS, "2d"), (SLABS, "2d"), (SLABS, "3d_fullres")])
def test_the_network_of_the_plans_builds_through_nnunet_and_takes_a_patch(
    dataset: str, configuration: str, workspace: Path
) -> None:
    manager = PlansManager(plans_of(workspace, dataset))
    planned = manager.get_configuration(configuration)
    assert planned.network_arch_class_name == "nnunetv2_slicemamba.nets.unet.SliceMambaUNet"
    network = get_network_from_plans(
        planned.network_arch_class_name,
        planned.network_arch_init_kwargs,
        planned.network_arch_init_kwargs_req_import,
        1,
        2,
        allow_init=True,
        deep_supervision=False,
    )
    with torch.no_grad():
        assert network(torch.zeros(1, 1, *planned.patch_size)).shape == (1, 2, *planned.patch_size)
    # nothing of a patch is padding
    assert all(size % step == 0 for size, step in zip(planned.patch_size, network.total_stride, strict=True))


def test_anisotropic_volumes_get_anisotropic_strides(workspace: Path) -> None:
    strides = plans_of(workspace, SLABS)["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["strides"]
    assert strides[0] == [1, 4, 4]


def test_configurations_whose_data_depend_on_spacing_alone_share_nnunets_data(workspace: Path) -> None:
    pretend(workspace, SLABS, (600, 600, 600), (1.0, 1.0, 1.0))
    configurations = plan("S", 902, 4)["configurations"]
    assert configurations["2d"]["data_identifier"] == "nnUNetPlans_2d"
    assert configurations["3d_fullres"]["data_identifier"] == "nnUNetPlans_3d_fullres"
    # the spacing of 3d_lowres follows from the patch, and so from our network
    assert configurations["3d_lowres"]["data_identifier"] == "nnUNetSliceMambaSPlans_3d_lowres"
    assert configurations["3d_cascade_fullres"]["inherits_from"] == "3d_fullres"


@pytest.mark.parametrize(
    "option",
    [
        {"overwrite_target_spacing": (4.0, 1.0, 1.0)},
        {"suppress_transpose": True},
        {"preprocessor_name": "AnotherPreprocessor"},
    ],
)
def test_options_that_change_the_data_never_name_those_of_nnunets_plans(
    workspace: Path, option: dict[str, Any]
) -> None:
    planner = SliceMambaPlannerS(902, **option)
    for configuration in ("2d", "3d_fullres"):
        assert planner.generate_data_identifier(configuration) == f"nnUNetSliceMambaSPlans_{configuration}"


@pytest.mark.parametrize(
    ("dataset", "shape", "spacing"),
    [
        (DISKS, (1, 5, 7), (999.0, 1.0, 1.0)),
        (DISKS, (1, 16, 16), (999.0, 1.0, 1.0)),
        (DISKS, (1, 30, 500), (999.0, 1.0, 1.0)),
        (DISKS, (1, 512, 640), (999.0, 1.0, 1.0)),
        (SLABS, (3, 20, 20), (1.0, 1.0, 1.0)),
        (SLABS, (12, 200, 180), (8.0, 0.7, 0.7)),
        (SLABS, (64, 64, 64), (1.0, 1.0, 1.0)),
    ],
)
@pytest.mark.parametrize("size", ["S", "L"])
def test_any_image_size_gives_a_network_without_maps_below_four_tokens(
    size: str, dataset: str, shape: tuple[int, ...], spacing: tuple[float, ...], workspace: Path
) -> None:
    pretend(workspace, dataset, shape, spacing)
    for configuration in plan(size, int(dataset[7:10]))["configurations"].values():
        if "inherits_from" in configuration:
            continue
        strides = configuration["architecture"]["arch_kwargs"]["strides"]
        maps = feature_map_sizes(configuration["patch_size"], strides)
        for sizes, reduced in zip(maps, np.cumprod(strides, axis=0), strict=True):
            assert all(n >= 4 or factor == 1 for n, factor in zip(sizes, reduced, strict=True)), configuration
        assert configuration["batch_size"] >= 2


@pytest.mark.parametrize(
    ("dataset", "configuration", "shape", "spacing"),
    [
        (DISKS, "2d", (1, 512, 512), (999.0, 1.0, 1.0)),
        (SLABS, "3d_fullres", (128, 256, 256), (1.0, 1.0, 1.0)),
    ],
)
def test_a_smaller_gpu_gets_a_smaller_batch_or_patch_that_fits(
    dataset: str, configuration: str, shape: tuple[int, ...], spacing: tuple[float, ...], workspace: Path
) -> None:
    pretend(workspace, dataset, shape, spacing)
    voxels = []
    for target in (16, 8, 4):
        planned = plan("M", int(dataset[7:10]), target)["configurations"][configuration]
        kwargs = planned["architecture"]["arch_kwargs"]
        voxels.append(planned["batch_size"] * np.prod(planned["patch_size"]))
        needed = static_bytes(1, 2, kwargs) + planned["batch_size"] * bytes_per_sample(
            planned["patch_size"], 1, 2, kwargs
        )
        assert needed < 1.001 * target * 2**30
    assert voxels[0] > voxels[1] > voxels[2]


def test_a_larger_network_gets_a_smaller_batch_or_patch_on_the_same_gpu(workspace: Path) -> None:
    pretend(workspace, DISKS, (1, 512, 512), (999.0, 1.0, 1.0))
    plans = [plan(size)["configurations"]["2d"] for size in ("S", "M", "L")]
    voxels = [planned["batch_size"] * np.prod(planned["patch_size"]) for planned in plans]
    assert voxels[0] > voxels[1] > voxels[2]


def test_a_network_too_large_for_the_gpu_is_planned_with_a_warning_that_names_the_remedy(workspace: Path) -> None:
    pretend(workspace, DISKS, (1, 512, 512), (999.0, 1.0, 1.0))
    with pytest.warns(UserWarning, match=r"more than the .*2 GB.*plan a smaller size \(--size S\)"):
        plan_experiment_dataset(901, SliceMambaPlanner, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        plan_experiment_dataset(901, SliceMambaPlannerS, 8)


@pytest.mark.parametrize(
    ("dataset", "shape", "spacing", "target"),
    [
        *((DISKS, (1, 512, 512), (999.0, 1.0, 1.0), target) for target in (0.01, 1, 3, 6)),
        *((SLABS, (64, 96, 96), (1.0, 1.0, 1.0), target) for target in (0.5, 4)),
    ],
)
def test_no_batch_is_below_two_and_a_plan_that_does_not_fit_is_warned_of(
    dataset: str, shape: tuple[int, ...], spacing: tuple[float, ...], target: float, workspace: Path
) -> None:
    pretend(workspace, dataset, shape, spacing)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        planned = plan_experiment_dataset(int(dataset[7:10]), SliceMambaPlanner, target)[0]["configurations"]
    told = [str(w.message) for w in caught if issubclass(w.category, SliceMambaWarning)]
    for configuration in planned.values():
        if "inherits_from" in configuration:
            continue
        kwargs, batch = configuration["architecture"]["arch_kwargs"], configuration["batch_size"]
        patch = list(map(int, configuration["patch_size"]))
        needed = static_bytes(1, 2, kwargs) + batch * bytes_per_sample(patch, 1, 2, kwargs)
        assert batch >= 2
        fits = needed <= 1.001 * target * 2**30
        of_this = f"patch {'x'.join(map(str, patch))}, batch 2 needs an estimated"
        assert fits != any(of_this in message for message in told)


@pytest.mark.parametrize("target", [0, -4, float("nan")])
def test_a_gpu_without_memory_is_refused(target: float, workspace: Path) -> None:
    with pytest.raises(ValueError, match="GPU memory target is"):
        SliceMambaPlannerS(901, target)


def test_configurations_that_users_added_survive_planning_anew(workspace: Path) -> None:
    file = workspace / "nnUNet_preprocessed" / DISKS / "nnUNetSliceMambaSPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d_mine"] = {"inherits_from": "2d", "batch_size": 17}
    plans["configurations"]["2d"]["batch_size"] = 99
    file.write_text(json.dumps(plans))
    plan("S")
    kept = plans_of(workspace, DISKS)["configurations"]
    assert kept["2d_mine"] == {"inherits_from": "2d", "batch_size": 17}
    assert kept["2d"]["batch_size"] != 99
    manager = PlansManager(plans_of(workspace, DISKS))
    assert manager.get_configuration("2d_mine").batch_size == 17


def test_plans_can_be_given_another_name(workspace: Path) -> None:
    plan_experiment_dataset(901, SliceMambaPlannerS, 8, overwrite_plans_name="minePlans")
    assert plans_of(workspace, DISKS, "minePlans")["plans_name"] == "minePlans"


def test_activation_checkpointing_is_planned_and_leaves_room_for_a_larger_batch(workspace: Path) -> None:
    pretend(workspace, DISKS, (1, 512, 512), (999.0, 1.0, 1.0), cases=5000)
    batches = []
    for checkpointing in (False, True):
        planner = type("SliceMambaPlannerM", (SliceMambaPlannerM,), {"activation_checkpointing": checkpointing})
        planned = plan_experiment_dataset(901, planner, 8)[0]["configurations"]["2d"]
        assert planned["architecture"]["arch_kwargs"].get("activation_checkpointing", False) == checkpointing
        batches.append(planned["batch_size"])
    assert batches[1] > 1.5 * batches[0]


@pytest.mark.parametrize("planner", [PLANNERS["S"], RESIDUAL_PLANNERS["S"]])
def test_plans_keep_the_options_that_made_them_and_they_change_no_network(planner: Any, workspace: Path) -> None:
    made = []
    for memory in (8, 7.5):
        plans = plan_experiment_dataset(901, planner, memory, overwrite_plans_name="Kept")[0]
        made.append(plans_of(workspace, DISKS, "Kept"))
        assert made[-1][OPTIONS_IN_PLANS] == plans[OPTIONS_IN_PLANS]
    own = (
        {"blocks_from_stride": BLOCKS_FROM_STRIDE, "decoder_blocks": False} if planner is RESIDUAL_PLANNERS["S"] else {}
    )
    assert [one[OPTIONS_IN_PLANS] for one in made] == [{"gpu_memory": 8.0} | own, {"gpu_memory": 7.5} | own]
    same = made[0] | {OPTIONS_IN_PLANS: made[1][OPTIONS_IN_PLANS]}
    assert sha256_of_plans(made[0], "2d") == sha256_of_plans(same, "2d")
    assert not differences(made[0], {key: same[key] for key in same if key != OPTIONS_IN_PLANS}, "2d")
