"""Every kind of dataset and configuration: planning, supernet, search, final training and prediction, as commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from nnunetv2_slicemamba.common.registration import EXT_TRAINER_FOLDER
from tests.end_to_end.workspace import BIN, FINAL, PLANS, SUPERNET, ZYGOTE, Workspace
from tests.features import matrix_data

DATASET = "Dataset601_Matrix"
PIPELINE = Path(__file__).with_name("pipeline.py")


@dataclass(frozen=True)
class Row:
    """data: writes the raw dataset. predicted: values that a prediction may have. memory: GB to plan for. network:
    to plan, under the name of the paper's plans."""

    data: Callable[[Path], None]
    configuration: str
    predicted: tuple[int, ...]
    fold: str = "0"
    memory: float = 0.3
    variables: tuple[tuple[str, str], ...] = ()
    network: str = "paper"
    slow: bool = True


ROWS = {
    "2d, colour, regions, worker processes": Row(
        matrix_data.rgb_with_regions, "2d", (0, 1, 2), variables=(("nnUNet_n_proc_DA", "1"),), slow=False
    ),
    "2d, five channels, ignored pixels": Row(matrix_data.five_channels_with_ignored_pixels, "2d", (0, 1)),
    "2d, hybrid": Row(matrix_data.one_nucleus, "2d", (0, 1), network="hybrid"),
    "3d_fullres, hybrid, thick slices": Row(
        matrix_data.volumes_without_foreground, "3d_fullres", (0, 1, 2), network="hybrid"
    ),
    "2d, residual": Row(matrix_data.one_nucleus, "2d", (0, 1), network="residual", slow=False),
    "3d_fullres, residual, thick slices": Row(
        matrix_data.volumes_without_foreground, "3d_fullres", (0, 1, 2), network="residual"
    ),
    "2d on thick slices, empty foreground": Row(matrix_data.volumes_without_foreground, "2d", (0, 1, 2)),
    "3d_fullres, two channels, fold all": Row(matrix_data.volumes_with_two_channels, "3d_fullres", (0, 1, 2), "all"),
    "3d_fullres, thick slices, regions, ignored voxels": Row(
        matrix_data.thick_slices_with_regions_and_ignored_voxels, "3d_fullres", (0, 1, 2), slow=False
    ),
    "3d_fullres, thick slices, empty foreground, own splits": Row(
        matrix_data.volumes_without_foreground, "3d_fullres", (0, 1, 2)
    ),
}


def console(command: str, *arguments: object) -> list[str]:
    return [str(BIN / command), *map(str, arguments)]


def run_all(workspace: Workspace, commands: list[list[str]]) -> str:
    """Runs commands one after the other in one process; all must succeed."""
    code, output = ZYGOTE.run(PIPELINE, [json.dumps(commands)], workspace.environment(), workspace.root)
    assert code == 0, output[-6000:]
    return output


def train(configuration: str, fold: str, trainer: str) -> list[str]:
    return console("nnUNetv2_train", 601, configuration, fold, "-tr", trainer, "-p", PLANS, "-device", "cpu")


def search(configuration: str, fold: str) -> list[str]:
    small = ("--population", 3, "--generations", 1, "--parents", 2)
    selected = ("-d", 601, "-c", configuration, "-f", fold, "-p", PLANS, "-tr", SUPERNET)
    return console("slicemamba", "search", *selected, *small, "-device", "cpu")


def predict(workspace: Workspace, configuration: str, fold: str, *more: object) -> list[str]:
    model = ("-d", 601, "-c", configuration, "-f", fold, "-tr", FINAL, "-p", PLANS, "-device", "cpu")
    folders = ("-i", workspace.root / "nnUNet_raw" / DATASET / "imagesTs", "-o", workspace.root / configuration)
    return console("nnUNetv2_predict", *folders, *model, "--disable_tta", "-npp", 1, "-nps", 1, *more)


def whole_chain(configuration: str, fold: str) -> list[list[str]]:
    return [train(configuration, fold, SUPERNET), search(configuration, fold), train(configuration, fold, FINAL)]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
    return Workspace(tmp_path, {"nnUNet_n_proc_DA": "0", "nnUNet_extTrainer": str(EXT_TRAINER_FOLDER)})


def make_data(workspace: Workspace, row: Row) -> Path:
    raw = workspace.root / "nnUNet_raw" / DATASET
    raw.mkdir()
    row.data(raw)
    return raw


def results(workspace: Workspace, trainer: str, configuration: str, fold: str) -> Path:
    return workspace.root / "nnUNet_results" / DATASET / f"{trainer}__{PLANS}__{configuration}" / f"fold_{fold}"


def read(file: Path) -> np.ndarray[Any, Any]:
    if file.suffix == ".png":
        return np.asarray(Image.open(file))
    return np.asarray(nibabel.load(file).dataobj)


def check_row(workspace: Workspace, row: Row) -> None:
    """The search measured Dice and chose, the final network has what it chose, and the prediction fits the truth."""
    chosen = json.loads(
        (results(workspace, SUPERNET, row.configuration, row.fold) / "slicing_search" / "best_slicing.json").read_text()
    )
    assert chosen["how_chosen"] == "search"
    assert 0 <= chosen["fitness"] <= 1
    final = results(workspace, FINAL, row.configuration, row.fold)
    summary = json.loads((final / "validation" / "summary.json").read_text())
    assert summary["metric_per_case"]
    weights = torch.load(final / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert weights["slicing"].tolist() == chosen["slicing"]
    assert any(name.startswith("encoder.stem.") for name in weights) == (row.network == "hybrid")
    assert any(name.startswith("encoder.stages.0.convolutions.") for name in weights) == (row.network == "residual")
    truth_folder = workspace.root / "nnUNet_raw" / DATASET / "labelsTs"
    truths = list(truth_folder.iterdir())
    assert truths
    for truth in truths:
        predicted = read(workspace.root / row.configuration / truth.name)
        assert predicted.shape == read(truth).shape
        assert set(np.unique(predicted)) <= set(row.predicted)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if row.slow else []) for name, row in ROWS.items()]
)
def test_every_step_runs_from_planning_to_prediction(name: str, workspace: Workspace) -> None:
    row = ROWS[name]
    workspace.variables |= dict(row.variables)
    make_data(workspace, row)
    plan = console("slicemamba", "plan", "-d", 601, "-c", row.configuration, "--size", "S", "--gpu-memory", row.memory)
    plan += ["--network", row.network, "-overwrite_plans_name", PLANS]
    predicted = predict(workspace, row.configuration, row.fold)
    run_all(workspace, [[*plan, "-np", "1"], *whole_chain(row.configuration, row.fold), predicted])
    check_row(workspace, row)


@pytest.mark.slow
def test_a_cascade_runs_from_low_resolution_to_prediction(workspace: Workspace) -> None:
    row = Row(matrix_data.volumes_larger_than_a_patch, "3d_cascade_fullres", (0, 1, 2))
    make_data(workspace, row)
    configurations = ("3d_lowres", "3d_cascade_fullres")
    plan = console("slicemamba", "plan", "-d", 601, "-c", *configurations, "--network", "paper", "--size", "S")
    plan += ["--gpu-memory", "0.03"]
    # the second stage reads the predictions of every case, so the first needs both folds
    other = console("slicemamba", "slicing", "-d", 601, "-c", "3d_lowres", "-f", 1, "-p", PLANS, "--set", "2x2x4")
    first = [*whole_chain("3d_lowres", "0"), other, train("3d_lowres", "1", FINAL)]
    predicted = workspace.root / "3d_lowres"
    run_all(
        workspace,
        [
            [*plan, "-np", "1"],
            *first,
            *whole_chain("3d_cascade_fullres", "0"),
            predict(workspace, "3d_lowres", "0"),
            predict(workspace, "3d_cascade_fullres", "0", "-prev_stage_predictions", predicted),
        ],
    )
    check_row(workspace, row)
