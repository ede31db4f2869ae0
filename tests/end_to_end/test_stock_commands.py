"""nnU-Net's own commands work on SliceMamba trainers as on the stock ones."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.end_to_end.workspace import DATASET, FINAL, PLANS, Workspace

pytestmark = pytest.mark.xdist_group("trained")

# nnU-Net accumulates the folds' logits in half precision, weighted by a Gaussian
HALF = 5e-3
# its weights towards the corners are subnormal in half precision, with relative errors of per cents
INTERIOR = np.s_[:, 8:-8, 8:-8]


def predict(
    workspace: Workspace, output: str, *flags: object, folds: tuple[int, ...], compiled: bool = False
) -> dict[str, np.ndarray]:
    """Probabilities (classes, 1, H, W) of the test cases by nnUNetv2_predict."""
    folder = workspace.root / output
    model = ("-d", "511", "-c", "2d", "-tr", FINAL, "-p", PLANS, "-f", *folds, "-device", "cpu")
    quick = ("--save_probabilities", "--disable_tta", "-npp", 1, "-nps", 1)
    paths = ("-i", workspace.raw / "imagesTs", "-o", folder)
    changed = {"nnUNet_compile": "true"} if compiled else None
    workspace.run("nnUNetv2_predict", *paths, *model, *quick, *flags, changed=changed)
    return {file.stem: np.load(file)["probabilities"] for file in sorted(folder.glob("*.npz"))}


def geometric_mean(*probabilities: np.ndarray) -> np.ndarray:
    product_ = np.exp(np.mean([np.log(np.clip(p, 1e-30, None)) for p in probabilities], axis=0))
    return product_ / product_.sum(axis=0, keepdims=True)


@pytest.fixture(scope="module")
def predictions(two_folds: Workspace) -> dict[str, dict[str, np.ndarray]]:
    return {
        "0": predict(two_folds, "pred_0", folds=(0,)),
        "1": predict(two_folds, "pred_1", folds=(1,)),
        "both": predict(two_folds, "pred_both", folds=(0, 1)),
    }


def logits_with_slicing(workspace: Workspace, weights: dict, slicing: torch.Tensor, case: str) -> np.ndarray:
    """Logits of a fold's weights under a given slicing, on a test case preprocessed by nnU-Net."""
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunetv2_slicemamba.trainers import SliceMambaTrainer

    folder = workspace.results(FINAL)
    plans = PlansManager(str(folder / "plans.json"))
    configuration = plans.get_configuration("2d")
    network = SliceMambaTrainer.build_network_architecture(plans, configuration, 1, 2, False)
    network.load_state_dict({**weights, "slicing": slicing})
    image, properties = NaturalImage2DIO().read_images([str(workspace.raw / "imagesTs" / f"{case}_0000.png")])
    data, _, _ = DefaultPreprocessor(verbose=False).run_case_npy(
        image, np.zeros_like(image), properties, plans, configuration, json.loads((folder / "dataset.json").read_text())
    )
    with torch.no_grad():
        return network.eval()(torch.from_numpy(data[:, 0])[None])[0].numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=0, keepdims=True))
    return e / e.sum(axis=0, keepdims=True)


def test_two_folds_with_different_slicing_ensemble_to_the_geometric_mean(predictions: dict) -> None:
    assert len(predictions["both"]) == 2
    for case, ensemble in predictions["both"].items():
        expected = geometric_mean(predictions["0"][case], predictions["1"][case])
        assert np.abs(ensemble - expected).max() < HALF


def test_the_ensemble_uses_each_fold_with_its_own_slicing(two_folds: Workspace, predictions: dict) -> None:
    checkpoints = [
        torch.load(two_folds.results(FINAL) / f"fold_{f}" / "checkpoint_final.pth", weights_only=False) for f in (0, 1)
    ]
    weights = [checkpoint["network_weights"] for checkpoint in checkpoints]
    own = [w["slicing"] for w in weights]
    assert not torch.equal(own[0], own[1])
    right, wrong = 0.0, {0: 0.0, 1: 0.0}
    for case, ensemble in predictions["both"].items():
        logits = {
            (w, s): logits_with_slicing(two_folds, weights[w], own[s], case) for w, s in product((0, 1), repeat=2)
        }

        def error(first: np.ndarray, second: np.ndarray, ensemble: np.ndarray = ensemble) -> float:
            return float(np.abs(softmax((first + second) / 2) - ensemble[:, 0])[INTERIOR].max())

        right = max(right, error(logits[0, 0], logits[1, 1]))
        for slicing in wrong:
            wrong[slicing] = max(wrong[slicing], error(logits[0, slicing], logits[1, slicing]))
    assert right < HALF
    # how much a slicing matters differs from training to training, which nnU-Net does not seed; what is right is off by
    # no more than half precision's rounding
    assert min(wrong.values()) > 2 * right, "one slicing for both folds looks the same"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_compiled_folds_of_different_slicing_ensemble_as_uncompiled_ones(
    two_folds: Workspace, predictions: dict
) -> None:
    # the ensemble runs through one compiled network, which takes each fold's slicing from its weights
    compiled = predict(two_folds, "pred_compiled", folds=(0, 1), compiled=True)
    assert compiled.keys() == predictions["both"].keys()
    for case, expected in predictions["both"].items():
        assert np.abs(compiled[case] - expected)[:, 0][INTERIOR].max() < HALF


def test_continuing_and_validating_use_the_checkpoint_and_need_no_slicing_file(two_folds: Workspace) -> None:
    file = two_folds.results(FINAL).parent / "slicings" / f"{PLANS}__2d" / "fold_0.json"
    hidden = file.rename(file.with_name("hidden.json"))
    summary = two_folds.results(FINAL) / "fold_0" / "validation" / "summary.json"
    results = []
    train = ("511", "2d", "0", "-tr", FINAL, "-p", PLANS, "-device", "cpu", "--npz")
    try:
        for flag in ("--val", "--c"):
            summary.unlink()
            two_folds.run("nnUNetv2_train", *train, flag)
            results.append(json.loads(summary.read_text())["foreground_mean"])
    finally:
        hidden.rename(file)
    assert results[0] == results[1]


def test_continuing_beside_a_file_with_another_slicing_is_refused(two_folds: Workspace) -> None:
    other = two_folds.results(FINAL).parent / "slicings" / f"{PLANS}__2d" / "fold_1.json"
    train = ("511", "2d", "0", "-tr", FINAL, "-p", PLANS, "-device", "cpu", "--c")
    done = two_folds.call("nnUNetv2_train", *train, changed={"SLICEMAMBA_SLICING": str(other)})
    assert done.returncode != 0
    assert "was trained with another slicing" in done.stdout


def test_an_exported_model_predicts_the_same_where_it_is_installed(
    two_folds: Workspace, predictions: dict, tmp_path: Path
) -> None:
    model = ("-d", "511", "-c", "2d", "-tr", FINAL, "-p", PLANS)
    found = two_folds.run("nnUNetv2_find_best_configuration", "511", "-c", "2d", "-tr", FINAL, "-p", PLANS, "-f", 0, 1)
    assert f"{FINAL}__{PLANS}__2d" in found
    archive = tmp_path / "model.zip"
    two_folds.run("nnUNetv2_export_model_to_zip", *model, "-o", archive, "-f", 0, 1)
    elsewhere = {"nnUNet_results": str(tmp_path / "results")}
    (tmp_path / "results").mkdir()
    two_folds.run("nnUNetv2_install_pretrained_model_from_zip", archive, changed=elsewhere)
    assert (tmp_path / "results" / DATASET / f"{FINAL}__{PLANS}__2d" / "fold_1" / "checkpoint_final.pth").is_file()
    output = tmp_path / "predicted"
    flags = ("--save_probabilities", "--disable_tta", "-npp", 1, "-nps", 1, "-f", 0, 1, "-device", "cpu")
    images = two_folds.raw / "imagesTs"
    two_folds.run("nnUNetv2_predict", *model, "-i", images, "-o", output, *flags, changed=elsewhere)
    for case, expected in predictions["both"].items():
        assert np.array_equal(np.load(output / f"{case}.npz")["probabilities"], expected)
