"""Beside nnU-Net's own network: ensembles of both, the choice between them, postprocessing, and pretrained weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nnunetv2_slicemamba.common.registration import EXT_TRAINER_FOLDER
from tests.end_to_end.workspace import FINAL, PLANS, SUPERNET, Workspace
from tests.features import matrix_data
from tests.features.test_matrix import DATASET, console, predict, results, run_all, train

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("beside_stock")]

STOCK, STOCK_PLANS = "nnUNetTrainer_1epoch", "nnUNetPlans"
OURS = f"{FINAL}__{PLANS}__2d"
CHOICE = """
from nnunetv2.evaluation.find_best_configuration import find_best_configuration

if __name__ == "__main__":
    models = [dict(trainer=trainer, plans=plans, configuration="2d") for trainer, plans in {models}]
    find_best_configuration(601, models, num_processes=1, folds=(0,))
"""


def slicing(fold: int, value: str) -> list[str]:
    selected = ("-d", 601, "-c", "2d", "-f", fold, "-p", PLANS, "-tr", SUPERNET)
    return console("slicemamba", "slicing", *selected, "--set", value)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Fold 0 of nnU-Net's network and of ours trained on the same preprocessed data, and both predictions."""
    root = tmp_path_factory.mktemp("beside_stock")
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (root / name).mkdir()
    workspace = Workspace(root, {"nnUNet_extTrainer": str(EXT_TRAINER_FOLDER)})
    raw = root / "nnUNet_raw" / DATASET
    raw.mkdir()
    matrix_data.one_nucleus(raw)
    folds = ("-d", 601, "-c", "2d", "-f", 0, "-device", "cpu", "--disable_tta", "-npp", 1, "-nps", 1)
    images = ("-i", raw / "imagesTs", "-o", root / "stock", "--save_probabilities")
    stock = console("nnUNetv2_train", 601, "2d", 0, "-tr", STOCK, "-device", "cpu", "--npz")
    run_all(workspace, [console("nnUNetv2_plan_and_preprocess", "-d", 601, "-c", "2d", "-np", 1, "-npfp", 1)])
    # trainings are quicker without worker processes, with which nnU-Net's own planner does not run
    workspace.variables["nnUNet_n_proc_DA"] = "0"
    run_all(
        workspace,
        [
            console("slicemamba", "plan", "-d", 601, "-c", "2d", "--size", "S", "--network", "paper", "-np", 1),
            slicing(0, "2x4"),
            stock,
            [*train("2d", "0", FINAL), "--npz"],
            console("nnUNetv2_predict", *images, *folds, "-tr", STOCK),
            predict(workspace, "2d", "0", "--save_probabilities"),
        ],
    )
    return workspace


def probabilities(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {file.stem: np.load(file)["probabilities"].astype(np.float32) for file in folder.glob("*.npz")}


def test_an_ensemble_with_nnunets_network_is_the_mean_of_both(workspace: Workspace) -> None:
    stock, ours = workspace.root / "stock", workspace.root / "2d"
    output = workspace.root / "ensemble"
    run_all(workspace, [console("nnUNetv2_ensemble", "-i", stock, ours, "-o", output, "--save_npz", "-np", 1)])
    of_stock, of_ours, of_both = probabilities(stock), probabilities(ours), probabilities(output)
    assert of_stock.keys() == of_ours.keys() == of_both.keys() != set()
    for case, ensemble in of_both.items():
        assert np.abs(of_stock[case] - of_ours[case]).max() > 0.01
        assert np.allclose(ensemble, (of_stock[case] + of_ours[case]) / 2, atol=1e-6)
        predicted = np.asarray(Image.open(output / f"{case}.png"))
        assert np.array_equal(predicted, ensemble.argmax(0)[0])


def with_speck(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The mask with a wrong square of 3x3 pixels in the emptiest corner."""
    specked = mask.copy()
    corners = [np.s_[:5, :5], np.s_[:5, -5:], np.s_[-5:, :5], np.s_[-5:, -5:]]
    corner = min(corners, key=lambda where: mask[where].sum())
    assert mask[corner].sum() == 0
    specked[corner][1:4, 1:4] = 1
    return specked


@pytest.mark.parametrize("better", ["ours", "stock"])
def test_the_best_configuration_is_chosen_among_both_and_its_postprocessing_applies(
    workspace: Workspace, better: str
) -> None:
    raw, validations = workspace.root / "nnUNet_raw" / DATASET, {}
    validations["ours"] = results(workspace, FINAL, "2d", "0") / "validation"
    folder = workspace.root / "nnUNet_results" / DATASET / f"{STOCK}__{STOCK_PLANS}__2d"
    validations["stock"] = folder / "fold_0" / "validation"
    # after two iterations neither finds anything: one of them gets predictions that are right up to a speck
    for which, validation in validations.items():
        for file in validation.glob("*.png"):
            truth = np.asarray(Image.open(raw / "labelsTr" / file.name))
            Image.fromarray(with_speck(truth) if which == better else np.zeros_like(truth)).save(file)
    # nnU-Net's command wants every trainer with every plans, which do not exist here; its function does not
    models = [(FINAL, PLANS), (STOCK, STOCK_PLANS)]
    chosen_by = workspace.root / "choose.py"
    chosen_by.write_text(CHOICE.format(models=models))
    output = run_all(workspace, [[str(chosen_by)]])
    found = json.loads((workspace.root / "nnUNet_results" / DATASET / "inference_information.json").read_text())
    names = {"ours": OURS, "stock": folder.name}
    scores = found["all_results"]
    assert set(scores) == {*names.values(), f"ensemble___{OURS}___{folder.name}___0"}
    assert scores[names[better]] == max(scores.values()) > 0.8
    chosen = found["best_model_or_ensemble"]
    (model,) = chosen["selected_model_or_models"]
    assert f"{model['trainer']}__{model['plans_identifier']}__{model['configuration']}" == names[better]
    assert f"-tr {model['trainer']} -c 2d -p {model['plans_identifier']}" in output
    assert chosen["result_on_crossval_pre_pp"] < chosen["result_on_crossval_post_pp"] == 1

    predicted, cleaned = workspace.root / f"specked_{better}", workspace.root / f"cleaned_{better}"
    predicted.mkdir()
    truths = list((raw / "labelsTs").iterdir())
    for truth in truths:
        Image.fromarray(with_speck(np.asarray(Image.open(truth)))).save(predicted / truth.name)
    described = ("-plans_json", chosen["some_plans_file"], "-dataset_json", workspace.root / "2d" / "dataset.json")
    postprocessing = ("-pp_pkl_file", chosen["postprocessing_file"], *described, "-np", 1)
    run_all(workspace, [console("nnUNetv2_apply_postprocessing", "-i", predicted, "-o", cleaned, *postprocessing)])
    for truth in truths:
        assert np.array_equal(np.asarray(Image.open(cleaned / truth.name)), np.asarray(Image.open(truth)))


def test_pretrained_weights_arrive_and_the_fold_keeps_its_own_slicing(workspace: Workspace) -> None:
    checkpoint = torch.load(results(workspace, FINAL, "2d", "0") / "checkpoint_final.pth", weights_only=False)
    given = checkpoint["network_weights"]
    for value in given.values():
        if value.is_floating_point():  # all but the slicing, away from what any training starts with
            value += 0.1
    source = workspace.root / "pretrained.pth"
    torch.save(checkpoint, source)
    run_all(workspace, [slicing(1, "4x4"), [*train("2d", "1", FINAL), "-pretrained_weights", str(source)]])
    target = results(workspace, FINAL, "2d", "1") / "checkpoint_final.pth"
    trained = torch.load(target, weights_only=False)["network_weights"]
    assert set(given["slicing"].flatten().tolist()) == {2, 4}
    assert set(trained["slicing"].flatten().tolist()) == {4}
    # AdamW moves a weight by about its rate of 1e-3 in each of the two iterations
    moved = {name: float((trained[name] - given[name]).abs().max()) for name in given if name != "slicing"}
    # nnU-Net draws these anew
    heads = {name for name in moved if "seg_layers" in name}
    assert heads
    assert all(moved[name] > 0.05 for name in heads)
    assert all(moved[name] < 0.005 for name in moved.keys() - heads), moved
