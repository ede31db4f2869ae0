"""Hybrids are planned by planners of their own, share the data, and their convolutions are counted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from typer.testing import CliRunner

from nnunetv2_slicemamba.cli.main import app
from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet
from nnunetv2_slicemamba.planning.architecture import architecture_kwargs
from nnunetv2_slicemamba.planning.memory import (
    MemoryModel,
    bytes_per_sample,
    count_sample,
    static_bytes,
)
from nnunetv2_slicemamba.planning.planner import BY_NAME, HYBRID_PLANNERS, PLANNERS, planner_of

PAPER = [[1, 1], [2, 2], [2, 2], [2, 2], [2, 2], [2, 2]]
DISKS, SLABS = "Dataset901_Disks", "Dataset902_Slabs"


def test_hybrids_have_planners_and_plans_of_their_own_and_the_others_keep_theirs() -> None:
    names = {planner.__name__: planner.default_plans_name for planner in BY_NAME.values()}
    assert names == {
        "SliceMambaPlanner": "nnUNetSliceMambaPlans",
        "SliceMambaPlannerM": "nnUNetSliceMambaMPlans",
        "SliceMambaPlannerS": "nnUNetSliceMambaSPlans",
        "SliceMambaPlannerHybrid": "nnUNetSliceMambaHybridPlans",
        "SliceMambaPlannerHybridM": "nnUNetSliceMambaHybridMPlans",
        "SliceMambaPlannerHybridS": "nnUNetSliceMambaHybridSPlans",
        "SliceMambaPlannerResidual": "nnUNetSliceMambaResidualPlans",
        "SliceMambaPlannerResidualM": "nnUNetSliceMambaResidualMPlans",
        "SliceMambaPlannerResidualS": "nnUNetSliceMambaResidualSPlans",
    }
    assert [planner_of(size, "hybrid").size for size in "SML"] == list("SML")
    assert all(planner_of(size, "hybrid") is HYBRID_PLANNERS[size] for size in "SML")
    with pytest.raises(ValueError, match="size 'XL' does not exist; give one of S, M, L"):
        planner_of("XL", "hybrid")


@pytest.mark.parametrize(
    ("pooling", "size", "features"),
    [
        (PAPER, "S", [16, 24]),
        (PAPER, "M", [32, 48]),
        (PAPER, "L", [32, 64]),
        ([[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]], "M", [32, 48]),
        ([[1, 1], [2, 2], [2, 1]], "M", [32, 48]),
        ([[1, 1], [2, 2]], "M", [32]),
        ([[1, 1]], "M", [32]),
    ],
)
def test_the_stem_has_a_stage_per_step_to_the_first_s3_stage(
    pooling: list[list[int]], size: str, features: list[int]
) -> None:
    plain, hybrid = (architecture_kwargs(pooling, size, hybrid=on) for on in (False, True))
    assert hybrid == {**plain, "stem_features": features}
    patch = [16] * len(pooling[0])
    with torch.no_grad():
        assert SliceMambaUNet(1, 2, **hybrid).eval()(torch.zeros(1, 1, *patch)).shape == (1, 2, *patch)


def bytes_kept(part: Callable[[], object]) -> int:
    """Bytes that a forward pass of one image in mixed precision keeps for the backward pass, weights aside."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape[0] == 1:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        result = part()
    assert result
    return sum(kept.values())


@pytest.mark.parametrize(
    ("pooling", "patch"),
    [(PAPER, (126, 64)), ([[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 2, 2]], (6, 16, 16))],
    ids=["2d", "3d"],
)
def test_the_stems_values_are_counted_as_a_training_keeps_them(
    pooling: list[list[int]], patch: tuple[int, ...]
) -> None:
    kwargs = architecture_kwargs(pooling, "M", hybrid=True)
    network, sample = SliceMambaUNet(1, 2, **kwargs), count_sample(patch, 1, 2, kwargs)
    padded = [size + -size % step for size, step in zip(patch, kwargs["strides"][0], strict=True)]
    x = torch.randn(1, 1, *padded)
    tokens, skips = network.encoder.embed(x)
    assert network.decoder.stem is not None
    decode = network.decoder.stem
    per_value = 2.1  # bytes: a half-precision value, and the statistics of InstanceNorm
    encoder = bytes_kept(lambda: network.encoder.embed(x))
    assert per_value * sample.stem == pytest.approx(encoder, rel=0.05)
    decoder = bytes_kept(lambda: decode(tokens.bfloat16(), [skip.bfloat16() for skip in skips]))
    assert per_value * sample.stem_decoder == pytest.approx(decoder, rel=0.05)
    assert sample.head == 32 * math.prod(padded)


def test_a_hybrid_needs_more_memory_the_more_its_stem_computes() -> None:
    for size in "SML":
        plain, hybrid = (architecture_kwargs(PAPER, size, hybrid=on) for on in (False, True))
        one, other = (bytes_per_sample([256, 256], 3, 2, kwargs) for kwargs in (plain, hybrid))
        assert one < other
        assert static_bytes(3, 2, plain) < static_bytes(3, 2, hybrid)
        wider = hybrid | {"stem_features": [64, 64]}
        assert other < bytes_per_sample([256, 256], 3, 2, wider)
        assert other < bytes_per_sample([256, 256], 3, 2, hybrid | {"n_conv_per_stem_stage": 3})
        assert other < bytes_per_sample([256, 256], 3, 2, hybrid | {"skip": "concatenate"})


def test_weights_are_counted_with_the_stem_once() -> None:
    kwargs = architecture_kwargs(PAPER[:4], "S", hybrid=True)
    supernet = sum(p.numel() for p in SliceMambaSupernet(3, 2, **kwargs).parameters())
    network = sum(p.numel() for p in SliceMambaUNet(3, 2, **kwargs).parameters())
    model = MemoryModel()
    expected = model.weight * supernet + model.gradient * network + model.workspace + model.context
    assert static_bytes(3, 2, kwargs) == expected


@pytest.mark.parametrize(("dataset", "configuration"), [(DISKS, "2d"), (SLABS, "3d_fullres")])
def test_the_planned_hybrid_builds_through_nnunet_and_takes_a_patch(
    dataset: str, configuration: str, workspace: Path
) -> None:
    number = int(dataset[7:10])
    plan_experiment_dataset(number, HYBRID_PLANNERS["S"], 8)
    plan_experiment_dataset(number, PLANNERS["S"], 8)
    folder = workspace / "nnUNet_preprocessed" / dataset
    managers = [
        PlansManager(json.loads((folder / f"nnUNetSliceMamba{kind}SPlans.json").read_text())) for kind in ("Hybrid", "")
    ]
    hybrid, plain = (manager.get_configuration(configuration) for manager in managers)
    assert managers[0].plans["experiment_planner_used"] == "SliceMambaPlannerHybridS"
    assert hybrid.network_arch_class_name == "nnunetv2_slicemamba.nets.unet.SliceMambaUNet"
    assert hybrid.data_identifier == plain.data_identifier
    assert hybrid.network_arch_init_kwargs == {**plain.network_arch_init_kwargs, "stem_features": [16, 24]}
    network = get_network_from_plans(
        hybrid.network_arch_class_name,
        hybrid.network_arch_init_kwargs,
        hybrid.network_arch_init_kwargs_req_import,
        1,
        2,
        allow_init=True,
        deep_supervision=False,
    )
    with torch.no_grad():
        assert network(torch.zeros(1, 1, *hybrid.patch_size)).shape == (1, 2, *hybrid.patch_size)


def test_a_hybrid_gets_a_smaller_batch_on_the_same_gpu_and_fits(workspace: Path) -> None:
    raw = workspace / "nnUNet_raw" / DISKS / "dataset.json"
    raw.write_text(json.dumps(json.loads(raw.read_text()) | {"numTraining": 5000}))
    file = workspace / "nnUNet_preprocessed" / DISKS / "dataset_fingerprint.json"
    changed = json.loads(file.read_text())
    changed["shapes_after_crop"] = [[1, 512, 512]] * len(changed["shapes_after_crop"])
    file.write_text(json.dumps(changed))
    plain, hybrid = (
        plan_experiment_dataset(901, planners["S"], 8)[0]["configurations"]["2d"]
        for planners in (PLANNERS, HYBRID_PLANNERS)
    )
    assert [int(size) for size in plain["patch_size"]] == [int(size) for size in hybrid["patch_size"]]
    assert 2 <= hybrid["batch_size"] < plain["batch_size"]
    kwargs = hybrid["architecture"]["arch_kwargs"]
    needed = static_bytes(1, 2, kwargs) + hybrid["batch_size"] * bytes_per_sample(hybrid["patch_size"], 1, 2, kwargs)
    assert needed < 1.001 * 8 * 2**30


def test_the_command_plans_a_hybrid_and_uses_the_data_that_are_there(workspace: Path) -> None:
    result = CliRunner().invoke(app, ["plan", "-d", "901", "-c", "2d", "--size", "M", "--hybrid", "-np", "1"])
    assert result.exit_code == 0, result.output
    assert "2d: already preprocessed with the same settings" in result.output
    assert "nnUNetSliceMambaHybridMPlans" in result.output
    plans = json.loads((workspace / "nnUNet_preprocessed" / DISKS / "nnUNetSliceMambaHybridMPlans.json").read_text())
    assert plans["experiment_planner_used"] == "SliceMambaPlannerHybridM"
    assert plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["stem_features"] == [32, 48]
