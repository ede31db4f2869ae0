"""Plans of residual networks: nnU-Net's own network, patch, batch and data, with S3 blocks where they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from typer.testing import CliRunner

from nnunetv2_slicemamba.cli.main import app
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.names import OPTIONS_IN_PLANS
from nnunetv2_slicemamba.common.nnunet_files import PLANS_JSON
from nnunetv2_slicemamba.planning.planner import RESIDUAL_PLANNERS, planner_of
from nnunetv2_slicemamba.planning.preprocessing import plan_and_preprocess
from nnunetv2_slicemamba.planning.residual import (
    RESIDUAL_CLASS,
    blocks_per_stage,
    plain_unet_kwargs,
    planned_options,
    residual_kwargs,
)
from nnunetv2_slicemamba.trainers import TRAINERS

DISKS, SLABS = "Dataset901_Disks", "Dataset902_Slabs"
SEVEN = [[1, 1], *[[2, 2]] * 6]
THICK = [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 1]]


@pytest.mark.parametrize(
    ("strides", "from_stride", "blocks"),
    [
        (SEVEN, 8, [0, 0, 0, 1, 1, 1, 1]),
        (SEVEN, 4, [0, 0, 1, 1, 1, 1, 1]),
        (SEVEN, 1, [1] * 7),
        (SEVEN, 0, [0] * 7),
        # no stage has this stride: the bottleneck alone
        (SEVEN, 1000, [0, 0, 0, 0, 0, 0, 1]),
        # the axis that is reduced most counts
        (THICK, 8, [0, 0, 0, 1, 1]),
        (THICK, 4, [0, 0, 1, 1, 1]),
        (THICK[:2], 4, [0, 1]),
    ],
)
def test_blocks_stand_at_stages_from_a_stride_on(strides: list[list[int]], from_stride: int, blocks: list[int]) -> None:
    assert blocks_per_stage(strides, from_stride) == blocks


@pytest.mark.parametrize(("strides", "expand"), [(SEVEN, 2), (THICK, 1)])
def test_unless_asked_otherwise_blocks_begin_at_stride_4(strides: list[list[int]], expand: int) -> None:
    kwargs = residual_kwargs(plain_unet_kwargs(strides, [[3] * len(strides[0])] * len(strides), "S"))
    assert kwargs["n_blocks_per_stage"] == [0, 0, *[1] * (len(strides) - 2)]
    # narrower in 3D, where blocks read six directions
    assert (kwargs["expand"], kwargs["d_state"]) == (expand, 4)


@pytest.mark.parametrize(("dataset", "configuration"), [(DISKS, "2d"), (SLABS, "2d"), (SLABS, "3d_fullres")])
def test_all_but_the_blocks_is_as_nnunet_plans_it(dataset: str, configuration: str, workspace: Path) -> None:
    number = int(dataset[7:10])
    stock, ours = (plan_experiment_dataset(number, one)[0] for one in (ExperimentPlanner, RESIDUAL_PLANNERS["L"]))
    assert ours["plans_name"] == "nnUNetSliceMambaResidualPlans"
    assert ours["experiment_planner_used"] == "SliceMambaPlannerResidual"
    theirs, own = (plans["configurations"][configuration] for plans in (stock, ours))
    network, kwargs = theirs.pop("architecture")["arch_kwargs"], own.pop("architecture")["arch_kwargs"]
    # patch, batch, spacing, and the name of the preprocessed data
    assert json.dumps(own, default=list) == json.dumps(theirs, default=list)
    for name in ("n_stages", "features_per_stage", "strides", "kernel_sizes", "n_conv_per_stage"):
        assert json.dumps(kwargs[name], default=list) == json.dumps(network[name], default=list)


@pytest.mark.parametrize(("dataset", "configuration"), [(DISKS, "2d"), (SLABS, "3d_fullres")])
def test_the_planned_network_builds_through_nnunet_and_takes_a_patch(
    dataset: str, configuration: str, workspace: Path
) -> None:
    plan_experiment_dataset(int(dataset[7:10]), RESIDUAL_PLANNERS["S"])
    file = workspace / "nnUNet_preprocessed" / dataset / "nnUNetSliceMambaResidualSPlans.json"
    planned = PlansManager(json.loads(file.read_text())).get_configuration(configuration)
    assert planned.network_arch_class_name == "nnunetv2_slicemamba.nets.residual.SliceMambaResidualUNet"
    assert planned.network_arch_init_kwargs["features_per_stage"][0] == 16
    network: Any = get_network_from_plans(
        planned.network_arch_class_name,
        planned.network_arch_init_kwargs,
        planned.network_arch_init_kwargs_req_import,
        1,
        2,
        allow_init=True,
        deep_supervision=False,
    )
    assert network.n_blocks == 2  # at strides 4 and 8
    with torch.no_grad():
        assert network(torch.zeros(1, 1, *planned.patch_size)).shape == (1, 2, *planned.patch_size)


def test_the_command_plans_it_with_the_data_that_are_there_and_with_blocks_where_they_are_asked_for(
    workspace: Path,
) -> None:
    def call(*more: str) -> Any:
        return CliRunner().invoke(app, ["plan", "-d", "901", "-c", "2d", "-np", "1", *more])

    def said(result: Any) -> str:
        assert result.exit_code == 2
        return " ".join(result.output.split())

    def blocks(name: str) -> list[int]:
        plans = json.loads((workspace / "nnUNet_preprocessed" / DISKS / f"{name}.json").read_text())
        kwargs = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
        return [*kwargs["n_blocks_per_stage"], *kwargs["n_blocks_per_stage_decoder"]]

    result = call("--network", "residual")
    assert result.exit_code == 0, result.output
    assert "2d: already preprocessed with the same settings" in result.output
    assert blocks("nnUNetSliceMambaResidualPlans") == [0, 0, 1, 1, 0, 0, 0]
    for stride, count in (("0", 0), ("2", 3)):
        name = f"Own{stride}Plans"
        result = call("--network", "residual", "--blocks-from-stride", stride, "-overwrite_plans_name", name)
        assert result.exit_code == 0, result.output
        assert sum(blocks(name)) == count
    decoder = ("--blocks-from-stride", "2", "--decoder-blocks", "-overwrite_plans_name", "OwnDecoderPlans")
    result = call("--network", "residual", *decoder)
    assert result.exit_code == 0, result.output
    encoder = blocks("Own2Plans")
    n_stages = (len(encoder) + 1) // 2
    assert blocks("OwnDecoderPlans") == [*encoder[:n_stages], *reversed(encoder[: n_stages - 1])]
    # what needs a slicing says what to do instead
    result = CliRunner().invoke(app, ["slicing", "-d", "901", "-c", "2d", "-f", "0", "-p", "Own0Plans", "--set", "2x2"])
    assert "the network of the plans Own0Plans has no S3 blocks" in said(result)
    for arguments, message in (
        (("--network", "resnet"), "--network 'resnet' does not exist; give one of paper, hybrid, residual"),
        (("--network", "residual", "--hybrid"), "--hybrid and --network residual name two networks"),
        (("--network", "hybrid", "--decoder-blocks"), "--decoder-blocks is for --network residual, this plans hybrid"),
        (
            ("--network", "hybrid", "--blocks-from-stride", "4"),
            "--blocks-from-stride is for --network residual, this plans hybrid",
        ),
    ):
        assert message in said(call(*arguments))


def test_plans_with_blocks_from_another_stride_are_trained_as_they_are_and_not_mixed_with_the_defaults(
    workspace: Path,
) -> None:
    def plan(**options: Any) -> None:
        plan_and_preprocess(901, DISKS, "S", ["2d"], processes=1, network="residual", **options)

    plan(blocks_from_stride=8)
    file = workspace / "nnUNet_preprocessed" / DISKS / "nnUNetSliceMambaResidualSPlans.json"
    before, plans = file.read_bytes(), PLANS_JSON.read(file)
    description = json.loads(file.with_name("dataset.json").read_text())
    began, continued = (
        TRAINERS["SliceMambaTrainer"]({**plans, "continue_training": False}, "2d", 0, description, torch.device("cpu"))
        for _ in range(2)
    )
    fold = Path(began.output_folder)
    fold.mkdir(parents=True, exist_ok=True)
    (fold.parent / "plans.json").write_bytes(before)
    began.initialize()
    began.save_checkpoint(str(fold / "checkpoint_latest.pth"))
    continued.load_checkpoint(str(fold / "checkpoint_latest.pth"))
    assert continued.network.settings.n_blocks_per_stage == (0, 0, 0, 1)

    with pytest.raises(InputError) as refused:
        plan()
    said = str(refused.value)
    assert "n_blocks_per_stage [0, 0, 1, 1] in place of [0, 0, 0, 1]. Give these plans another name (-p NAME), " in said
    assert (
        "plan them with --blocks-from-stride 8 as before, use those that are there, as 'slicemamba run' does, " in said
    )
    assert file.read_bytes() == before
    plan(blocks_from_stride=8)
    assert file.read_bytes() == before
    plan(plans_name="New")
    assert file.read_bytes() == before

    # plans of a version that did not keep the options tell them by their blocks
    plans.pop(OPTIONS_IN_PLANS)
    for old in (file, fold.parent / "plans.json"):
        old.write_text(json.dumps(plans))
    with pytest.raises(InputError, match="plan them with --blocks-from-stride 8 as before, use those"):
        plan()
    with pytest.raises(
        InputError, match="plan them with --blocks-from-stride 8 and without --decoder-blocks as before, use those"
    ):
        plan(decoder_blocks=True)


@pytest.mark.parametrize("decoder_blocks", [False, True])
@pytest.mark.parametrize("from_stride", [0, 2, 4, 8, 32])
def test_blocks_tell_the_options_that_they_were_planned_with(from_stride: int, decoder_blocks: bool) -> None:
    if from_stride == 0 and decoder_blocks:
        return
    architectures = []
    for strides in (SEVEN, THICK):
        planned = plain_unet_kwargs(strides, [[3] * len(strides[0])] * len(strides), "S")
        kwargs = residual_kwargs(planned, from_stride, decoder_blocks=decoder_blocks)
        architectures.append({"network_class_name": RESIDUAL_CLASS, "arch_kwargs": kwargs})
    plans: dict[str, Any] = {"configurations": {str(i): {"architecture": one} for i, one in enumerate(architectures)}}
    plans["configurations"]["own"] = {"inherits_from": "0", "batch_size": 3}
    options = {"blocks_from_stride": from_stride, "decoder_blocks": decoder_blocks}
    assert planned_options(plans) == options
    # what the plans say goes first
    assert planned_options({**plans, OPTIONS_IN_PLANS: {"blocks_from_stride": 5}})["blocks_from_stride"] == 5
    # no option makes these
    architectures[0]["arch_kwargs"]["n_blocks_per_stage"] = [1, 0, 1, 0, 0, 0, 1]
    assert planned_options(plans) == {}
    architectures[0]["network_class_name"] = architectures[1]["network_class_name"] = "UNet"
    assert planned_options(plans) == {}


def test_large_volumes_get_a_cascade_with_nnunets_patches(workspace: Path) -> None:
    file = workspace / "nnUNet_preprocessed" / SLABS / "dataset_fingerprint.json"
    changed = json.loads(file.read_text())
    changed["shapes_after_crop"] = [[600, 600, 600]] * len(changed["shapes_after_crop"])
    changed["spacings"] = [[1.0, 1.0, 1.0]] * len(changed["spacings"])
    file.write_text(json.dumps(changed))
    stock, ours = (plan_experiment_dataset(902, one)[0] for one in (ExperimentPlanner, RESIDUAL_PLANNERS["L"]))
    for name in ("3d_lowres", "3d_fullres"):
        own, theirs = (plans["configurations"][name] for plans in (ours, stock))
        assert list(own["patch_size"]) == list(theirs["patch_size"])
        assert own["architecture"]["network_class_name"] == RESIDUAL_CLASS
    assert ours["configurations"]["3d_fullres"]["data_identifier"] == "nnUNetPlans_3d_fullres"
    assert ours["configurations"]["3d_lowres"]["data_identifier"] == "nnUNetSliceMambaResidualPlans_3d_lowres"


def test_images_too_small_for_a_u_net_are_refused_before_plans_are_written(workspace: Path) -> None:
    preprocessed = workspace / "nnUNet_preprocessed" / DISKS
    file = preprocessed / "dataset_fingerprint.json"
    changed = json.loads(file.read_text())
    changed["shapes_after_crop"] = [[1, 7, 5]] * len(changed["shapes_after_crop"])
    file.write_text(json.dumps(changed))
    (preprocessed / "nnUNetSliceMambaResidualPlans.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"patches of 7x5 .* or 12 along one, on: plan --network paper"):
        plan_experiment_dataset(901, RESIDUAL_PLANNERS["L"])
    assert not (preprocessed / "nnUNetSliceMambaResidualPlans.json").exists()
    # one axis is enough
    changed["shapes_after_crop"] = [[1, 12, 5]] * len(changed["shapes_after_crop"])
    file.write_text(json.dumps(changed))
    plans = plan_experiment_dataset(901, RESIDUAL_PLANNERS["L"])[0]
    assert plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["n_stages"] == 2


def test_planning_needs_no_augmentation_processes(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = plan_experiment_dataset(901, RESIDUAL_PLANNERS["L"])[0]
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    assert plan_experiment_dataset(901, RESIDUAL_PLANNERS["L"])[0]["configurations"] == expected["configurations"]


def test_planners_are_found_by_size_and_network() -> None:
    assert [planner_of(size, "residual").size for size in "SML"] == list("SML")
    with pytest.raises(ValueError, match="network 'resnet' does not exist; give one of paper, hybrid, residual"):
        planner_of("L", "resnet")
