"""A workspace for comparisons, in which nnUNetv2_train is the stand-in, and the command line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from nnunetv2_slicemamba.common import commands
from tests import light_child
from tests.comparison.comparison_workspace import DATASET, PLANS, TRAINER, make_workspace


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    return make_workspace(tmp_path_factory.mktemp("comparison") / "made")


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A test's own workspace, named by nnU-Net's variables."""
    folder = tmp_path / "workspace"
    shutil.copytree(made, folder)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(folder / name))
    monkeypatch.setenv("STAND_IN_PREPARED", str(folder / "prepared"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("STAND_IN_ENDS", raising=False)
    monkeypatch.delenv("SLICEMAMBA_SLICING", raising=False)
    monkeypatch.delenv("SLICEMAMBA_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(commands.ENTRY_POINTS, "nnUNetv2_train", ("stand_in_train", "train"))
    monkeypatch.setattr(commands, "run_process", light_child.run_process)
    return folder


@pytest.fixture
def run(root: Path, capsys: pytest.CaptureFixture[str]):
    """`slicemamba NAME ...` on the workspace; returns exit code and output, its white space made single spaces."""
    from nnunetv2_slicemamba.cli.main import main

    def call(name: str, *arguments: str) -> tuple[int, str]:
        common = ("-d", DATASET, "-c", "2d", "-f", "0", "-p", PLANS, "--trainer", TRAINER, "-device", "cpu")
        code = 0
        try:
            main([name, *common, *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return call


@pytest.fixture
def folder(root: Path) -> Path:
    """Default folder of the comparison."""
    return root / "nnUNet_results" / DATASET / "comparison" / f"{TRAINER}__{PLANS}__2d" / "fold_0"
