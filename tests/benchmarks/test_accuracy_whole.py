"""Tests of the accuracy benchmark from images to tables, on the CPU: real data, real trainings of a few iterations."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import accuracy
import carry
import costs
import models
import pytest
import results
import torch
from PIL import Image

from nnunetv2_slicemamba.demo.layout import DATA
from nnunetv2_slicemamba.trainers.recipe import make_schedule

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("accuracy")]
QUICK = {"num_val_iterations_per_epoch": 1}
MORE = {
    "quick-stock": {"base": "stock", "settings": QUICK},
    "quick": {"base": "s-hybrid", "settings": {**QUICK, "initial_lr": 2e-3}, "arch": {"d_state": 8}},
    "none": {"base": "s", "planner": ["slicemamba", "plan", "--size", "XXL"], "plans": "nnUNetNonePlans"},
    "mistaken": {"base": "stock", "settings": {"learning_rate": 1}},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven crops of the shipped nuclei as images and masks, six volumes of the hippocampus as nnU-Net raw data."""
    root = tmp_path_factory.mktemp("accuracy")
    for kind in ("images", "masks"):
        (root / "cells" / kind).mkdir(parents=True)
    for i in range(7):
        box = (64, 64, 128, 128)
        with Image.open(DATA / "nuclei2d" / "imagesTr" / f"nuclei_{i:03d}_0000.png") as image:
            image.convert("RGB").crop(box).save(root / "cells" / "images" / f"c{i}.jpg")
        with Image.open(DATA / "nuclei2d" / "labelsTr" / f"nuclei_{i:03d}.png") as mask:
            mask.crop(box).point(lambda value: 255 * (value > 0)).save(root / "cells" / "masks" / f"c{i}.png")
    split = {"train": ["c0", "c1", "c2", "c3"], "val": ["c4", "c5"]}
    (root / "cells" / "split.json").write_text(json.dumps(split))
    for kind in ("imagesTr", "labelsTr"):
        (root / "brain" / kind).mkdir(parents=True)
        for file in sorted((DATA / "hippocampus3d" / kind).iterdir())[:6]:
            shutil.copyfile(file, root / "brain" / kind / file.name)
    labels = {"background": 0, "anterior": 1, "posterior": 2}
    content = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 6, "file_ending": ".nii.gz"}
    (root / "brain" / "dataset.json").write_text(json.dumps(content))
    (root / "more.json").write_text(json.dumps(MORE))
    return root


def call(root: Path, candidates: str, data: str, budget: str, *more: str) -> subprocess.CompletedProcess[str]:
    sources = [f"{name}={root / name}" for name in data.split()]
    folders = ("--work", str(root / "work"), "--out", str(root / "out"), "--more", str(root / "more.json"))
    options = ("--candidates", *candidates.split(), "--budget", budget, "--device", "cpu", *more)
    command = [sys.executable, accuracy.__file__, "--data", *sources, *folders, *options]
    return subprocess.run(command, capture_output=True, text=True)


def rows(root: Path) -> dict[str, results.Row]:
    return {row["id"]: row for row in results.read("runs", root / "out")}


def test_nnunets_network_and_ours_are_trained_in_2d_and_3d_and_only_once(root: Path) -> None:
    asked = ("quick-stock quick", "cells brain", "1x2", "--batch", "cells=2")
    done = call(root, *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {(row["data"], row["candidate"]): row for row in rows(root).values()}
    assert found.keys() == {(data, name) for data in ("cells", "brain") for name in ("quick-stock", "quick")}
    for (data, name), row in found.items():
        assert (row["state"], row["epochs_done"]) == ("finished", "1")
        assert row["cases"] == "2"
        assert (row["configuration"], row["batch"]) == (("2d", "2") if data == "cells" else ("3d_fullres", "2"))
        own = name == "quick"
        assert row["network"] == ("SliceMambaUNet" if own else "PlainConvUNet")
        assert row["slicing"] == ("" if not own else "2x4" if data == "cells" else "2x4x2")
        cases = [case for case in results.read("cases", root / "out") if case["run"] == row["id"]]
        assert {case["label"] for case in cases} == ({"foreground"} if data == "cells" else {"anterior", "posterior"})
        assert float(row["dice"]) == pytest.approx(sum(float(c["dice"]) for c in cases) / len(cases), abs=2e-6)
        (epoch,) = (one for one in results.read("epochs", root / "out") if one["run"] == row["id"])
        assert all(epoch[key] for key in ("pseudo_dice", "train_loss", "val_loss"))
    assert {case["case"] for case in results.read("cases", root / "out") if case["run"].startswith("cells")} == {
        *("c4", "c5")
    }
    # the settings and changes were applied
    log = (root / "work" / "runs" / "cells-fold0-quick-1x2-1" / "log.txt").read_text()
    assert "Current learning rate: 0.002" in log
    plans = json.loads(
        (root / "work/nnUNet_preprocessed/Dataset701_cells/nnUNetSliceMambaHybridSPlans_quick.json").read_text()
    )
    assert plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["d_state"] == 8

    before = {file: file.stat().st_mtime_ns for file in (root / "work").rglob("*") if file.is_file()}
    assert "finished: 4 of 4" in call(root, *asked).stdout
    assert {file: file.stat().st_mtime_ns for file in (root / "work").rglob("*") if file.is_file()} == before


def test_what_the_trained_models_cost_to_use_is_measured(root: Path) -> None:
    assert call(root, "quick-stock quick", "cells", "1x2", "--batch", "cells=2").returncode == 0
    shutil.rmtree(root / "cells only", ignore_errors=True)
    for run in (root / "work" / "runs").glob("cells-*-1x2-1"):
        shutil.copytree(run, root / "cells only" / "runs" / run.name)
    (root / "cells only" / "nnUNet_raw").symlink_to(root / "work" / "nnUNet_raw")
    folders = ("--work", str(root / "cells only"), "--out", str(root / "out"))
    command = [sys.executable, costs.__file__, *folders, "--device", "cpu", "--cases", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    timed = {(row["work"], row["figure"]): float(row["value"]) for row in results.read("timings", root / "out")}
    assert timed.keys() == {(n, f) for n in ("quick", "quick-stock") for f in (costs.PREDICTION, costs.ZIP)}
    assert all(value > 0 for value in timed.values())


def test_a_trained_model_becomes_a_zip_with_a_card(root: Path) -> None:
    assert call(root, "quick", "cells", "1x2", "--batch", "cells=2").returncode == 0
    file, of = root / "cells.zip", ("--data", "cells", "--candidate", "quick", "--budget", "1x2")
    command = [sys.executable, models.__file__, str(root / "work"), str(file), *of, "--dataset", "Dataset009_Cells"]
    done = subprocess.run([*command, "--about", "licence=CC0"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(file) as archive:
        (card,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/model_card.md"))
        assert any(name.endswith("fold_0/checkpoint_final.pth") for name in archive.namelist())
    assert card.startswith("# Dataset009_Cells, 2d")
    assert "| terms of the data | CC0 |" in card
    dice = next(float(row["dice"]) for row in rows(root).values() if row["id"] == "cells-fold0-quick-1x2-1")
    assert f"| {dice:.4f} |" in card


def test_a_training_without_enough_time_writes_a_checkpoint_and_goes_on_elsewhere_from_it(root: Path) -> None:
    run = "cells-fold0-quick-400x2-1"
    asked = ("quick", "cells", "400x2", "--batch", "cells=2", "--every", "10")
    stopped = call(root, *asked, "--seconds", "120")
    assert stopped.returncode == 1, stopped.stdout + stopped.stderr
    row = rows(root)[run]
    assert row["state"] == "unfinished"
    assert row["dice"] == ""
    done = int(row["epochs_done"])
    assert 0 < done < 400
    before = [epoch for epoch in results.read("epochs", root / "out") if epoch["run"] == run]
    assert len(before) == done
    # the checkpoint is that of the last epoch, whatever the trainer's interval
    (checkpoint,) = (root / "work" / "runs" / run).rglob("checkpoint_latest.pth")
    assert torch.load(checkpoint, weights_only=False)["current_epoch"] == done
    # another machine has nothing but what was packed
    assert carry.pack(root / "work", root / "parts", 63, 15.9) == []
    elsewhere = root / "elsewhere"
    carry.unpack(root / "parts", elsewhere)
    again = call(root, *asked, "--seconds", "120", "--work", str(elsewhere))
    assert again.returncode == 1, again.stdout + again.stderr
    after = [epoch for epoch in results.read("epochs", root / "out") if epoch["run"] == run]
    # it went on with the epoch after the last one, and is where it would be without the stop
    assert after[:done] == before
    assert len(after) > done
    (checkpoint,) = (elsewhere / "runs" / run).rglob("checkpoint_latest.pth")
    content = torch.load(checkpoint, weights_only=False)
    states = content["optimizer_state"]["state"].values()
    assert {float(state["step"]) for state in states} == {2.0 * len(after)}
    rates = make_schedule("poly", 2e-3, 1250, 400, 2)
    assert content["logging"]["lrs"] == [rates(2 * epoch) for epoch in range(len(after))]


def test_what_cannot_be_planned_or_set_fails_with_the_reason_and_alone(root: Path) -> None:
    done = call(root, "none mistaken quick-stock", "cells", "1x3", "--batch", "cells=2")
    assert done.returncode == 1
    found = rows(root)
    none, mistaken = (found[f"cells-fold0-{name}-1x3-1"] for name in ("none", "mistaken"))
    assert none["state"] == mistaken["state"] == "failed"
    assert "size 'XXL' does not exist" in none["note"]
    assert "the trainer nnUNetTrainer has no setting 'learning_rate'" in mistaken["note"]
    assert found["cells-fold0-quick-stock-1x3-1"]["state"] == "finished"
    assert "not finished: cells-fold0-none-1x3-1" in done.stdout
