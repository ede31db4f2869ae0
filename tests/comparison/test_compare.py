"""`slicemamba compare` trains what is missing, resumes, refuses what does not fit, and counts what is there."""

import json
import math

import numpy as np
import pytest
import torch
from filelock import FileLock

from nnunetv2_slicemamba.search import read_slicing_file
from tests.comparison.comparison_workspace import (
    CASES,
    DATASET,
    MISSED,
    PLANS,
    SEARCHED,
    TRAINER,
    calls,
    key_of,
    random_slicing,
    search,
)

ARMS = ("--arms", "searched,random:2,2x2")


def training(folder, arm, repeat=0):
    return folder / arm / f"repeat_{repeat}" / DATASET / f"{TRAINER}__{PLANS}__2d" / "fold_0"


def results(folder):
    return json.loads((folder / "comparison.json").read_text())


def dice_of(root, slicing, repeat=0):
    summary = root / "prepared" / key_of(slicing) / f"repeat_{repeat}" / "summary.json"
    return json.loads(summary.read_text())["foreground_mean"]["Dice"]


def test_every_arm_is_trained_with_its_slicing_in_a_results_root_of_its_own_and_counted(run, root, folder):
    code, said = run("compare", *ARMS, "--repeats", "2")
    assert code == 0, said
    assert calls(root) == [f"{arm}/repeat_{r}" for r in (0, 1) for arm in ("searched", "random_0", "random_1", "2x2")]
    assert read_slicing_file(folder / "searched" / "slicing.json").choice.how_chosen == "search"
    assert read_slicing_file(folder / "random_1" / "slicing.json").slicing == random_slicing(1)
    written = results(folder)
    assert (written["trainer"], written["fold"], written["plans_name"]) == (TRAINER, 0, PLANS)
    arms = {arm["arm"]: arm for arm in written["arms"]}
    for name, slicing in (("searched", SEARCHED), ("random_0", random_slicing(0)), ("2x2", ((2, 2),) * 4)):
        expected = [dice_of(root, slicing, repeat) for repeat in (0, 1)]
        assert arms[name]["dice_per_training"] == pytest.approx(expected), name
        assert arms[name]["dice_mean"] == pytest.approx(np.mean(expected))
        assert arms[name]["dice_sd"] == pytest.approx(np.std(expected, ddof=1))
        assert f"{np.mean(expected):.4f}" in said
    assert written["best_control"] == "random_0"
    difference = arms["searched"]["difference_to_best_control"]
    assert difference["mean"] == pytest.approx(arms["searched"]["dice_mean"] - arms["random_0"]["dice_mean"])
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert arms["random_0"]["difference_to_best_control"] is None
    variances = [np.var(arm["dice_per_training"], ddof=1) for arm in arms.values()]
    assert written["noise_sd"] == pytest.approx(math.sqrt(np.mean(variances)))
    assert written["noise_degrees_of_freedom"] == 4
    drawn = [arms["random_0"]["dice_mean"], arms["random_1"]["dice_mean"]]
    assert written["random_arms"] == pytest.approx({"mean": np.mean(drawn), "sd": np.std(drawn, ddof=1)})
    assert "'searched' is above 3 of 3 controls" in said
    assert "optimistic" in said


def test_what_is_finished_is_skipped_and_arms_and_repeats_can_be_added(run, root, folder):
    run("compare", "--arms", "2x2")
    code, said = run("compare", "--arms", "2x2,4x4", "--repeats", "2")
    assert code == 0, said
    assert "4 trainings" in said
    assert "1 finished, 3 to train" in said
    assert calls(root) == ["2x2/repeat_0", "4x4/repeat_0", "2x2/repeat_1", "4x4/repeat_1"]
    assert [arm["arm"] for arm in results(folder)["arms"]] == ["2x2", "4x4"]


def test_a_torn_summary_counts_as_none_and_the_training_is_validated_again(run, root, folder):
    run("compare", "--arms", "2x2,4x4")
    file = training(folder, "4x4") / "validation" / "summary.json"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    code, said = run("compare", "--arms", "2x2,4x4")
    assert code == 0, said
    assert "1 finished, 1 to validate" in said
    assert file.read_bytes() == whole


def test_a_killed_training_is_continued_and_an_unvalidated_one_validated(run, root, folder, monkeypatch):
    monkeypatch.setenv("STAND_IN_ENDS", "checkpoint")
    code, said = run("compare", "--arms", "2x2,4x4")
    assert code == 2
    assert "failed with exit code 1; what was finished before it is kept" in said
    monkeypatch.setenv("STAND_IN_ENDS", "before_validation")
    assert run("compare", "--arms", "2x2,4x4")[0] == 2
    monkeypatch.delenv("STAND_IN_ENDS")
    code, said = run("compare", "--arms", "2x2,4x4")
    assert code == 0, said
    assert calls(root) == ["2x2/repeat_0", "2x2/repeat_0 --c", "2x2/repeat_0 --val", "4x4/repeat_0"]
    assert len(results(folder)["arms"]) == 2


def test_a_dry_run_lists_the_commands_and_writes_nothing(run, root, folder):
    code, said = run("compare", *ARMS, "--dry-run")
    assert code == 0
    assert said.count("to train") == 5
    assert f"SLICEMAMBA_SLICING={folder}/2x2/slicing.json nnUNetv2_train {DATASET} 2d 0 -tr {TRAINER}" in said
    assert f"nnUNet_results={folder}/searched/repeat_0 " in said
    assert calls(root) == []
    assert not folder.exists()


def test_collect_shows_what_is_there_and_trains_nothing(run, root):
    run("compare", "--arms", "2x2,4x4")
    before = calls(root)
    code, said = run("compare", "--collect")
    assert code == 0
    assert "2x2 in all 4" in said
    assert "4x4 in all 4" in said
    code, said = run("compare", "--collect", "--arms", "4x4")
    assert code == 0
    assert "2x2 in all" not in said
    assert calls(root) == before
    code, said = run("compare", "--collect", "--arms", "random:1")
    assert code == 2
    assert "has no arm random_0; it has: 2x2, 4x4" in said


def test_without_repeats_it_says_that_the_noise_is_unknown(run):
    _, said = run("compare", "--arms", "searched,2x2")
    assert "how much repeating one changes its Dice is unknown" in said


def test_a_file_is_an_arm_under_its_name_and_equal_slicings_are_pointed_out(run, root, folder):
    file = search(root, SEARCHED, trainer="SliceMambaSupernetTrainer_5epochs")
    code, said = run("compare", "--arms", f"other={file},searched", "--supernet-trainer", "SliceMambaSupernetTrainer")
    assert code == 0, said
    assert "'other' and 'searched' have the same slicing" in said
    assert [arm["arm"] for arm in results(folder)["arms"]] == ["searched", "other"]


def test_an_arm_that_means_another_slicing_now_is_refused_before_work(run, root, folder):
    run("compare", "--arms", "searched")
    search(root, ((4, 4), (4, 4), (2, 4), (4, 2)))
    code, said = run("compare", "--arms", "searched,2x2")
    assert code == 2
    assert "'searched' was begun with another slicing than it means now" in said
    assert calls(root) == ["searched/repeat_0"]


def test_a_checkpoint_with_another_slicing_is_refused_before_work(run, root, folder):
    run("compare", "--arms", "2x2")
    other = {"network_weights": {"slicing": torch.full((4, 2), 4, dtype=torch.uint8)}}
    torch.save(other, training(folder, "2x2") / "checkpoint_final.pth")
    code, said = run("compare", "--arms", "4x4,2x2")
    assert code == 2
    assert "trained with another slicing than its arm has" in said
    assert calls(root) == ["2x2/repeat_0"]


def test_a_damaged_checkpoint_is_refused_by_name(run, folder):
    run("compare", "--arms", "2x2")
    (training(folder, "2x2") / "checkpoint_final.pth").write_bytes(b"half")
    code, said = run("compare", "--arms", "2x2")
    assert code == 2
    assert "checkpoint_final.pth cannot be read as a PyTorch checkpoint" in said
    assert "away to train it anew" in said


@pytest.mark.parametrize("change", ["patch_size", "batch_size"])
def test_other_plans_are_refused(run, root, change):
    run("compare", "--arms", "2x2")
    file = root / "nnUNet_preprocessed" / DATASET / f"{PLANS}.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d"][change] = [64, 64] if change == "patch_size" else 3
    file.write_text(json.dumps(plans))
    for arguments in (("--arms", "2x2"), ("--collect",)):
        code, said = run("compare", *arguments)
        assert code == 2
        assert "holds another comparison" in said


def test_trainings_with_other_validation_cases_are_refused(run, folder):
    run("compare", "--arms", "2x2,4x4")
    file = training(folder, "4x4") / "validation" / "summary.json"
    summary = json.loads(file.read_text())
    summary["metric_per_case"].pop()
    file.write_text(json.dumps(summary))
    code, said = run("compare", "--collect")
    assert code == 2
    assert "is of 5 cases" in said
    assert "other arms are of 6" in said


def test_a_training_that_another_process_runs_is_left_alone(run, root, folder):
    run("compare", "--arms", "2x2")
    (training(folder, "2x2") / "checkpoint_final.pth").unlink()
    with FileLock(folder / "2x2" / ".repeat_0.lock"):
        code, said = run("compare", "--arms", "2x2")
    assert code == 2
    assert "another process trains 2x2, repeat 0" in said
    assert calls(root) == ["2x2/repeat_0"]


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ("", "the value of --arms is empty"),
        (",", "--arms names nothing"),
        ("2x2,2x2", "'2x2' 2 times"),
        ("random", "random:3 for the seeds 0, 1, 2"),
        ("random:0", "1 to 100 slicings"),
        ("random:x", "random:seed=7"),
        ("2x2x2", "has 3 numbers, this network has 2 axes"),
        ("0x2", "must be a whole number from 1 to 255"),
        ("nowhere.json", "nor a slicing file that exists"),
        ("searched=x.json", "neither searched nor consensus"),
        ("consensus", "at least two folds"),
    ],
)
def test_arms_that_mean_nothing_are_refused_before_work(run, folder, arms, words):
    code, said = run("compare", "--arms", arms)
    assert code == 2
    assert words in said
    assert not folder.exists()


def test_a_slicing_set_by_hand_is_no_search(run, root):
    search(root, SEARCHED, how_chosen="fixed")
    code, said = run("compare", "--arms", "searched")
    assert code == 2
    assert "was not searched but chosen as 'fixed'" in said


def test_two_searches_need_a_name(run, root):
    search(root, SEARCHED, trainer="SliceMambaSupernetTrainer_5epochs")
    code, said = run("compare", "--arms", "searched")
    assert code == 2
    assert "2 supernets have a slicing" in said
    assert "--supernet-trainer NAME" in said


def test_other_bad_input_is_refused(run, root, tmp_path):
    assert "give a whole number from 1 to 1000" in run("compare", "--arms", "2x2", "--repeats", "0")[1]
    assert "exclude each other" in run("compare", "--collect", "--dry-run")[1]
    for trainer in ("SliceMambaSupernetTrainer", "SliceMambaInheritTrainer"):
        assert "is no final trainer that starts from scratch" in run("compare", "--trainer", trainer)[1]
    assert "there is no comparison" in run("compare", "--collect")[1]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    assert "holds no comparison" in run("compare", "--arms", "2x2", "--output", str(tmp_path / "full"))[1]
    assert calls(root) == []


def test_the_workspace_has_arms_that_differ(root):
    means = [np.mean([dice_of(root, slicing, r) for r in (0, 1)]) for slicing in MISSED]
    assert len({round(mean, 6) for mean in means}) == len(means)


def test_the_arms_of_a_cascade_read_the_first_stage_that_all_share(run, root, folder):
    plans = root / "nnUNet_preprocessed" / DATASET / f"{PLANS}.json"
    content = json.loads(plans.read_text())
    content["configurations"]["low"] = dict(content["configurations"]["2d"])
    content["configurations"]["2d"]["previous_stage"] = "low"
    plans.write_text(json.dumps(content))
    code, said = run("compare", "--arms", "2x2")
    assert code == 2
    assert f"'nnUNetv2_train {DATASET} low FOLD -tr {TRAINER} -p {PLANS}' makes them" in said
    assert calls(root) == []
    first = root / "nnUNet_results" / DATASET / f"{TRAINER}__{PLANS}__low"
    predictions = first / "predicted_next_stage" / "2d"
    predictions.mkdir(parents=True)
    for case in (CASES[0], *CASES[2:]):
        (predictions / f"{case}.b2nd").touch()
    assert f"1 of {len(CASES)} cases have no prediction of the first stage" in run("compare", "--arms", "2x2")[1]
    assert calls(root) == []
    (predictions / f"{CASES[1]}.b2nd").touch()
    for _ in range(2):
        assert run("compare", "--arms", "2x2,4x4")[0] == 0
    for arm in ("2x2", "4x4"):
        assert (folder / arm / "repeat_0" / DATASET / first.name).resolve() == first.resolve()
