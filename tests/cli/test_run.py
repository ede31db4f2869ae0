"""`slicemamba run` is the recommended way in one command, the whole chain with --search, and says what comes next."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nnunetv2_slicemamba.common.commands import environment
from nnunetv2_slicemamba.common.names import WITHIN_VARIABLE
from nnunetv2_slicemamba.common.registration import EXT_TRAINER_FOLDER
from nnunetv2_slicemamba.planning.sizes import RECOMMENDED, plans_name_of
from tests.cli.commands import called

PLANS, FINAL, SUPERNET = "nnUNetSliceMambaSPlans", "SliceMambaTrainer_1epoch", "SliceMambaSupernetTrainer_1epoch"
RUN = ("run", "-d", "901", "-c", "2d", "-f", "0", "1", "-tr", FINAL, "-device", "cpu")


@pytest.fixture
def steps(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that a run calls, without their options; trainings count as done, nothing is computed."""
    called: list[str] = []

    def note(name: str, arguments: Sequence[str], *_: Any, **__: Mapping[str, str]) -> None:
        if name == "slicemamba":
            called.append(" ".join(arguments) if arguments[0] == "plan" else arguments[0])
            return
        dataset, configuration, fold, _, trainer, _, plans = arguments[:7]
        called.append(f"{trainer} {fold}")
        folder = workspace / "nnUNet_results" / dataset / f"{trainer}__{plans}__{configuration}" / f"fold_{fold}"
        (folder / "validation").mkdir(parents=True)
        metrics = {"metric_per_case": [], "mean": {}, "foreground_mean": {"Dice": 0.5}}
        (folder / "validation" / "summary.json").write_text(json.dumps(metrics))

    for module in ("pipeline.fold_steps", "pipeline.preparing"):
        monkeypatch.setattr(f"nnunetv2_slicemamba.{module}.run_command", note)
    return called


def test_a_run_trains_every_fold_and_says_with_which_plans_and_slicing(steps: list[str]) -> None:
    done = called(*RUN)
    assert done.code == 0, done.message
    assert steps == [f"{FINAL} 0", f"{FINAL} 1"]
    assert f"Dataset901_Disks, 2d, {PLANS}, folds 0, 1: 3 steps, none finished before.\n" in done.out
    assert [line for line in done.out.splitlines() if line.startswith("Step ")] == [
        "Step 1 of 3: plan",
        "Step 2 of 3: fold 0, training",
        "Step 3 of 3: fold 1, training",
    ]
    assert done.out.startswith(f"The plans {PLANS} are there already and are used; --size L plans in size L\n")
    assert "The plans" not in called(*RUN, "--size", "S").out + called(*RUN, "-p", PLANS).out
    assert re.search(r"^Step 1 of 3: plan\nplan: finished in [\d.]+ s\n", done.out, re.MULTILINE)
    assert "Slicing, fold 0, 1: 2x4 in all 7 blocks, the fixed one" in done.out
    assert done.out.endswith("Next: slicemamba report -d Dataset901_Disks\n")


def test_all_folds_are_trained_that_the_splits_define(steps: list[str], workspace: Path) -> None:
    split = {"train": ["case_0", "case_1"], "val": ["case_2"]}
    file = workspace / "nnUNet_preprocessed" / "Dataset901_Disks" / "splits_final.json"
    for number in (5, 3):
        called(*(word for word in RUN if word not in ("-f", "0", "1")))
        assert steps == [f"{FINAL} {fold}" for fold in range(number)]
        steps.clear()
        file.write_text(json.dumps([split] * 3))
        shutil.rmtree(workspace / "nnUNet_results" / "Dataset901_Disks")


def test_test_images_are_predicted_next(steps: list[str], workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = workspace / "nnUNet_raw" / "Dataset901_Disks"
    shutil.copytree(raw / "imagesTr", raw / "imagesTs")
    monkeypatch.setattr("sys.argv", ["slicemamba", *RUN])
    assert f"Next: slicemamba {' '.join(RUN)} --predict\n" in called(*RUN).out


def test_the_command_that_predicts_comes_with_what_nnunet_needs_to_find_the_trainer(
    steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = "for which nnU-Net must find the trainer: slicemamba register, once, or export nnUNet_extTrainer="
    monkeypatch.setattr("nnunetv2_slicemamba.common.registration.nnunet_folder", lambda: Path("unregistered"))
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    assert needed in called(*RUN).out
    monkeypatch.setenv("nnUNet_extTrainer", f"/mine{os.pathsep}{EXT_TRAINER_FOLDER}")
    assert needed not in called(*RUN).out


def test_without_plans_it_plans_the_recommended_network(steps: list[str], workspace: Path) -> None:
    (workspace / "nnUNet_preprocessed" / "Dataset901_Disks" / f"{PLANS}.json").unlink()
    called(*RUN)  # which ends, since this test plans nothing
    name = plans_name_of("L", RECOMMENDED)
    assert steps == [f"plan -d Dataset901_Disks --size L --gpu-memory 8.0 -p {name} --network {RECOMMENDED} -c 2d"]
    steps.clear()
    called(*RUN, "--network", "paper", "--size", "S")
    assert f"-p {PLANS} --network paper -c 2d" in steps[0]


@pytest.mark.parametrize("option", [("--search",), ("--population", "3"), ("--holdout", "0.4"), ("--seed", "0")])
def test_a_search_and_its_options_ask_for_the_whole_chain(option: tuple[str, ...], steps: list[str]) -> None:
    ended = called(*RUN, *option)
    assert steps == [f"{SUPERNET} 0", "search", f"{FINAL} 0", f"{SUPERNET} 1", "search", f"{FINAL} 1"]
    assert ended.code == 0, ended.message
    assert called(*RUN, *option, "--slicing", "2x4").message == (
        f"error: --slicing names a slicing, {option[0]} asks for a search: give one of the two"
    )


def test_finals_of_a_trainer_that_is_not_ours_are_refused_before_anything_starts(
    steps: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "from nnunetv2_slicemamba.trainers import SliceMambaTrainer\nclass OwnTrainer(SliceMambaTrainer): ...\n"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own_trainer.py").write_text(own)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "own"))
    run = ("run", "-d", "901", "-c", "2d", "-f", "0", "-tr", "OwnTrainer", "-device", "cpu")
    ended = called(*run, "--finalists", "2")
    assert ended.code == 2
    assert "'OwnTrainer' is no trainer of a final network; give -tr SliceMambaTrainer or " in ended.message
    assert steps == []


def test_a_slicing_can_be_named_and_lies_with_plans_and_configuration(steps: list[str], workspace: Path) -> None:
    done = called(*RUN, "--slicing", "4x2")
    assert done.code == 0, done.message
    assert steps == [f"{FINAL} 0", f"{FINAL} 1"]
    folder = workspace / "nnUNet_results" / "Dataset901_Disks"
    assert sorted(file.name for file in (folder / "slicings" / f"{PLANS}__2d").iterdir()) == [
        "fold_0.json",
        "fold_1.json",
    ]
    assert sorted(path.name for path in folder.iterdir()) == [f"{FINAL}__{PLANS}__2d", "slicings"]


def test_slicing_sets_several_folds_and_says_what_comes_next(workspace: Path) -> None:
    done = called("slicing", "-d", "901", "-c", "2d", "-f", "0", "1", "all", "--set", "random:3")
    assert done.out.count("written to") == 3
    assert done.out.endswith("Next: slicemamba run -d Dataset901_Disks -c 2d -f 0 1 all\n")


def test_only_the_outermost_command_says_what_comes_next(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("slicing", "-d", "901", "-c", "2d", "-f", "0", "--set", "2x4")
    assert "Next: " in called(*arguments).out
    monkeypatch.setenv(WITHIN_VARIABLE, environment()[WITHIN_VARIABLE])  # as a run starts its steps
    assert "Next: " not in called(*arguments).out


def test_a_search_over_folds_that_were_trained_without_it_is_refused_before_work(
    steps: list[str], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnunetv2_slicemamba.planning.fold_folder.FoldFolder.is_trained", True)
    ended = called(*RUN, "--search")
    assert "fold 0 was trained without this search, in " in ended.message
    assert "move that folder away" in ended.message
    assert steps == []


def test_candidates_that_the_plans_do_not_have_are_refused_with_both_sets(steps: list[str]) -> None:
    ended = called(*RUN, "--search", "--candidates", "1,2x4")
    assert f"the plans {PLANS} have the candidates 2x2, 2x4, 4x2, 4x4, --candidates 1,2x4 are 1x1, 2x4" in ended.message
    assert steps == []


def test_quiet_leaves_the_table(steps: list[str], workspace: Path) -> None:
    done = called(*RUN, "-q")
    assert done.code == 0, done.message
    assert done.out.splitlines()[0].strip() == f"{FINAL}, 2d"
    assert [line.split("│")[1:3] for line in done.out.splitlines() if "0.5000" in line] == [
        [" 0    ", " 0.5000          "],
        [" 1    ", " 0.5000          "],
    ]
    assert len(done.out.splitlines()) == 7


@pytest.fixture
def stock_plans(workspace: Path) -> Path:
    """nnU-Net's own plans of the dataset, on the data of ours."""
    file = workspace / "nnUNet_preprocessed" / "Dataset901_Disks" / "nnUNetPlans.json"
    plans = json.loads(file.with_name(f"{PLANS}.json").read_text()) | {"plans_name": "nnUNetPlans"}
    network = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = network
    file.write_text(json.dumps(plans))
    return file


BASELINE = ("run", "-d", "901", "-c", "2d", "-f", "0", "1", "-device", "cpu", "-tr", "nnUNetTrainer_1epoch")


def test_a_trainer_of_nnunet_is_trained_with_its_own_plans_and_nothing_is_searched(
    steps: list[str], stock_plans: Path, workspace: Path
) -> None:
    ended = called(*BASELINE)
    assert ended.code == 0, ended.message
    assert steps == ["nnUNetTrainer_1epoch 0", "nnUNetTrainer_1epoch 1"]
    assert "Dataset901_Disks, 2d, nnUNetPlans, folds 0, 1: " in ended.out
    assert "Slicing" not in ended.out
    assert [path.name for path in (workspace / "nnUNet_results" / "Dataset901_Disks").iterdir()] == [
        "nnUNetTrainer_1epoch__nnUNetPlans__2d"
    ]
    # its network may be ours, whose slicings it does not take
    assert called("slicing", "-d", "901", "-c", "2d", "-f", "0", "1", "-p", PLANS, "--set", "4x2").code == 0
    assert called(*BASELINE, "-p", PLANS).code == 0
    assert steps[2:] == steps[:2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--search",),
            "--search is for networks with slicings, and nnUNetTrainer_1epoch is not one of their trainers",
        ),
        (("--size", "S"), "--size is for networks with slicings"),
        (("-tr", "nnUNetTrainr"), "no trainer 'nnUNetTrainr' (did you mean nnUNetTrainer"),
        (("-p", "nnUNetResEncUNetLPlans"), "nnUNetv2_plan_and_preprocess -d 901 -c 2d -pl nnUNetPlannerR"),
        (("-c", "3d_lowres"), "plans 'nnUNetPlans' of Dataset901_Disks have no configuration '3d_lowres'"),
        (("-tr", "SliceMambaSupernetTrainer"), "-tr SliceMambaSupernetTrainer must be a final trainer"),
    ],
)
def test_what_a_baseline_cannot_have_is_refused(
    options: tuple[str, ...], message: str, steps: list[str], stock_plans: Path
) -> None:
    ended = called(*BASELINE, *options)
    assert ended.code == 2
    assert message in ended.message
    assert steps == []


def test_a_baseline_without_plans_names_the_command_that_makes_them(steps: list[str], workspace: Path) -> None:
    ended = called(*BASELINE)
    assert ended.code == 2
    assert "make them with 'nnUNetv2_plan_experiment -d 901', or name other plans" in ended.message
    (workspace / "nnUNet_preprocessed" / "Dataset901_Disks" / "dataset_fingerprint.json").unlink()
    assert "'nnUNetv2_plan_and_preprocess -d 901 -c 2d'" in called(*BASELINE).message
