"""`slicemamba rank` sets the supernet's own fitness beside the retrained Dice, and keeps what it evaluated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy import stats

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.comparison import rank
from nnunetv2_slicemamba.comparison.arms import parse_arms, resolve_arms
from nnunetv2_slicemamba.comparison.folder import ComparisonFolder, comparison_folder
from nnunetv2_slicemamba.comparison.rank import rank_arms, show_ranking
from nnunetv2_slicemamba.comparison.work import Work
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection, select
from nnunetv2_slicemamba.search import SearchSettings, read_ledger, read_slicing_file, slicing_search_folder
from nnunetv2_slicemamba.search.evaluation.supernet_fold import SupernetFold
from nnunetv2_slicemamba.search.run import search_fold
from nnunetv2_slicemamba.trainers.offline import make_trainer, quiet

DATASET, PLANS, TRAINER = "Dataset901_Disks", "nnUNetSliceMambaSPlans", "SliceMambaTrainer_20epochs"
SUPERNET = "SliceMambaSupernetTrainer"
DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def searched(planned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with fold 0's supernet, of random weights whose paths differ, searched with six evaluations."""
    root = tmp_path_factory.mktemp("rank") / "workspace"
    shutil.copytree(planned, root)
    with pytest.MonkeyPatch.context() as patch:
        point(root, patch)
        selection = select(DATASET, "2d", "0", PLANS)
        torch.manual_seed(0)
        with quiet():
            trainer = make_trainer(SupernetFolder(selection, SUPERNET), DEVICE)
            trainer.initialize()
        weights = trainer.network.state_dict()
        for name, value in weights.items():
            if name.endswith("bss.out_proj.weight"):
                value *= 30  # untrained blocks hardly matter; a wrong path must show
        folder = selection.fold_folder(SUPERNET)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"network_weights": weights}, folder / "checkpoint_final.pth")
        settings = SearchSettings(population=6, generations=0, parents=2, seed=1)
        search_fold(SupernetFolder(selection, SUPERNET), settings, DEVICE, console=Console(quiet=True))
    return root


def point(root: Path, patch: pytest.MonkeyPatch) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (root / name).mkdir(exist_ok=True)
        patch.setenv(name, str(root / name))


@pytest.fixture
def selection(searched: Path, monkeypatch: pytest.MonkeyPatch) -> Selection:
    point(searched, monkeypatch)
    return select(DATASET, "2d", "0", PLANS)


def compared(selection: Selection, root: Path, dice: dict[str, float]) -> ComparisonFolder:
    """A comparison whose trainings ended with these Dice, by the names of the arms."""
    folder = comparison_folder(selection, TRAINER, root)
    arms = parse_arms(",".join(dice).replace("_", ":seed="))
    contents = resolve_arms(arms, selection, SUPERNET)
    folder.write(arms, contents)
    for arm, value in dice.items():
        fold_folder = folder.fold_folder(arm, 0)
        (fold_folder / "validation").mkdir(parents=True)
        slicing = torch.tensor(contents[arm].slicing, dtype=torch.uint8)
        torch.save({"network_weights": {"slicing": slicing}}, fold_folder / "checkpoint_final.pth")
        metrics = {"1": {"Dice": value}}
        case = {"reference_file": "case_0.png", "prediction_file": "case_0.png", "metrics": metrics}
        summary = {"metric_per_case": [case], "mean": metrics, "foreground_mean": {"Dice": value}}
        (fold_folder / "validation" / "summary.json").write_text(json.dumps(summary))
    return folder


DICE = {"searched": 0.9, "random_0": 0.85, "random_1": 0.8, "2x2": 0.7, "4x4": 0.75}


def test_every_arm_gets_the_fitness_that_the_search_would_give_it(selection, tmp_path):
    folder = compared(selection, tmp_path / "c", DICE)
    ranking = rank_arms(folder, SupernetFolder(folder.selection, SUPERNET), DEVICE, Console(quiet=True))
    supernet = SupernetFold(SupernetFolder(selection, SUPERNET), DEVICE)
    best = read_slicing_file(slicing_search_folder(selection.fold_folder(SUPERNET)) / "best_slicing.json").choice
    arms = {arm.name: arm for arm in ranking.arms}
    assert list(arms) == list(DICE)
    assert (arms["searched"].fitness, arms["searched"].source) == (best.fitness, "the search")
    for arm in (arms["random_0"], arms["4x4"]):
        assert arm.source == "evaluated"
        assert arm.fitness == supernet(arm.architecture).fitness
    assert len({arm.fitness for arm in ranking.arms}) > 3, "the supernet's paths must differ for this test to say much"
    fitness, dice = [arm.fitness for arm in ranking.arms], [arm.dice for arm in ranking.arms]
    assert dice == pytest.approx(list(DICE.values()))
    written = json.loads((tmp_path / "c" / "rank.json").read_text())
    assert written["n"] == 5
    assert written["kendall_tau_b"]["value"] == pytest.approx(stats.kendalltau(fitness, dice).statistic)
    assert written["spearman_rho"]["value"] == pytest.approx(stats.spearmanr(fitness, dice).statistic)
    assert written["conclusion"] == ranking.conclusion
    assert (tmp_path / "c" / "rank.png").read_bytes()[:4] == b"\x89PNG"
    console = Console(record=True, width=120, quiet=True)
    console.quiet = False
    show_ranking(ranking, console)
    said = console.export_text()
    assert "Kendall's tau-b" in said
    # thicknesses change neither
    assert written["controls"] == {"parameters": None, "FLOPs": None}
    assert "tau-b FLOPs      the same in all arms" in said


def test_the_order_by_parameters_and_by_operations_is_set_beside_the_fitness(selection, tmp_path, monkeypatch):
    made_up = [Work(3, 50), Work(2, 40), Work(3, 60), Work(1, 10), Work(1, 20)]
    monkeypatch.setattr(rank, "work_of", lambda selection, slicings: made_up[: len(slicings)])
    folder = compared(selection, tmp_path / "c", DICE)
    ranking = rank_arms(folder, SupernetFolder(folder.selection, SUPERNET), DEVICE, Console(quiet=True))
    assert [(arm.parameters, arm.flops) for arm in ranking.arms] == [(one.parameters, one.flops) for one in made_up]
    written = json.loads((tmp_path / "c" / "rank.json").read_text())["controls"]
    for name, numbers in (("parameters", [3, 2, 3, 1, 1]), ("FLOPs", [50, 40, 60, 10, 20])):
        expected = stats.kendalltau(numbers, list(DICE.values())).statistic
        assert written[name]["kendall_tau_b"]["value"] == pytest.approx(expected)
    console = Console(record=True, width=120)
    show_ranking(ranking, console)
    assert "tau-b FLOPs      +0.600 (95 % CI" in console.export_text()


def test_what_was_evaluated_is_kept_and_not_evaluated_again(selection, tmp_path, monkeypatch):
    folder = compared(selection, tmp_path / "c", DICE)
    first = rank_arms(folder, SupernetFolder(folder.selection, SUPERNET), DEVICE, Console(quiet=True))

    def refuse(self, architecture):
        raise AssertionError(f"{architecture} is evaluated again")

    monkeypatch.setattr(SupernetFold, "__call__", refuse)
    assert rank_arms(folder, SupernetFolder(folder.selection, SUPERNET), DEVICE, Console(quiet=True)).arms == first.arms
    kept = json.loads((tmp_path / "c" / "supernet_fitness.json").read_text())
    for changed in ({"supernet_checkpoint_sha256": "0" * 64}, {"fitness_definition": "mean IoU: TP/(TP+FP+FN)"}):
        (tmp_path / "c" / "supernet_fitness.json").write_text(json.dumps({**kept, **changed}))
        with pytest.raises(AssertionError, match="evaluated again"):
            rank_arms(folder, SupernetFolder(folder.selection, SUPERNET), DEVICE, Console(quiet=True))


def test_the_ledger_of_another_supernet_is_not_believed(selection, tmp_path, searched):
    folder = compared(selection, tmp_path / "c", DICE)
    checkpoint = selection.fold_folder(SUPERNET) / "checkpoint_final.pth"
    before = checkpoint.read_bytes()
    try:
        content = torch.load(checkpoint, weights_only=False)
        content["epoch"] = 2
        torch.save(content, checkpoint)
        ranking = rank_arms(folder, SupernetFolder(folder.selection, SUPERNET), DEVICE, Console(quiet=True))
    finally:
        checkpoint.write_bytes(before)
    assert {arm.source for arm in ranking.arms} == {"evaluated"}
    _, records = read_ledger(slicing_search_folder(selection.fold_folder(SUPERNET)) / "study.db")
    assert len(records) == 6


def test_fewer_than_three_arms_are_refused_with_what_is_left_out(selection, tmp_path):
    folder = compared(selection, tmp_path / "c", {"2x2": 0.7, "4x4": 0.75, "3x3": 0.8})
    with pytest.raises(InputError, match="2 arms that can be ranked, .* at least 3") as refusal:
        rank_arms(folder, SupernetFolder(folder.selection, SUPERNET), DEVICE, Console(quiet=True))
    assert "3x3: has a block that is no candidate" in str(refusal.value)


def test_equal_dice_have_no_order(selection, tmp_path):
    folder = compared(selection, tmp_path / "c", dict.fromkeys(("2x2", "4x4", "2x4"), 0.5))
    with pytest.raises(InputError, match="all values are equal"):
        rank_arms(folder, SupernetFolder(folder.selection, SUPERNET), DEVICE, Console(quiet=True))


def test_the_picture_names_every_arm_and_cuts_nothing_off(selection, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr("matplotlib.figure.Figure", Kept)
    rank_arms(
        compared(selection, tmp_path / "c", DICE), SupernetFolder(selection, SUPERNET), DEVICE, Console(quiet=True)
    )
    (figure,) = figures
    (axes,) = figure.axes
    shown = {text.get_text().replace(chr(215), "x") for text in axes.texts}
    assert shown == set(DICE)
    box = figure.get_tightbbox()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= figure.get_figwidth()
    assert box.y1 <= figure.get_figheight()
    drawn = np.concatenate([c.get_offsets() for c in axes.collections if type(c).__name__ == "PathCollection"])
    assert len(drawn) == len(DICE)
