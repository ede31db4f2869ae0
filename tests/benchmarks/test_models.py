"""Tests of the packer of models: which folds belong together, and how they are laid out for nnU-Net."""

from __future__ import annotations

import json
from pathlib import Path

import models
import pytest

MODEL = "nnUNet_results/Dataset701_brain/SliceMambaTrainer__Plans__3d_fullres"


def fold(work: Path, number: int, patch: int = 40, validated: bool = True) -> Path:
    """A fold's folder as accuracy.py leaves it."""
    folder = work / "runs" / f"brain-fold{number}-ours-1000x250-1" / MODEL / f"fold_{number}"
    (folder / "validation").mkdir(parents=True)
    (folder / "checkpoint_final.pth").write_bytes(b"weights")
    if validated:
        (folder / "validation" / "summary.json").write_text("{}")
    (folder.parent / "plans.json").write_text(json.dumps({"dataset_name": "Dataset701_brain", "patch": patch}))
    (folder.parent / "dataset.json").write_text(json.dumps({"labels": {"a": 1}}))
    return folder


def test_the_finished_folds_of_a_candidate_become_one_model(tmp_path: Path) -> None:
    expected = {str(i): fold(tmp_path / "work", i, validated=i != 2) for i in range(4)}
    del expected["2"]  # not validated yet
    folds = models.finished_folds(tmp_path / "work", "brain-fold*-ours-1000x250-1")
    assert folds == expected
    named = models.lay_out(folds, "Dataset004_Brain", {"licence": "CC0"}, tmp_path / "model")
    assert named == [
        *("-d", "Dataset004_Brain", "-c", "3d_fullres", "-p", "Plans", "-tr", "SliceMambaTrainer", "-f", "0", "1", "3")
    ]
    model = tmp_path / "model" / "nnUNet_results" / "Dataset004_Brain" / "SliceMambaTrainer__Plans__3d_fullres"
    assert (model / "fold_3" / "checkpoint_final.pth").read_bytes() == b"weights"
    assert json.loads((model / "dataset.json").read_text()) == {"labels": {"a": 1}, "licence": "CC0"}
    assert json.loads((model / "plans.json").read_text())["dataset_name"] == "Dataset004_Brain"


def test_folds_that_are_no_ensemble_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(tmp_path), str(tmp_path / "m.zip"), "--data", "brain", "--candidate", "ours", "--budget", "1000x250"]
    assert models.main(given) == 2
    assert "has no finished brain-fold*-ours-1000x250-1; accuracy.py trains them" in capsys.readouterr().out
    fold(tmp_path, 0)
    fold(tmp_path, 1, patch=48)
    assert models.main(given) == 2
    assert "have different plans" in capsys.readouterr().out
