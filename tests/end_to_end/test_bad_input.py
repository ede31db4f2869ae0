"""What cannot be worked with is refused before work starts, by a message with the value, the rule and the remedy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nnunetv2_slicemamba.cli import main
from tests.end_to_end.workspace import DATASET, FINAL, PLANS, SUPERNET, Workspace

pytestmark = pytest.mark.xdist_group("trained")

FOLD = ("-d", "511", "-c", "2d", "-f", "0", "-p", PLANS)


@pytest.fixture
def refuse(planned: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `slicemamba` in this process, expects exit code 2, returns the message on one line."""

    def call(*arguments: str, workspace: Workspace = planned, **changed: str | None) -> str:
        for key, value in workspace.environment().items():
            monkeypatch.setenv(key, value)
        for key, value in changed.items():
            monkeypatch.delenv(key) if value is None else monkeypatch.setenv(key, value)
        results = Path(workspace.root / "nnUNet_results")
        before = sorted(results.rglob("*"))
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        # a trainer's log is no result
        after = [path for path in sorted(results.rglob("*")) if path.suffix != ".txt" and path.is_file()]
        assert after == [path for path in before if path.suffix != ".txt" and path.is_file()]
        return " ".join(capsys.readouterr().err.split())

    return call


def test_an_unknown_dataset_is_refused_with_those_that_exist(refuse) -> None:
    message = refuse("search", "-d", "999", *FOLD[2:])
    assert "no dataset 999" in message
    assert DATASET in message
    assert "no dataset 'Dataset998_None'" in refuse("plan", "-d", "Dataset998_None")


def test_an_unknown_configuration_is_refused_with_those_that_exist(refuse) -> None:
    message = refuse("search", "-d", "511", "-c", "3d_fullres", "-f", "0", "-p", PLANS)
    assert "no configuration '3d_fullres'" in message
    assert "they have: 2d" in message


@pytest.mark.parametrize("fold", ["2", "9", "-1", "x"])
def test_an_unknown_fold_is_refused_with_the_range(refuse, fold: str) -> None:
    message = refuse("slicing", "-d", "511", "-c", "2d", "-f", fold, "-p", PLANS, "--set", "2x2")
    assert f"fold '{fold}' does not exist" in message
    assert "0 to 1" in message


def test_unknown_plans_are_refused_with_the_command_that_makes_them(refuse) -> None:
    message = refuse("search", *FOLD[:6], "-p", "nnUNetNoPlans")
    assert "no plans 'nnUNetNoPlans'" in message
    assert "slicemamba plan" in message


def test_plans_of_another_network_are_refused(refuse, copied: Workspace) -> None:
    plans = json.loads((copied.preprocessed / f"{PLANS}.json").read_text())
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = "some.package.PlainConvUNet"
    (copied.preprocessed / "nnUNetPlans.json").write_text(json.dumps({**plans, "plans_name": "nnUNetPlans"}))
    assert "not SliceMambaUNet" in refuse("search", *FOLD[:6], "-p", "nnUNetPlans", workspace=copied)


def test_a_search_without_a_supernet_names_the_training_command(refuse) -> None:
    message = refuse("search", *FOLD)
    assert "no trained supernet" in message
    assert f"nnUNetv2_train {DATASET} 2d 0 -tr SliceMambaSupernetTrainer -p {PLANS}" in message


def test_a_search_with_a_trainer_that_trains_no_supernet_is_refused(refuse) -> None:
    assert f"'{FINAL}' is no supernet trainer" in refuse("search", *FOLD, "-tr", FINAL)


@pytest.mark.parametrize("variable", ["nnUNet_preprocessed", "nnUNet_results"])
def test_unset_folders_are_refused_with_the_export_line(refuse, variable: str) -> None:
    message = refuse("search", *FOLD, **{variable: None})
    assert f"{variable} is not set" in message
    assert f"export {variable}=" in message


def test_a_folder_that_does_not_exist_or_cannot_be_written_is_refused(refuse, tmp_path: Path) -> None:
    assert "is not a folder" in refuse("search", *FOLD, nnUNet_preprocessed=str(tmp_path / "nowhere"))
    file = tmp_path / "file"
    file.touch()
    assert "cannot be made" in refuse("search", *FOLD, nnUNet_results=str(file / "below"))
    # not even root may write here, whatever the permission bits say
    assert "is not writable" in refuse("search", *FOLD, nnUNet_results="/proc")


def test_a_fold_without_validation_cases_is_refused(refuse, copied: Workspace) -> None:
    splits = copied.preprocessed / "splits_final.json"
    folds = json.loads(splits.read_text())
    folds[0] = {"train": folds[0]["train"] + folds[0]["val"], "val": []}
    splits.write_text(json.dumps(folds))
    checkpoint = copied.results(SUPERNET) / "fold_0" / "checkpoint_final.pth"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"never read: the split is looked at first")
    message = refuse("search", *FOLD, "-tr", SUPERNET, "-device", "cpu", workspace=copied)
    assert "splits_final.json has no case in 'val' of fold 0" in message
    shutil.rmtree(checkpoint.parent)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0x4", "must be a whole number from 1 to 255"),
        ("2x4x2", "this network has 2 axes"),
        ("random", "has no seed"),
        ("consensus", "at least two folds"),
        ("nofile.json", "nor a file that exists"),
    ],
)
def test_a_slicing_that_is_none_is_refused(refuse, value: str, expected: str) -> None:
    assert expected in refuse("slicing", *FOLD, "--set", value)


def test_a_slicing_file_of_another_network_is_refused_with_both_numbers(
    refuse, planned: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned.run("slicemamba", "slicing", *FOLD, "--set", "2x2")
    file = planned.results(FINAL).parent / "slicings" / f"{PLANS}__2d" / "fold_0.json"
    content = json.loads(file.read_text())
    file.unlink()
    blocks = len(content["slicing"])
    content["slicing"], content["architecture"] = content["slicing"][:-2], content["architecture"][:-2]
    short = tmp_path / "short.json"
    short.write_text(json.dumps(content))
    expected = f"the slicing file {short} has {blocks - 2} blocks, this network has {blocks}: it was chosen for"
    assert expected in refuse("slicing", *FOLD, "--set", str(short))
    train = ("511", "2d", "1", "-tr", "SliceMambaTrainer_5epochs", "-p", PLANS, "-device", "cpu")
    done = planned.call("nnUNetv2_train", *train, changed={"SLICEMAMBA_SLICING": str(short)})
    assert done.returncode != 0
    assert expected in done.stdout


def test_training_beside_a_search_on_its_way_names_the_three_ways_to_get_a_slicing(copied: Workspace) -> None:
    copied.results(SUPERNET).mkdir(parents=True)
    done = copied.call("nnUNetv2_train", "511", "2d", "1", "-tr", FINAL, "-p", PLANS, "-device", "cpu")
    assert done.returncode != 0
    for way in ("slicemamba search", "slicemamba slicing", "SLICEMAMBA_SLICING"):
        assert way in done.stdout


def test_plan_refuses_unknown_sizes_memory_and_names(refuse) -> None:
    assert "size 'XL' does not exist" in refuse("plan", "-d", "511", "--size", "XL")
    assert "--gpu-memory is 0; give a number above 0" in refuse("plan", "-d", "511", "--gpu-memory", "0")
    assert "splits the names of its result folders at '__'" in refuse(
        "plan", "-d", "511", "-overwrite_plans_name", "my__plans"
    )
    assert "configuration 3d_fullres is not in the plans" in refuse(
        "plan", "-d", "511", "-c", "3d_fullres", "--size", "S"
    )


def test_run_refuses_an_unknown_trainer_and_a_bad_later_fold_before_the_first_trains(refuse) -> None:
    run = ("run", "-d", "511", "-c", "2d", "-p", PLANS, "-device", "cpu")
    assert "no trainer 'SliceMambaTrainer_3epochs'" in refuse(*run, "-f", "0", "-tr", "SliceMambaTrainer_3epochs")
    assert "fold '5' does not exist" in refuse(*run, "-f", "0", "5", "-tr", FINAL)
