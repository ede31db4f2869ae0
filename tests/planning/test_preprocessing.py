"""Preprocessed data are used where they fit, and redone where they do not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_slicemamba.planning.data import is_ready
from nnunetv2_slicemamba.planning.planner import SliceMambaPlannerS
from nnunetv2_slicemamba.planning.preprocessing import (
    complete_data,
    plan_and_preprocess,
    planner_class,
    refuse_unknown_configurations,
)

DISKS = "Dataset901_Disks"

pytestmark = pytest.mark.usefixtures("quick_nnunet")


@pytest.fixture
def folder(workspace: Path) -> Path:
    return workspace / "nnUNet_preprocessed" / DISKS


def times(folder: Path) -> dict[str, int]:
    """Time at which every preprocessed file was written."""
    return {file.name: file.stat().st_mtime_ns for file in (folder / "nnUNetPlans_2d").iterdir() if file.is_file()}


def forget_marker(folder: Path) -> None:
    """Makes the data look like nnU-Net's own, or those of an earlier version."""
    shutil.rmtree(folder / "nnUNetPlans_2d" / "slicemamba")


def edit_plans(folder: Path, **changes: Any) -> None:
    """Lets the plans on disk say other things of the 2d configuration, whose data only they account for."""
    forget_marker(folder)
    file = folder / "nnUNetSliceMambaSPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d"] |= changes
    file.write_text(json.dumps(plans))


def ready(folder: Path) -> bool:
    """True if the 2d data would be used as they are by plans made now."""
    file = folder / "nnUNetSliceMambaSPlans.json"
    plan_experiment_dataset(901, planner_class(SliceMambaPlannerS, False, file, protect=True), 8)
    return is_ready(PlansManager(json.loads(file.read_text())), "2d", folder)


def test_a_second_call_uses_the_data_that_are_there(folder: Path) -> None:
    before = times(folder)
    done = plan_and_preprocess(901, DISKS, "S", processes=1)
    assert (done.plans_name, done.reused, done.preprocessed) == ("nnUNetSliceMambaSPlans", ("2d",), ())
    assert times(folder) == before


def test_another_size_uses_the_same_data(folder: Path) -> None:
    before = times(folder)
    done = plan_and_preprocess(901, DISKS, "M", gpu_memory=6, processes=1)
    assert (done.plans_name, done.reused) == ("nnUNetSliceMambaMPlans", ("2d",))
    assert times(folder) == before


def test_data_that_nnunet_preprocessed_itself_are_used(folder: Path) -> None:
    forget_marker(folder)
    (folder / "nnUNetSliceMambaSPlans.json").unlink()
    plan_experiment_dataset(901)
    assert plan_and_preprocess(901, DISKS, "S", processes=1).reused == ("2d",)


def test_data_of_other_peoples_plans_with_other_settings_are_not_spoiled(folder: Path) -> None:
    forget_marker(folder)
    plans = json.loads((folder / "nnUNetSliceMambaSPlans.json").read_text())
    plans["configurations"]["2d"]["spacing"] = [2.0, 2.0]
    (folder / "nnUNetPlans.json").write_text(json.dumps({**plans, "plans_name": "nnUNetPlans"}))
    before = times(folder)
    with pytest.raises(ValueError, match="was preprocessed for the plans nnUNetPlans with other settings"):
        plan_and_preprocess(901, DISKS, "S", processes=1)
    assert times(folder) == before
    assert plan_and_preprocess(901, DISKS, "S", processes=1, clean=True).preprocessed == ("2d",)


def test_data_of_plans_that_differ_are_redone(folder: Path) -> None:
    edit_plans(folder, spacing=[2.0, 2.0])
    before = times(folder)
    done = plan_and_preprocess(901, DISKS, "S", processes=1)
    assert (done.reused, done.preprocessed) == ((), ("2d",))
    after = times(folder)
    assert after.keys() == before.keys()
    assert all(after[name] > before[name] for name in before)
    # and then they fit
    assert plan_and_preprocess(901, DISKS, "S", processes=1).reused == ("2d",)


def test_an_incomplete_folder_is_redone(folder: Path) -> None:
    before = times(folder)
    (folder / "nnUNetPlans_2d" / "case_3.pkl").unlink()
    assert plan_and_preprocess(901, DISKS, "S", ["2d"], processes=1).preprocessed == ("2d",)
    assert times(folder).keys() == before.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"spacing": [1.0, 1.5]},
        {"normalization_schemes": ["NoNormalization"]},
        {"use_mask_for_norm": [True]},
        {"preprocessor_name": "MyPreprocessor"},
        {"resampling_fn_data_kwargs": {"order": 1}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_setting_that_decides_the_data_counts(changes: dict[str, Any], folder: Path) -> None:
    assert ready(folder)
    edit_plans(folder, **changes)
    assert not ready(folder)


def test_settings_that_do_not_decide_the_data_do_not_count(folder: Path) -> None:
    edit_plans(folder, batch_size=77, patch_size=[16, 16], architecture={})
    assert ready(folder)


def test_data_that_no_plans_account_for_are_not_used(folder: Path) -> None:
    forget_marker(folder)
    (folder / "nnUNetSliceMambaSPlans.json").unlink()
    assert not ready(folder)


def test_data_with_a_case_that_the_dataset_no_longer_has_are_not_used(folder: Path) -> None:
    shutil.copy(folder / "nnUNetPlans_2d" / "case_0.pkl", folder / "nnUNetPlans_2d" / "case_9.pkl")
    assert not ready(folder)


def test_files_that_are_no_plans_do_not_disturb(folder: Path) -> None:
    (folder / "notes.json").write_text("{")
    (folder / "list.json").write_text("[1]")
    assert ready(folder)


def test_a_configuration_that_inherits_uses_its_parents_data(folder: Path) -> None:
    file = folder / "nnUNetSliceMambaSPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d_mine"] = {"inherits_from": "2d", "batch_size": 3}
    file.write_text(json.dumps(plans))
    done = plan_and_preprocess(901, DISKS, "S", ["2d_mine"], processes=1)
    assert (done.reused, done.preprocessed) == (("2d",), ())


def test_an_unknown_configuration_is_refused_with_those_that_exist(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"configuration 3d_fullres is not in the plans .*they have 2d"):
        plan_and_preprocess(901, DISKS, "S", ["2d", "3d_fullres"], processes=1)


def test_an_unknown_size_is_refused_before_anything_is_done(folder: Path) -> None:
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="size 'XL' does not exist; give one of S, M, L"):
        plan_and_preprocess(901, DISKS, "XL", processes=1)
    assert not folder.exists()


def test_data_of_existing_plans_are_completed_without_planning_anew(folder: Path) -> None:
    plans, before = (folder / "nnUNetSliceMambaSPlans.json").read_bytes(), times(folder)
    (folder / "nnUNetPlans_2d" / "case_3.pkl").unlink()
    complete_data(DISKS, "nnUNetSliceMambaSPlans", "2d")
    after = times(folder)
    assert after.keys() == before.keys()
    assert (folder / "nnUNetSliceMambaSPlans.json").read_bytes() == plans
    # and complete data are left alone
    complete_data(DISKS, "nnUNetSliceMambaSPlans", "2d")
    assert times(folder) == after


@pytest.mark.parametrize("raw", ["unset", "missing"])
def test_data_are_not_touched_where_only_preprocessed_ones_are_at_hand(
    raw: str, folder: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "nnUNetPlans_2d" / "case_3.pkl").unlink()
    before = times(folder)
    if raw == "unset":
        monkeypatch.delenv("nnUNet_raw")
    else:
        shutil.rmtree(workspace / "nnUNet_raw" / DISKS)
    complete_data(DISKS, "nnUNetSliceMambaSPlans", "2d")
    assert times(folder) == before


def test_a_configuration_that_no_planner_writes_is_refused_before_work(folder: Path) -> None:
    (folder / "dataset_fingerprint.json").unlink()
    with pytest.raises(ValueError, match="configuration '4d' does not exist; give -c some of 2d, 3d_lowres"):
        plan_and_preprocess(901, DISKS, "S", ["2d", "4d"], processes=1)
    assert not (folder / "dataset_fingerprint.json").exists()
    # a user's own, which the plans have, is known
    file = folder / "nnUNetSliceMambaSPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d_large"] = {"inherits_from": "2d"}
    file.write_text(json.dumps(plans))
    refuse_unknown_configurations(["2d_large"], file)
