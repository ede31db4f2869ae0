"""The Python of the pages and of the notebook runs, and prints what the pages say that it prints."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.common.registration import EXT_TRAINER_FOLDER
from tests.docs.site_pages import DOCS, REPOSITORY

# code, and the text that it prints where the page shows it
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
PAGES = sorted(file.name for file in (DOCS / "python").glob("*.md"))


def run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs a page's blocks one after another in `folder`; returns the names that they leave."""
    blocks = BLOCK.findall((DOCS / "python" / page).read_text(encoding="utf-8"))
    assert blocks
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), names)
        if expected:
            assert printed.getvalue() == expected, code
    return names


def test_every_page_with_code_is_run() -> None:
    assert PAGES == ["index.md", "monai.md", "prediction.md", "scan.md", "training.md"]


@pytest.mark.parametrize("page", ["index.md", "monai.md", "scan.md"])
def test_a_page_prints_what_it_shows(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(page, tmp_path, monkeypatch)


def test_the_page_on_training_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = run("training.md", tmp_path, monkeypatch)["losses"]
    assert losses[-1] < losses[0] / 2


def test_the_page_on_prediction_predicts_with_every_folds_slicing(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2_slicemamba.trainers import TRAINERS

    preprocessed = workspace / "nnUNet_preprocessed" / "Dataset901_Disks"
    plans = json.loads((preprocessed / "nnUNetSliceMambaSPlans.json").read_text())
    description = json.loads((preprocessed / "dataset.json").read_text())
    model = "nnUNet_results/Dataset501_Lesions/SliceMambaTrainer__nnUNetSliceMambaResidualPlans__2d"
    for fold, thickness in enumerate([(2, 4), (4, 2)]):
        given = {**plans, "continue_training": False}
        trainer = TRAINERS["SliceMambaTrainer"](given, "2d", fold, description, torch.device("cpu"))
        trainer.initialize()
        trainer.bare_network.set_slicing([thickness] * trainer.bare_network.n_blocks)
        (tmp_path / model / f"fold_{fold}").mkdir(parents=True)
        trainer.save_checkpoint(str(tmp_path / model / f"fold_{fold}" / "checkpoint_final.pth"))
    shutil.copy(preprocessed / "dataset.json", tmp_path / model)
    (tmp_path / model / "plans.json").write_text(json.dumps(plans))
    (tmp_path / "images").mkdir()
    image = workspace / "nnUNet_raw" / "Dataset901_Disks" / "imagesTr" / "case_0_0000.png"
    shutil.copy(image, tmp_path / "images" / "lesion_0000.png")
    monkeypatch.setenv("nnUNet_extTrainer", str(EXT_TRAINER_FOLDER))

    names = run("prediction.md", tmp_path, monkeypatch)
    assert (tmp_path / "predictions" / "lesion.png").is_file()
    slicings = [weights["slicing"][0].tolist() for weights in names["predictor"].list_of_parameters]
    assert slicings == [[2, 4], [4, 2]]


def test_the_notebook_runs_and_its_network_finds_the_nuclei(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((REPOSITORY / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            exec(compile("".join(cell["source"]), "quickstart.ipynb", "exec"), names)
    assert names["dice"] > 0.5
