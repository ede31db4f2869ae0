"""After `slicemamba register`, and without nnUNet_extTrainer, nnU-Net finds trainers and planner by itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import nnunetv2
import pytest

from tests.end_to_end.workspace import FINAL, PLANS, Workspace, make_workspace

pytestmark = pytest.mark.xdist_group("registered")


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace that uses a copy of nnU-Net in which our classes are registered; the installed one stays as it is."""
    root = tmp_path_factory.mktemp("registered")
    shutil.copytree(nnunetv2.__path__[0], root / "site" / "nnunetv2", ignore=shutil.ignore_patterns("__pycache__"))
    workspace = make_workspace(root)
    workspace.variables["PYTHONPATH"] = str(root / "site")
    assert str(root / "site") in workspace.run("slicemamba", "register")
    return workspace


def test_the_stock_commands_plan_train_and_predict(registered: Workspace) -> None:
    registered.run("nnUNetv2_plan_and_preprocess", "-d", 511, "-pl", "SliceMambaPlannerS", "-c", "2d", "-np", 1)
    registered.run("slicemamba", "slicing", "-d", 511, "-c", "2d", "-f", 0, "-p", PLANS, "--set", "2x4")
    train = (511, "2d", 0, "-tr", FINAL, "-p", PLANS, "-device", "cpu", "--npz")
    for flag in ((), ("--c",), ("--val",)):
        registered.run("nnUNetv2_train", *train, *flag)
    # other tests leave it empty
    assert (registered.results(FINAL) / "fold_0" / "progress.png").stat().st_size > 0
    model = ("-d", 511, "-c", "2d", "-tr", FINAL, "-p", PLANS)
    registered.run("nnUNetv2_find_best_configuration", 511, "-c", "2d", "-tr", FINAL, "-p", PLANS, "-f", 0)
    archive, installed = registered.root / "model.zip", {"nnUNet_results": str(registered.root / "elsewhere")}
    registered.run("nnUNetv2_export_model_to_zip", *model, "-o", archive, "-f", 0)
    registered.run("nnUNetv2_install_pretrained_model_from_zip", archive, changed=installed)
    output = registered.root / "predicted"
    flags = ("-i", registered.raw / "imagesTs", "-o", output, "-f", 0, "-device", "cpu", "-npp", 1, "-nps", 1)
    registered.run("nnUNetv2_predict", *model, *flags, changed=installed)
    assert sorted(file.name for file in output.glob("*.png")) == sorted(
        file.name for file in (registered.raw / "labelsTs").iterdir()
    )
    registered.run("slicemamba", "register", "--undo")
    done = registered.call("nnUNetv2_train", 511, "2d", 0, "-tr", FINAL, "-p", PLANS, "-device", "cpu", "--val")
    assert done.returncode != 0
    assert "Could not find requested nnunet trainer" in done.stdout
    assert not list(Path(registered.root / "site").rglob("slicemamba*.py"))
