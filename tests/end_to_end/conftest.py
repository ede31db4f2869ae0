"""One workspace with two trained folds of different slicing, made with the stock commands, for all tests here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from tests.end_to_end.workspace import BIN, FINAL, PLANS, SUPERNET, Workspace, make_workspace


def trainer_path() -> str:
    return subprocess.run(
        [str(BIN / "slicemamba"), "trainer-path"], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Planned and preprocessed; nothing but nnUNet_extTrainer leads nnU-Net to our trainers."""
    workspace = make_workspace(tmp_path_factory.mktemp("workspace"))
    workspace.run("slicemamba", "plan", "-d", "511", "-c", "2d", "--size", "S", "--network", "paper", "-np", "1")
    workspace.variables["nnUNet_extTrainer"] = trainer_path()
    return workspace


@pytest.fixture(scope="session")
def two_folds(planned: Workspace) -> Workspace:
    """Folds 0 and 1 trained with slicing 2x2 and 4x4, by nnUNetv2_train."""
    for fold, slicing in ((0, "2x2"), (1, "4x4")):
        planned.run("slicemamba", "slicing", "-d", "511", "-c", "2d", "-f", fold, "-p", PLANS, "--set", slicing)
        planned.run("nnUNetv2_train", "511", "2d", fold, "-tr", FINAL, "-p", PLANS, "-device", "cpu", "--npz")
        amplify_scan(planned.results(FINAL) / f"fold_{fold}" / "checkpoint_final.pth")
    return planned


def amplify_scan(file: Path) -> None:
    """After seconds of training the blocks hardly matter; makes the scan's share in a checkpoint's output large, so
    that a wrong slicing shows."""
    checkpoint = torch.load(file, weights_only=False)
    for name, value in checkpoint["network_weights"].items():
        if name.endswith("dt_projs_bias"):
            value += 3
        elif name.endswith("x_proj_weight"):
            value *= 10
        elif name.endswith("bss.out_proj.weight"):
            value *= 30
    torch.save(checkpoint, file)


@pytest.fixture(scope="session")
def supernet(planned: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace of its own with fold 0's supernet trained."""
    workspace = copy_of(planned, tmp_path_factory.mktemp("supernet"))
    workspace.run("nnUNetv2_train", "511", "2d", "0", "-tr", SUPERNET, "-p", PLANS, "-device", "cpu")
    amplify_scan(workspace.results(SUPERNET) / "fold_0" / "checkpoint_final.pth")
    workspace.run("nnUNetv2_train", "511", "2d", "0", "-tr", SUPERNET, "-p", PLANS, "-device", "cpu", "--val")
    return workspace


@pytest.fixture
def copied(planned: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the planned workspace that a test may spoil."""
    return copy_of(planned, tmp_path / "copy")


def copy_of(workspace: Workspace, root: Path) -> Workspace:
    """Raw and preprocessed data of a workspace below another root, without results."""
    shutil.copytree(workspace.root, root, ignore=shutil.ignore_patterns("nnUNet_results"), dirs_exist_ok=True)
    (root / "nnUNet_results").mkdir(exist_ok=True)
    return Workspace(root, dict(workspace.variables))
