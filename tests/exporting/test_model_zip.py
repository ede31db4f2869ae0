"""A model's zip installs with nnU-Net's own function and predicts what the model did; its card says what it is."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.evaluation.evaluate_predictions import label_or_region_to_key
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.model_sharing import model_import

from nnunetv2_slicemamba.common.hashing import sha256_of_file
from nnunetv2_slicemamba.common.registration import EXT_TRAINER_FOLDER
from nnunetv2_slicemamba.exporting.model_zip import pack_model
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.trainers import TRAINERS
from tests.cli.commands import called

PLANS, FINAL = "nnUNetSliceMambaSPlans", "SliceMambaTrainer_1epoch"
MODEL = ("export", "-d", "901", "-c", "2d", "-p", PLANS, "-tr", FINAL, "--format", "zip")
CHECKPOINT = "checkpoint_final.pth"


@pytest.fixture
def model(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of two folds with random weights and different slicings; fold 0 has a validation."""
    monkeypatch.setenv("nnUNet_extTrainer", str(EXT_TRAINER_FOLDER))
    for fold, thickness in (("0", (2, 4)), ("1", (4, 2))):
        folder = FoldFolder(select("901", "2d", fold, PLANS), FINAL)
        description = json.loads((folder.selection.preprocessed_folder / "dataset.json").read_text())
        trainer = TRAINERS[FINAL](
            {**folder.selection.plans, "continue_training": False}, "2d", int(fold), description, torch.device("cpu")
        )
        trainer.initialize()
        network = trainer.bare_network
        network.set_slicing([thickness] * network.n_blocks)
        # a state as after a step
        network(torch.zeros(1, 1, 32, 32))[0].mean().backward()
        trainer.optimizer.step()
        trainer.save_checkpoint(str(folder.path / CHECKPOINT))
        (folder.path.parent / "plans.json").write_text(json.dumps(folder.selection.plans))
        (folder.path.parent / "dataset.json").write_text(json.dumps({**description, "licence": "CC0"}))
    metrics = {"1": {"Dice": 0.875}}
    summary = {"metric_per_case": [], "mean": metrics, "foreground_mean": {"Dice": 0.875}}
    place = folder.path.parent / "fold_0" / "validation"
    place.mkdir()
    (place / "summary.json").write_text(json.dumps(summary))
    return Path(folder.path.parent)


def predicted(model: Path, raw: Path) -> list[np.ndarray]:
    """Segmentations and probabilities of two cases by the ensemble of both folds."""
    device = torch.device("cpu")
    predictor = nnUNetPredictor(use_mirroring=False, device=device)
    predictor.initialize_from_trained_model_folder(str(model), (0, 1), CHECKPOINT)
    images = [[str(raw / "imagesTr" / f"case_{i}_0000.png")] for i in (0, 1)]
    found = [predictor.predict_from_files_sequential([image], None, save_probabilities=True)[0] for image in images]
    return [array for pair in found for array in pair]


def test_the_zip_installs_and_predicts_the_same_without_the_optimisers_state(
    model: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = called(*MODEL, "-f", "0", "1")
    assert ended.code == 0, ended.err
    assert "a fold has no validation" in ended.out
    file = model / "model.zip"
    record = json.loads((model / "model.zip.json").read_text())
    assert (record["sha256"], record["folds"]) == (sha256_of_file(file), [0, 1])
    assert file.stat().st_size < 0.6 * sum(one.stat().st_size for one in model.rglob(CHECKPOINT))
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setattr(model_import, "nnUNet_results", str(elsewhere))
    model_import.install_model_from_zip_file(str(file))
    installed = elsewhere / model.parent.name / model.name
    expected, found = (predicted(one, workspace / "nnUNet_raw" / model.parent.name) for one in (model, installed))
    assert all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))
    # it still loads into a trainer, as --val does
    folder = FoldFolder(select("901", "2d", "1", PLANS), FINAL)
    description = json.loads((installed / "dataset.json").read_text())
    trainer = TRAINERS[FINAL](
        {**folder.selection.plans, "continue_training": False}, "2d", 1, description, torch.device("cpu")
    )
    trainer.load_checkpoint(str(installed / "fold_1" / CHECKPOINT))
    assert trainer.bare_network.get_slicing()[0] == (4, 2)


def test_the_card_says_data_terms_dice_slicings_and_hashes(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "disks.zip"
    assert called(*MODEL, "-f", "0", "1", "-o", str(file)).code == 0
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        card = archive.read(f"{model.parent.name}/{model.name}/model_card.md").decode()
        archive.extractall(tmp_path)
    assert not any("summary" in name for name in names)
    first, second = (
        sha256_of_file(tmp_path / model.parent.name / model.name / f"fold_{i}" / CHECKPOINT) for i in (0, 1)
    )
    assert f"| 0 | 1 | 0.8750 | 0.8750 | 2x4 | {first} |" in card
    assert f"| 1 | 1 | not stated | not stated | 4x2 | {second} |" in card
    assert "| terms of the data | CC0 |" in card
    assert "| network | SliceMambaUNet, " in card
    assert "nnUNetv2_install_pretrained_model_from_zip disks.zip" in card
    # on no package index yet
    assert "    pip install -e .    # in a clone" in card
    assert f"-tr {FINAL} -p {PLANS} -f 0 1 -i IMAGES" in card


def test_the_card_of_another_checkpoint_predicts_with_it_and_has_no_dice(model: Path, tmp_path: Path) -> None:
    for fold in ("fold_0", "fold_1"):
        shutil.copy(model / fold / CHECKPOINT, model / fold / "checkpoint_best.pth")
    ended = called(*MODEL, "-f", "0", "1", "-chk", "checkpoint_best.pth", "-o", str(tmp_path / "disks.zip"))
    assert "nnU-Net validates checkpoint_final.pth, this model has checkpoint_best.pth" in ended.out
    with zipfile.ZipFile(tmp_path / "disks.zip") as archive:
        card = archive.read(f"{model.parent.name}/{model.name}/model_card.md").decode()
    assert "-f 0 1 -chk checkpoint_best.pth -i IMAGES" in card
    assert "No Dice: nnU-Net validates checkpoint_final.pth, and this model has checkpoint_best.pth." in card
    assert "0.8750" not in card


def test_regions_have_their_names_in_the_card(model: Path, tmp_path: Path) -> None:
    file = model / "dataset.json"
    labels = {"background": 0, "whole": [1, 2], "core": [2], "rim": 1}
    file.write_text(json.dumps({**json.loads(file.read_text()), "labels": labels, "regions_class_order": [1, 2, 1]}))
    summary = model / "fold_0" / "validation" / "summary.json"
    # keys as nnU-Net writes them
    keys = [label_or_region_to_key(one) for one in ((1, 2), (2,), 1)]
    mean = {key: {"Dice": 0.1 * (place + 1)} for place, key in enumerate(keys)}
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "mean": mean}))
    facts = pack_model([FoldFolder(select("901", "2d", "0", PLANS), FINAL)], CHECKPOINT, tmp_path / "regions.zip")
    assert dict(facts.folds[0].dice) == pytest.approx({"whole": 0.1, "core": 0.2, "rim": 0.3, "mean": 0.875})


def test_what_cannot_be_packed_is_refused(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    other.write_bytes(b"somebody's")
    for flags, message in (
        (("-f", "0", "2"), "there is no checkpoint"),
        (("-f", "0", "-o", str(tmp_path / "model.tar")), "must end with .zip"),
        (("-f", "0", "1", "--format", "torchscript"), "writes one network, -f names 2 folds; give one of them"),
        (("-f", "0", "-o", str(other)), "was not written by this command"),
    ):
        ended = called(*MODEL, *flags)
        assert ended.code == 2
        assert message in ended.message
    assert other.read_bytes() == b"somebody's"
