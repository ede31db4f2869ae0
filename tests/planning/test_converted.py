"""One's own volumes with two channels and test images go the whole way: converted, planned by nnU-Net, evaluated."""

from __future__ import annotations

import json
import multiprocessing.dummy
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from nnunetv2.experiment_planning import verify_dataset_integrity
from nnunetv2.utilities import utils

from nnunetv2_slicemamba.cli.main import main
from tests.conftest import use_folders
from tests.datasets.volume_sources import box, write_array


def call(*arguments: object) -> None:
    """A command, which must succeed."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert not ended.value.code


def test_own_volumes_are_converted_planned_with_nnunets_checks_and_evaluated(
    tmp_path: Path, quick_nnunet: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_folders(tmp_path, monkeypatch)
    threads = SimpleNamespace(get_context=lambda method: multiprocessing.dummy)
    monkeypatch.setattr(verify_dataset_integrity, "multiprocessing", threads)
    monkeypatch.setattr(utils, "Pool", multiprocessing.dummy.Pool)
    for folder, cases in {"": range(4), "test_": (8, 9)}.items():
        for case in cases:
            image, mask = (np.kron(array, np.ones((3, 3, 3), array.dtype)) for array in box(f"case{case}"))
            write_array(image, tmp_path / f"{folder}t1" / f"case{case}.mha")
            write_array(image[::-1], tmp_path / f"{folder}t2" / f"case{case}.mha")
            write_array(mask.astype(np.float32), tmp_path / f"{folder}masks" / f"case{case}.nrrd")
    options = ["--images", "t1", "--images", "t2", "--masks", "masks", "--channels", "T1,T2"]
    options += ["--test-images", "test_t1", "--test-images", "test_t2", "--test-masks", "test_masks"]
    monkeypatch.chdir(tmp_path)
    call("convert", "folders", *options, "-d", 7, "--name", "Heads", "--split", "random:0")
    assert "4 training cases, 2 held out" in capsys.readouterr().out
    call("plan", "-d", 7, "--size", "S", "-c", "3d_fullres", "-np", 1, "--verify_dataset_integrity")
    assert "verify_dataset_integrity Done" in capsys.readouterr().out
    dataset = Path("nnUNet_preprocessed") / "Dataset007_Heads"
    fingerprint = json.loads((dataset / "dataset_fingerprint.json").read_text())
    assert np.allclose(fingerprint["spacings"], [[3, 0.8, 0.7]] * 4)
    truth = Path("nnUNet_raw") / "Dataset007_Heads" / "labelsTs"
    shutil.copytree(truth, "predictions")
    call("evaluate", "predictions", truth, "-o", "perfect.json")
    assert {f'"case{case}"' in Path("perfect.json").read_text() for case in (8, 9)} == {True}
