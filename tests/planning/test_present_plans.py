"""A dataset's only SliceMamba plans need not be named; of several none is taken by chance."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.names import OPTIONS_IN_PLANS
from nnunetv2_slicemamba.planning.present_plans import (
    plans_flags,
    plans_to_use,
    present_plans,
    require_planned_as_asked,
    size_and_network,
    told_of_other_size,
)
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.planning.sizes import RECOMMENDED, planner_name_of, plans_name_of

PAPER_S, USUAL = "nnUNetSliceMambaSPlans", plans_name_of("L", RECOMMENDED)


@pytest.fixture
def folder(workspace: Path) -> Path:
    """nnUNet_preprocessed of a dataset with one SliceMamba plans, those of the paper's network in size S."""
    return workspace / "nnUNet_preprocessed" / "Dataset901_Disks"


def add(folder: Path, name: str, network: str | None = None) -> None:
    plans = json.loads((folder / f"{PAPER_S}.json").read_text())
    plans["plans_name"] = name
    if network is not None:
        plans["configurations"]["2d"]["architecture"]["network_class_name"] = network
    (folder / f"{name}.json").write_text(json.dumps(plans))


def test_the_only_plans_are_taken_whatever_nnunet_has_beside_them(folder: Path) -> None:
    add(folder, "nnUNetPlans", "dynamic_network_architectures.architectures.unet.PlainConvUNet")
    assert select("901", "2d", "0").plans_name == PAPER_S
    assert plans_flags(folder, PAPER_S) == ()


def test_several_plans_are_named_and_none_is_taken(folder: Path) -> None:
    add(folder, "MyPlans")
    with pytest.raises(InputError, match=f"has several SliceMamba plans: MyPlans, {PAPER_S}; name one with -p"):
        select("901", "2d", "0")
    assert plans_flags(folder, "MyPlans") == ("-p", "MyPlans")


def test_damaged_plans_of_ours_are_not_passed_over(folder: Path) -> None:
    (folder / "nnUNetSliceMambaHybridPlans.json").write_text("{")
    assert present_plans(folder) == ["nnUNetSliceMambaHybridPlans", PAPER_S]


def test_without_plans_it_says_how_to_make_some(folder: Path) -> None:
    (folder / f"{PAPER_S}.json").unlink()
    with pytest.raises(InputError, match="no SliceMamba plans for .*'slicemamba plan -d Dataset901_Disks'"):
        select("901", "2d", "0")


def test_a_run_takes_the_plans_that_fit_its_options_and_else_plans_the_recommended_network(folder: Path) -> None:
    assert plans_to_use(folder.parent / "Dataset999_None", None, None) == USUAL
    assert plans_to_use(folder, None, None) == PAPER_S
    assert plans_to_use(folder, "S", None) == PAPER_S  # as scripts of before have them
    assert plans_to_use(folder, None, "paper") == PAPER_S
    assert plans_to_use(folder, "M", "paper") == "nnUNetSliceMambaMPlans"
    assert plans_to_use(folder, None, "hybrid") == "nnUNetSliceMambaHybridPlans"
    add(folder, "nnUNetSliceMambaHybridSPlans")
    with pytest.raises(InputError, match="several"):
        plans_to_use(folder, "S", None)


def test_a_run_says_that_plans_of_a_small_trial_are_used_and_how_to_plan_the_usual_size(folder: Path) -> None:
    file = folder / f"{PAPER_S}.json"
    assert told_of_other_size(file) == f"The plans {PAPER_S} are there already and are used; --size L plans in size L"
    assert told_of_other_size(folder / "NewPlans.json") == ""
    plans = json.loads(file.read_text())
    for planner in (planner_name_of("L", "paper"), "ExperimentPlanner"):
        file.write_text(json.dumps(plans | {"experiment_planner_used": planner}))
        assert told_of_other_size(file) == ""


def test_plans_that_are_named_after_a_network_are_of_that_network() -> None:
    assert size_and_network(PAPER_S, None, None) == ("S", "paper")
    assert size_and_network("nnUNetSliceMambaResidualPlans", "M", None) == ("M", "residual")
    assert size_and_network("MyPlans", None, None) == ("L", RECOMMENDED)


def test_plans_that_are_there_are_not_taken_for_what_a_run_asks_for(folder: Path) -> None:
    file = folder / f"{PAPER_S}.json"
    made = json.loads(file.read_text())[OPTIONS_IN_PLANS]["gpu_memory"]
    assert require_planned_as_asked(file, None, None, None) == ""
    assert require_planned_as_asked(file, "S", "paper", made) == ""
    assert require_planned_as_asked(folder / "NewPlans.json", "L", "hybrid", 99.0) == ""
    for given, words in (
        (("L", None, None), "made with --size S, not L: leave --size out"),
        ((None, "hybrid", None), "made with --network paper, not hybrid"),
        (("S", None, 99.0), f"made with --gpu-memory {made}, not 99.0"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            require_planned_as_asked(file, *given)


def test_where_plans_do_not_tell_what_they_were_made_with_a_run_says_that_an_option_changes_nothing(
    folder: Path,
) -> None:
    file = folder / f"{PAPER_S}.json"
    older = {key: value for key, value in json.loads(file.read_text()).items() if key != OPTIONS_IN_PLANS}
    file.write_text(json.dumps(older))
    said = require_planned_as_asked(file, "S", None, 99.0)
    assert said == f"--gpu-memory changes nothing: the plans {PAPER_S} are there already and are used as they are"
    file.write_text(json.dumps(older | {OPTIONS_IN_PLANS: {"gpu_memory": "much"}}))
    with pytest.raises(InputError, match=f"{file}.*{OPTIONS_IN_PLANS}.*gpu_memory"):
        require_planned_as_asked(file, None, None, 99.0)
