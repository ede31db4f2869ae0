"""The report reads what is there, says what is missing, and refuses what makes no sense before any work."""

import json
import math
import shutil
import statistics
from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.evaluation import EvaluationSettings, evaluate_folders
from nnunetv2_slicemamba.report import ReportSettings
from nnunetv2_slicemamba.report.gather import check, gather
from nnunetv2_slicemamba.report.paper import NAMES
from nnunetv2_slicemamba.report.results import CaseDice, spread, typical_cases
from tests.report.report_tree import FINAL, PLANS, STOCK, SUPERNET, Tree


def remedies(tree, use, variables=("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")):
    use(tree, variables)
    return [command for remedy in gather(ReportSettings(tree.number)).steps.remedies for command in remedy.commands]


def test_a_complete_tree_lacks_only_the_predictions_until_they_are_passed(complete_2d, use):
    commands = remedies(complete_2d, use)
    assert len(commands) == 2
    assert commands[0].startswith("nnUNetv2_predict -d 501 ")
    assert commands[0].endswith(f"-c 2d -tr {FINAL} -p {PLANS} -f 0 1")
    passed = ReportSettings("501", predictions=(complete_2d.root / "ensemble",))
    assert gather(passed).steps.remedies == ()


def test_raw_data_alone_are_to_be_planned(tmp_path, use):
    tree = Tree(tmp_path, "2d").add_raw()
    assert remedies(tree, use) == ["slicemamba plan -d 501 --size L"]
    assert remedies(tree, use, ["nnUNet_raw"]) == ["slicemamba plan -d 501 --size L"]


def test_stages_of_a_chain_name_the_command_that_comes_next(tmp_path, use):
    tree = Tree(tmp_path, "2d").add_raw().add_plans()
    (tree.folder("nnUNet_raw") / "imagesTs").rename(tmp_path / "elsewhere")
    assert remedies(tree, use) == [f"slicemamba run -d 501 -c 2d -f 0 1 -p {PLANS}"]
    tree.add_checkpoint(SUPERNET, 0, epochs=3).add_checkpoint(SUPERNET, 1, name="checkpoint_latest.pth", epochs=2)
    assert remedies(tree, use) == [
        f"nnUNetv2_train 501 2d 1 -tr {SUPERNET} -p {PLANS} --c",
        f"slicemamba search -d 501 -c 2d -f 0 -p {PLANS} -tr {SUPERNET}",
        f"slicemamba search -d 501 -c 2d -f 1 -p {PLANS} -tr {SUPERNET}",
        f"nnUNetv2_train 501 2d 0 -tr {FINAL} -p {PLANS} --npz",
        f"nnUNetv2_train 501 2d 1 -tr {FINAL} -p {PLANS} --npz",
    ]
    tree.add_search(0).add_checkpoint(FINAL, 0)
    assert remedies(tree, use) == [
        f"nnUNetv2_train 501 2d 1 -tr {SUPERNET} -p {PLANS} --c",
        f"slicemamba search -d 501 -c 2d -f 1 -p {PLANS} -tr {SUPERNET}",
        f"nnUNetv2_train 501 2d 1 -tr {FINAL} -p {PLANS}",
        f"nnUNetv2_train 501 2d 0 -tr {FINAL} -p {PLANS} --val",
    ]


def test_a_final_training_without_any_slicing_is_to_be_run_with_its_supernet_and_search(tmp_path, use):
    tree = Tree(tmp_path, "2d").add_raw().add_plans()
    (tree.folder("nnUNet_raw") / "imagesTs").rename(tmp_path / "elsewhere")
    tree.add_checkpoint(FINAL, 0).add_validation(FINAL, 0)
    assert remedies(tree, use) == [f"slicemamba run -d 501 -c 2d -p {PLANS} -f 1 -tr {FINAL}"]


def test_dice_is_that_of_nnunets_summaries(complete_2d, use):
    use(complete_2d)
    final = next(model for model in gather(ReportSettings("501")).models if model.is_final)
    written = [json.loads((complete_2d.fold(FINAL, f) / "validation/summary.json").read_text()) for f in range(2)]
    folds = [summary["foreground_mean"]["Dice"] for summary in written]
    assert [fold.validation.foreground for fold in final.folds] == folds
    assert final.dice.mean == pytest.approx(statistics.mean(folds))
    assert final.dice.deviation == pytest.approx(statistics.stdev(folds))
    assert len(final.cases) == sum(len(summary["metric_per_case"]) for summary in written)


def test_papers_metrics_are_those_of_an_evaluation_of_all_folds_images(complete_3d, use, tmp_path):
    use(complete_3d)
    data = gather(ReportSettings("502"))
    together = tmp_path / "together"
    for fold in range(2):
        shutil.copytree(complete_3d.fold(FINAL, fold) / "validation", together, dirs_exist_ok=True)
    truth = complete_3d.folder("nnUNet_preprocessed") / "gt_segmentations"
    settings = EvaluationSettings(surface=False)
    expected = evaluate_folders(
        together, truth, settings=settings, dataset_json=truth.parent / "dataset.json", partial=True
    )
    (row,) = [row for row in data.paper if row.who.startswith(FINAL) and row.what == "all folds"]
    assert NAMES[:5] == ("mIoU", "DSC", "Acc", "Spe", "Sen")
    for i, name in enumerate(("anterior", "posterior")):
        scores = expected.paper.scores[name]
        assert list(scores)[:5] == ["iou", "dice", "accuracy", "specificity", "sensitivity"]
        assert row.values[i] == pytest.approx(list(scores.values()), rel=1e-12)


def test_trainings_and_searches_are_read_from_their_own_files(complete_2d, use):
    use(complete_2d)
    data = gather(ReportSettings("501"))
    final, stock, supernet = data.models
    assert [model.trainer for model in data.models] == [FINAL, STOCK, SUPERNET]
    training = final.folds[1].training
    assert training.train_loss == pytest.approx([-0.1, -0.2, -0.3, -0.4, -0.5])
    assert training.seconds == (61.0,) * 5
    assert training.slicing == complete_2d.slicing(1)
    assert stock.folds[0].training.parameters == 8 * 3 * 3 + 8
    search = supernet.folds[0].search
    assert len(search.records) == search.planned_evaluations == 24
    generations = search.generations
    assert [generation.evaluations for generation in generations] == [6, 6, 6, 6]
    own = [record.fitness for record in search.records if record.generation == 1]
    assert generations[1].mean == pytest.approx(statistics.mean(own))
    assert (generations[1].low, generations[1].high) == (min(own), max(own))
    so_far = [generation.best_so_far for generation in generations]
    assert so_far == sorted(so_far)
    assert so_far[-1] == max(record.fitness for record in search.records)


def test_commands_that_made_the_tree_are_told_with_the_searchs_settings(complete_2d, use):
    use(complete_2d)
    commands = gather(ReportSettings("501")).commands
    assert "slicemamba plan -d 501 -c 2d --size S --network paper" in commands
    assert f"nnUNetv2_train 501 2d 1 -tr {FINAL} -p {PLANS}" in commands
    assert "nnUNetv2_train 501 2d 0" in commands
    wanted = f"slicemamba search -d 501 -c 2d -f 0 -p {PLANS} -tr {SUPERNET} --population 6 --generations 3 --parents 2"
    assert wanted in commands


def test_a_chosen_configuration_leaves_out_the_others(complete_2d, use):
    use(complete_2d)
    assert {plan.configuration for plan in gather(ReportSettings("501")).plans} == {"2d", "large"}
    large = gather(ReportSettings("501", configurations=("large",)))
    assert [(plan.configuration, plan.batch, plan.patch) for plan in large.plans] == [("large", 4, (32, 32))]
    assert large.models == ()


@pytest.mark.parametrize("damaged", ["checkpoint_final.pth", "validation/summary.json"])
def test_a_damaged_file_is_named_and_the_rest_is_reported(own, damaged):
    (own.fold(FINAL, 0) / damaged).write_bytes(b"{nothing that anybody could read")
    final = next(model for model in gather(ReportSettings("501")).models if model.is_final)
    (problem,) = final.folds[0].problems
    assert damaged in problem
    assert str(own.root) not in problem
    assert final.folds[1].problems == ()
    assert (final.folds[0].training is None) == (damaged == "checkpoint_final.pth")
    assert (final.folds[0].validation is None) == (damaged != "checkpoint_final.pth")


def test_damaged_evaluations_leave_the_slicing(own):
    (file,) = (own.fold(SUPERNET, 0) / "slicing_search" / "study.evaluations").glob("*.jsonl")
    file.write_bytes(b"no evaluation" * 300)
    supernet = gather(ReportSettings("501")).models[-1]
    assert "study.evaluations" in supernet.folds[0].problems[0]
    assert supernet.folds[0].search.content.slicing == own.slicing(0)


def test_best_median_and_worst_case():
    values = {"a": 0.5, "b": 0.9, "c": 0.7, "d": 0.9, "e": 0.1, "f": math.nan}
    cases = [CaseDice(name, f"{name}.png", (value,)) for name, value in values.items()]
    chosen = [(rank, case.case) for rank, case in typical_cases(cases)]
    assert chosen == [("best", "b"), ("median", "c"), ("worst", "e")]
    assert [rank for rank, _ in typical_cases(cases[:1])] == ["best"]
    assert typical_cases(cases[5:]) == ()


def test_spread_leaves_out_the_undefined():
    found = spread([0.5, math.nan, 0.7])
    assert (found.mean, found.deviation, found.n) == (pytest.approx(0.6), pytest.approx(math.sqrt(0.02)), 2)
    assert math.isnan(spread([0.5]).deviation)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": "777"}, r"no dataset '777' in nnUNet_raw=.*one of: Dataset501_DemoNuclei"),
        ({"configurations": ("3d",)}, r"no configuration '3d', .*it has: 2d, large"),
        ({"truth": Path("/")}, "--truth / was given without --predictions"),
        ({"predictions": (Path("/nowhere"),)}, "/nowhere is not a folder"),
    ],
)
def test_mistakes_are_refused_before_anything_is_read(complete_2d, use, changes, words):
    use(complete_2d)
    settings = ReportSettings(**{"dataset": "501", **changes})
    with pytest.raises(InputError, match=words):
        check(settings)


def test_unset_variables_are_named(monkeypatch):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(InputError, match="none of nnUNet_raw, nnUNet_preprocessed, nnUNet_results is set"):
        check(ReportSettings("501"))
