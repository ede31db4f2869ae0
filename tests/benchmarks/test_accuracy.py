"""Tests of the accuracy benchmark's parts: what is trained, on which data, and what is kept of it."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import accuracy
import accuracy_data
import numpy as np
import pytest
import results
import workshop
from accuracy_runs import CANDIDATES, Candidate, Data, Run, check_definitions, read_candidates
from PIL import Image
from suite_results import NETWORKS, candidate_of
from workshop import AtWork, Workshop, work_off

from nnunetv2_slicemamba.nets import SliceMambaResidualUNet
from nnunetv2_slicemamba.planning.architecture import architecture_kwargs
from nnunetv2_slicemamba.planning.residual import EXPAND, residual_kwargs
from nnunetv2_slicemamba.planning.sizes import BLOCKS_FROM_STRIDE, RECOMMENDED
from nnunetv2_slicemamba.trainers import TRAINERS
from nnunetv2_slicemamba.trainers.recipe import OPTIMIZER_OF, RECIPES

IN_CONSTRUCTOR = ("initial_lr", "weight_decay")  # settings that a trainer's constructor makes
SKIN, HEART = Data("skin", Path(), "2d", 20), Data("heart", Path(), "3d_fullres")


def more(folder: Path, **entries: dict[str, Any]) -> dict[str, Candidate]:
    file = folder / "more.json"
    file.write_text(json.dumps(entries))
    return read_candidates(file)


def test_nnunets_networks_and_ours_in_every_size_are_built_in() -> None:
    assert list(CANDIDATES) == [
        *("stock", "resenc-m", "resenc-l", "resenc-xl", "s", "m", "l", "s-hybrid", "m-hybrid", "l-hybrid")
    ]
    assert len({candidate.plans for candidate in CANDIDATES.values()}) == len(CANDIDATES)
    for candidate in CANDIDATES.values():
        assert (
            (candidate.trainer in TRAINERS) == (candidate.planner[0] == "slicemamba") == (candidate.slicing == "fixed")
        )


def test_a_candidate_of_a_file_differs_from_its_base_in_what_it_says(tmp_path: Path) -> None:
    slow = {"base": "l-hybrid", "settings": {"initial_lr": 1e-4}, "prediction": "0.01 below"}
    found = more(tmp_path, slow=slow, slower={"base": "slow", "arch": {"d_state": 8}})
    base = CANDIDATES["l-hybrid"]
    assert found["slow"].settings == found["slower"].settings == {"initial_lr": 1e-4}
    assert (tuple(found["slow"].planner), found["slow"].trainer) == (base.planner, base.trainer)
    # what was predicted of another is not predicted of this one
    assert (found["slow"].prediction, found["slower"].prediction) == ("0.01 below", "")
    own = {"planner": ["slicemamba", "plan", "--size", "M"], "plans": "OwnPlans", "trainer": "MyTrainer"}
    assert more(tmp_path, own=own)["own"].slicing is None
    for entry, message in [
        ({"stock": {}}, "there is a candidate 'stock' already"),
        ({"a": {"base": "mm"}}, "'a' has the unknown base 'mm'"),
        ({"a": {"trainer": "T"}}, "'a' is no candidate: .*planner"),
        ({"a": {"base": "m", "speed": 2}}, "'a' is no candidate: .*speed"),
        ({"a__b": {"base": "m"}}, "'a__b' must be letters and digits"),
    ]:
        with pytest.raises(ValueError, match=message):
            more(tmp_path, **entry)


def residual_candidates() -> dict[str, Candidate]:
    file = Path(accuracy.__file__).with_name("candidates") / "residual.json"
    return {name: one for name, one in read_candidates(file).items() if name not in CANDIDATES}


def test_the_residual_candidates_name_what_exists() -> None:
    found = residual_candidates()
    shape = {"n_stages": 2, "features_per_stage": [4, 8], "strides": [[1, 1], [2, 2]], "kernel_sizes": [[3, 3]] * 2}
    shape |= {"n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1], "norm_op_kwargs": {"eps": 1e-5}}
    assert len(found) > 10
    for name, candidate in found.items():
        assert candidate.prediction, name
        assert all(hasattr(TRAINERS[candidate.trainer], key) or key in IN_CONSTRUCTOR for key in candidate.settings)
        if candidate.trainer not in TRAINERS or candidate.planner[0] != "slicemamba":  # nnU-Net's own network
            continue
        options = dict(zip(candidate.planner, candidate.planner[1:], strict=False))
        stride = int(options.get("--blocks-from-stride", BLOCKS_FROM_STRIDE))
        network = SliceMambaResidualUNet(1, 2, **{**residual_kwargs(shape, stride), **candidate.arch})
        # a slicing is set where there are blocks to have one
        assert (network.n_blocks > 0) == (candidate.slicing is not None), name
        assert Run(SKIN, candidate).slicing in (None, "2x4", "1x1")
        assert Run(HEART, candidate).slicing in (None, "2x4x2", "1x1x1")
    # a name stands for one plans file
    planned = {(one.plans, *one.planner) for one in found.values()}
    assert len(planned) == len({plans for plans, *_ in planned})


def test_the_recommended_candidate_is_what_plan_and_trainer_give_without_further_options() -> None:
    found = residual_candidates()
    ours, in_3d = (found[candidate_of(next(iter(NETWORKS)), data)] for data in ("kvasir-998", "acdc-60"))
    planned = ("slicemamba", "plan", "--network", RECOMMENDED, "--blocks-from-stride", str(BLOCKS_FROM_STRIDE))
    assert (*ours.planner,) == (*planned, "-overwrite_plans_name", ours.plans)
    assert (ours.trainer, ours.slicing, ours.arch, ours.configuration) == ("SliceMambaTrainer", "fixed", {}, {})
    assert in_3d == replace(ours, name=in_3d.name, arch={"expand": EXPAND[3]}, prediction=in_3d.prediction)
    recipe = RECIPES[OPTIMIZER_OF["SliceMambaResidualUNet"]]
    given = {"initial_lr": recipe.learning_rate, "weight_decay": recipe.decay, "decays_all": recipe.decays_all}
    given |= {"warmup_iterations": recipe.warmup_iterations, "schedule": recipe.schedule}
    assert ours.settings == {"optimizer_name": "adamw", **given}
    assert RECIPES["adamw"].betas == recipe.betas


def test_recorded_trainings_are_of_the_plans_that_their_candidates_name_now() -> None:
    found = residual_candidates()
    for row in results.read("runs"):
        if row["candidate"] in found and row["planner"]:
            assert row["planner"] == " ".join(found[row["candidate"]].planner), row["id"]


def test_all_trainings_of_a_candidate_on_a_data_set_are_of_one_network() -> None:
    sizes: dict[tuple[str, ...], set[str]] = {}
    for row in results.read("runs"):
        if row["parameters"]:
            sizes.setdefault((row["data"], row["candidate"]), set()).add(row["parameters"])
    assert len(sizes) > 50
    assert {key: found for key, found in sizes.items() if len(found) > 1} == {}


def test_a_run_has_plans_of_its_own_only_where_they_are_changed(tmp_path: Path) -> None:
    candidates = more(tmp_path, deep={"base": "m", "arch": {"d_state": 8}}, big={"base": "m", "slicing": "4x4"})
    assert Run(HEART, CANDIDATES["m"]).plans == Run(HEART, candidates["big"]).plans == "nnUNetSliceMambaMPlans"
    assert Run(HEART, candidates["deep"]).plans == "nnUNetSliceMambaMPlans_deep"
    assert Run(SKIN, candidates["deep"]).changes == {"batch_size": 20, "arch_kwargs": {"d_state": 8}}
    assert Run(SKIN, CANDIDATES["l-hybrid"]).plans == "nnUNetSliceMambaHybridLPlans_l_hybrid"
    assert [Run(data, CANDIDATES["m"]).slicing for data in (SKIN, HEART)] == ["2x4", "2x4x2"]
    assert [Run(SKIN, c).slicing for c in (CANDIDATES["stock"], candidates["big"])] == [None, "4x4"]
    run = Run(HEART, candidates["deep"], fold=3, repeat=2, epochs=50)
    assert run.id == "heart-fold3-deep-50x250-2"
    assert set(run.row()) <= set(results.COLUMNS["runs"])


def test_a_name_with_results_cannot_come_to_mean_something_else(tmp_path: Path) -> None:
    run = Run(SKIN, CANDIDATES["m"])
    results.write("runs", [run.row()], tmp_path)
    known = {row["id"]: row for row in results.read("runs", tmp_path)}
    check_definitions([run, Run(HEART, CANDIDATES["m"])], known)
    other = Data("skin", Path(), "2d", 12)
    with pytest.raises(ValueError, match="results of skin-fold0-m-20x250-1 with another plans_changes; give the cand"):
        check_definitions([Run(other, CANDIDATES["m"])], known)


def test_a_changed_network_and_batch_stand_in_a_copy_of_the_plans() -> None:
    kwargs = architecture_kwargs([[1, 1], [2, 2], [2, 2], [2, 2]], "M")
    planned = {"batch_size": 12, "patch_size": [64, 64], "architecture": {"arch_kwargs": kwargs}}
    plans = {"plans_name": "Old", "configurations": {"2d": planned}}
    changes = {"batch_size": 20, "arch_kwargs": {"d_state": 8, "skip": "concatenate"}}
    new = accuracy_data.changed_plans(plans, "2d", changes, "New")
    assert new["plans_name"] == "New"
    assert new["configurations"]["2d"] == {
        **planned,
        "batch_size": 20,
        "architecture": {"arch_kwargs": {**kwargs, "d_state": 8, "skip": "concatenate"}},
    }
    assert planned["batch_size"] == 12
    with pytest.raises(ValueError, match="the configuration 2d of Old has no 'batchsize'"):
        accuracy_data.changed_plans(plans, "2d", {"batchsize": 20}, "New")


@pytest.fixture
def polyps(tmp_path: Path) -> Path:
    """Four images, one of them of grey values, with masks of 0 and 255."""
    folder = tmp_path / "polyps"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(4):
        pixels = np.full((8, 6, 3), 40 * i, np.uint8)
        Image.fromarray(pixels if i else pixels[..., 0]).save(folder / "images" / f"p{i}.png")
        mask = np.zeros((8, 6), np.uint8)
        mask[:i] = 255
        Image.fromarray(mask).save(folder / "masks" / f"p{i}.png")
    return folder


def test_images_and_masks_become_raw_data_of_the_cases_that_the_split_names(polyps: Path, tmp_path: Path) -> None:
    assert accuracy_data.configuration_of(polyps) == "2d"
    assert accuracy_data.read_splits(polyps) is None
    (polyps / "split.json").write_text(json.dumps({"train": ["p0", "p2"], "val": ["p3"]}))
    assert accuracy_data.read_splits(polyps) == [{"train": ["p0", "p2"], "val": ["p3"]}]
    target = tmp_path / "raw"
    accuracy_data.lay_out(polyps, target, 1)
    assert sorted(file.name for file in (target / "imagesTr").iterdir()) == [f"p{i}_0000.png" for i in (0, 2, 3)]
    label = np.asarray(Image.open(target / "labelsTr" / "p2.png"))
    assert label.sum() == 2 * 6
    assert label.max() == 1
    assert {Image.open(file).mode for file in (target / "imagesTr").iterdir()} == {"RGB"}
    assert json.loads((target / "dataset.json").read_text())["numTraining"] == 3
    (polyps / "masks" / "p3.png").unlink()
    with pytest.raises(ValueError, match=r"1 cases lack image or mask, such as \['p3'\]"):
        accuracy_data.lay_out(polyps, target, 1)


def test_raw_data_are_taken_as_they_are(tmp_path: Path) -> None:
    source, target = tmp_path / "heart", tmp_path / "raw"
    for folder in ("imagesTr", "labelsTr"):
        (source / folder).mkdir(parents=True)
    (source / "imagesTr" / "a_0000.nii.gz").write_bytes(b"volume")
    (source / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz"}))
    folds = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
    (source / "splits_final.json").write_text(json.dumps(folds))
    for _ in range(2):  # the second time as after an interruption
        accuracy_data.lay_out(source, target, 1)
    assert (target / "imagesTr" / "a_0000.nii.gz").read_bytes() == b"volume"
    assert accuracy_data.configuration_of(source) == "3d_fullres"
    assert accuracy_data.read_splits(source) == folds
    with pytest.raises(ValueError, match="has neither dataset.json"):
        accuracy_data.configuration_of(tmp_path)


def test_dice_is_that_of_nnunets_summary_and_undefined_ones_are_left_out() -> None:
    per_case = [{"1": 0.8, "2": 0.6}, {"1": 0.9, "2": math.nan}, {"1": 1.0, "2": 0.8}]
    summary = {
        "metric_per_case": [
            {"prediction_file": f"/a.b/case_{n}.nii.gz", "metrics": {key: {"Dice": v} for key, v in case.items()}}
            for n, case in enumerate(per_case)
        ]
    }
    dice = accuracy.dice_by_case(summary, {"background": 0, "anterior": 1, "posterior": 2})
    assert list(dice) == ["case_0", "case_1", "case_2"]
    assert dice["case_2"] == {"anterior": 1.0, "posterior": 0.8}
    columns = accuracy.dice_columns(dice)
    # nnU-Net's: 0.9 and 0.7
    assert columns["dice"] == pytest.approx(0.8)
    # of the cases 0.7, 0.9, 0.9
    assert columns["dice_sd"] == pytest.approx(0.11547, abs=1e-5)
    assert columns["dice_per_label"] == "anterior=0.900000 posterior=0.700000"


def test_the_reason_of_a_failure_is_found_behind_what_workers_say_after_it(tmp_path: Path) -> None:
    log, training = tmp_path / "log.txt", AtWork(None, shop(tmp_path, 1, ("0",), 1), "0", tmp_path)
    log.write_text('epoch 3\nTraceback (most recent call last):\n  File "a.py", line 1\nValueError: NaN\nworker: bye\n')
    assert training.last_line == "ValueError: NaN"
    log.write_text("killed\n\n")
    assert training.last_line == "killed"
    log.write_text("")
    assert training.last_line == ""


class Process:
    """A training that takes a while, in place of a process."""

    started: list[tuple[str, str]]

    def __init__(self, run: Run, shop: Workshop, gpu: str) -> None:
        self.run, self.gpu, self.process, self.beside = run, gpu, self, set[str]()
        self.until = time.monotonic() + (1.5 if run.repeat == 1 else 60)
        self.started.append((run.id, gpu))

    def poll(self) -> int | None:
        return 0 if time.monotonic() > self.until else None

    def end(self) -> str:
        return f"ended with {self.poll()}, beside {len(self.beside) - 1}"

    def progress(self) -> str:
        return "working"


def shop(folder: Path, seconds: float, gpus: tuple[str, ...], per_gpu: int) -> Workshop:
    return Workshop(folder, folder, "cuda", gpus, per_gpu, None, time.monotonic() + seconds, 1)


def test_trainings_are_spread_over_gpus_and_stopped_when_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Process, "started", [], raising=False)
    monkeypatch.setattr(workshop, "SPARE", 1.0)
    short = [Run(SKIN, CANDIDATES[name]) for name in ("stock", "s", "m", "l", "s-hybrid")]
    work_off(short, shop(tmp_path, 60, ("0", "1"), 2), 60, Process)
    assert [gpu for _, gpu in Process.started][:4] == ["0", "1", "0", "1"]
    assert len(Process.started) == 5
    said = capsys.readouterr().out
    assert said.count("ended with 0, beside 3") + said.count("ended with 0, beside 4") >= 4
    # the second one would take a minute
    Process.started.clear()
    began = time.monotonic()
    work_off([short[0], Run(SKIN, CANDIDATES["m"], repeat=2), *short[1:]], shop(tmp_path, 5, ("0",), 1), 0.4, Process)
    assert 4 < time.monotonic() - began < 5.5
    assert [run for run, _ in Process.started] == ["skin-fold0-stock-20x250-1", "skin-fold0-m-20x250-2"]
    said = capsys.readouterr().out
    assert "skin-fold0-m-20x250-2: working" in said
    assert "skin-fold0-m-20x250-2: ended with None, beside 0" in said
    # too late to start anything
    Process.started.clear()
    work_off(short, shop(tmp_path, 1.5, ("0",), 1), 60, Process)
    assert Process.started == []


def test_every_training_has_its_gpu_folders_and_share_of_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workshop, "CORES", 16)
    two = shop(tmp_path, 60, ("3", "5"), 2)
    found = two.variables(tmp_path / "runs" / "a", "5")
    assert found["CUDA_VISIBLE_DEVICES"] == "5"
    assert found["nnUNet_n_proc_DA"] == "4"
    assert found["nnUNet_results"] == str(tmp_path / "runs" / "a" / "nnUNet_results")
    assert [two.dataset(name) for name in ("kvasir", "acdc", "kvasir")] == [
        *("Dataset701_kvasir", "Dataset702_acdc", "Dataset701_kvasir")
    ]


def test_mistakes_are_told_before_any_work(tmp_path: Path, polyps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    given = ["--data", f"polyps={polyps}", "--candidates", "m", *folders]
    for changed, message in [
        (["--candidates", "mm"], "there are no candidates mm; there are stock, "),
        (["--data", f"polyps={tmp_path / 'nowhere'}"], "give NAME=FOLDER"),
        (["--data", f"a_b={polyps}"], "the name of letters, digits and '-'"),
        (["--batch", "skin=20"], "--batch names skin, which --data does not"),
    ]:
        assert accuracy.main([*given, *changed]) == 2
        assert message in capsys.readouterr().out
    assert not (tmp_path / "work").exists()
    done = {**Run(Data("polyps", polyps, "2d"), CANDIDATES["m"]).row(), "state": "finished"}
    results.write("runs", [done], tmp_path / "out")
    assert accuracy.main(given) == 0
    assert "finished: 1 of 1" in capsys.readouterr().out
