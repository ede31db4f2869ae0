"""Tiny real datasets in nnU-Net's layout, planned and preprocessed once per run of the tests."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# read when nnU-Net is imported: every process of its pools imports torch anew
os.environ.setdefault("nnUNet_def_n_proc", "1")
# the tests' tensors are too small for more, and tests run beside each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
# commands take all cores, as nnU-Net's do: threads that spin while they wait would take them from the other tests
os.environ["GOMP_SPINCOUNT"] = "0"
# scripts that tests start import their helpers as tests.ROOM.NAME
REPOSITORY = Path(__file__).parents[1]
os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])

import matplotlib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from filelock import FileLock

from nnunetv2_slicemamba.common.checkpoints import FORCE_SAFE
from tests.quick_nnunet import draw_no_progress, preprocess_in_threads, sample_fewer_voxels

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
DATASETS = {"2d": (901, "Dataset901_Disks"), "3d": (902, "Dataset902_Slabs")}
SIZES = {"2d": (32, 40), "3d": (10, 32, 40)}
SPACINGS = {"2d": (1.0, 1.0), "3d": (5.0, 1.0, 1.0)}


@pytest.fixture(autouse=True)
def _autocast_stays_off() -> Iterator[None]:
    """No test may leave autocast on: those that follow in the same process would fail, not it."""
    yield
    left = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
    for device in left:
        torch.set_autocast_enabled(device, False)
    assert not left, f"autocast was left on for {left}"


@pytest.fixture(autouse=True)
def _own_style() -> Iterator[None]:
    """nnU-Net's picture of a training changes matplotlib's style for the whole process."""
    with matplotlib.rc_context():
        yield


@pytest.fixture(autouse=True)
def _reading_weights_only_ends_with_the_test() -> Iterator[None]:
    """Trainers switch it on for their process; what later tests start would inherit it."""
    yield
    os.environ.pop(FORCE_SAFE, None)


def write_raw_dataset(raw: Path, kind: str, cases: int = 5) -> None:
    """Noisy bright balls and their masks: PNG in 2D, anisotropic NIfTI in 3D; sizes and spacings in (z,) y, x."""
    folder, ending = raw / DATASETS[kind][1], {"2d": ".png", "3d": ".nii.gz"}[kind]
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir(parents=True)
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.arange(size) * step for size, step in zip(SIZES[kind], SPACINGS[kind], strict=True)))
    for case in range(cases):
        distance = sum((axis - rng.uniform(12, 20)) ** 2 for axis in axes).swapaxes(0, 1) ** 0.5
        mask = (distance < rng.uniform(6, 11)).astype(np.uint8)
        image = (100 * mask + rng.integers(0, 60, mask.shape)).astype(np.uint8)
        for array, name in ((image, f"imagesTr/case_{case}_0000"), (mask, f"labelsTr/case_{case}")):
            written = sitk.GetImageFromArray(array)
            written.SetSpacing(SPACINGS[kind][::-1])
            sitk.WriteImage(written, str(folder / f"{name}{ending}"))
    description = {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "ball": 1},
        "numTraining": cases,
        "file_ending": ending,
        # nnU-Net starts 12 processes to find files that are not listed
        "dataset": {
            f"case_{i}": {"images": [f"imagesTr/case_{i}_0000{ending}"], "label": f"labelsTr/case_{i}{ending}"}
            for i in range(cases)
        },
    }
    (folder / "dataset.json").write_text(json.dumps(description))


def use_folders(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points nnU-Net's variables to folders below `root`, which are made if they are missing."""
    for variable in FOLDERS:
        (root / variable).mkdir(exist_ok=True)
        monkeypatch.setenv(variable, str(root / variable))


@pytest.fixture(scope="session")
def _no_progress_is_drawn() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        draw_no_progress(monkeypatch.setattr)
        yield


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory, _no_progress_is_drawn: None) -> Path:
    """Folders with both datasets planned in size S and preprocessed (2d, 3d_fullres); not to be written to."""
    from nnunetv2_slicemamba.planning.preprocessing import plan_and_preprocess

    base = tmp_path_factory.getbasetemp()
    # made once for all workers of a parallel run
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "planned"
    with FileLock(f"{root}.lock"), pytest.MonkeyPatch.context() as monkeypatch:
        if not root.exists():
            made = root.with_suffix(".part")
            made.mkdir()
            use_folders(made, monkeypatch)
            sample_fewer_voxels(monkeypatch.setattr)
            preprocess_in_threads(monkeypatch.setattr)
            for kind, (number, name) in DATASETS.items():
                write_raw_dataset(made / "nnUNet_raw", kind)
                configuration = {"2d": "2d", "3d": "3d_fullres"}[kind]
                plan_and_preprocess(number, name, "S", [configuration], processes=1)
            made.rename(root)
    return root


@pytest.fixture
def workspace(planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A test's own copy of `planned`, named by nnU-Net's variables."""
    root = tmp_path / "workspace"
    shutil.copytree(planned, root)
    use_folders(root, monkeypatch)
    return root
