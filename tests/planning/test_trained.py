"""Plans that networks were trained with are not overwritten by other ones unless that is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nnunetv2_slicemamba.cli.main import main
from nnunetv2_slicemamba.common.folder_lock import in_use
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_plans
from nnunetv2_slicemamba.common.names import OPTIONS_IN_PLANS
from nnunetv2_slicemamba.planning.preprocessing import plan_and_preprocess

DISKS, PLANS = "Dataset901_Disks", "nnUNetSliceMambaSPlans"


@pytest.fixture
def plans(workspace: Path) -> Path:
    """The plans' file, with which fold 1 of a supernet seems to be trained."""
    file = workspace / "nnUNet_preprocessed" / DISKS / f"{PLANS}.json"
    trained = workspace / "nnUNet_results" / DISKS / f"SliceMambaSupernetTrainer__{PLANS}__2d"
    (trained / "fold_1").mkdir(parents=True)
    (trained / "fold_1" / "checkpoint_latest.pth").touch()
    shutil.copy(file, trained / "plans.json")
    return file


def plan(size: str = "S", **options: bool | str) -> None:
    plan_and_preprocess(901, DISKS, size, ["2d"], processes=1, **options)  # type: ignore[arg-type]


def widths(plans: Path) -> list[int]:
    content = json.loads(plans.read_text())
    return content["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"]


def test_other_plans_are_refused_with_what_differs_and_the_remedy(
    plans: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plans.read_bytes()
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "plan",
                "-d",
                "901",
                "-c",
                "2d",
                "--size",
                "S",
                "--network",
                "paper",
                "--activation-checkpointing",
                "-np",
                "1",
            ]
        )
    assert ended.value.code == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"SliceMambaSupernetTrainer__{PLANS}__2d (fold_1) was trained with other plans {PLANS}" in message
    assert "overwritten: architecture.arch_kwargs.activation_checkpointing true in place of nothing. Give" in message
    assert "-p NAME" in message
    assert "--force" in message
    assert plans.read_bytes() == before


def test_the_same_plans_may_be_written_again_and_others_under_another_name(plans: Path) -> None:
    before = json.loads(plans.read_text())
    plan()
    assert json.loads(plans.read_text()) == before
    plan("M", plans_name="Other")
    assert widths(plans.with_name("Other.json")) == [48, 96]
    assert json.loads(plans.read_text()) == before


def test_plans_say_what_they_were_planned_with_which_is_no_difference_to_older_ones(plans: Path) -> None:
    newer = json.loads(plans.read_text())
    assert newer[OPTIONS_IN_PLANS] == {"gpu_memory": 8.0}
    older = {key: value for key, value in newer.items() if key != OPTIONS_IN_PLANS}
    for written in (older, {**newer, OPTIONS_IN_PLANS: {"gpu_memory": 6.0}}):
        plans.write_text(json.dumps(written))
        plan()
        assert json.loads(plans.read_text()) == newer
        assert sha256_of_plans(written, "2d") == sha256_of_plans(newer, "2d")


def test_who_asks_for_it_gets_other_plans(plans: Path) -> None:
    with pytest.raises(InputError, match=r"features_per_stage \[48, 96\] in place of \[24, 48\]"):
        plan("M", plans_name=PLANS)
    plan("M", plans_name=PLANS, overwrite_plans=True)
    assert widths(plans) == [48, 96]


def test_plans_without_any_training_are_replaced_as_nnunet_does(plans: Path, workspace: Path) -> None:
    for checkpoint in (workspace / "nnUNet_results").rglob("checkpoint_*.pth"):
        checkpoint.unlink()
    plan("M", plans_name=PLANS)
    assert widths(plans) == [48, 96]


def test_plans_of_a_training_that_runs_and_has_no_checkpoint_yet_are_not_replaced(plans: Path, workspace: Path) -> None:
    (checkpoint,) = (workspace / "nnUNet_results").rglob("checkpoint_*.pth")
    checkpoint.unlink()
    with in_use(checkpoint.parent), pytest.raises(InputError, match=r"\(fold_1\) was trained with other plans"):
        plan("M", plans_name=PLANS)
    assert widths(plans) == [24, 48]


def test_what_the_training_kept_counts_and_not_what_the_file_says_by_now(plans: Path) -> None:
    original, changed = plans.read_text(), json.loads(plans.read_text())
    changed["configurations"]["2d"]["batch_size"] = 99
    plans.write_text(json.dumps(changed))
    plan()
    assert json.loads(plans.read_text()) == json.loads(original)


def add_trained_configuration(plans: Path) -> None:
    """Plans with a configuration of the user's, 2d_b3, with which a network seems to be trained."""
    content = json.loads(plans.read_text())
    content["configurations"]["2d_b3"] = {"inherits_from": "2d", "batch_size": 3}
    plans.write_text(json.dumps(content))
    trained = plans.parents[2] / "nnUNet_results" / DISKS / f"SliceMambaTrainer__{PLANS}__2d_b3"
    (trained / "fold_0").mkdir(parents=True)
    (trained / "fold_0" / "checkpoint_final.pth").touch()
    shutil.copy(plans, trained / "plans.json")


def test_a_trained_configuration_of_the_users_is_kept_and_no_reason_to_refuse(plans: Path) -> None:
    add_trained_configuration(plans)
    before = json.loads(plans.read_text())
    plan()
    assert json.loads(plans.read_text()) == before


def test_what_a_configuration_of_the_users_inherits_counts(plans: Path, workspace: Path) -> None:
    shutil.rmtree(next((workspace / "nnUNet_results").rglob("SliceMambaSupernetTrainer__*")))
    add_trained_configuration(plans)
    with pytest.raises(InputError, match=r"__2d_b3 \(fold_0\) .*features_per_stage \[48, 96\] in place"):
        plan("M", plans_name=PLANS)
