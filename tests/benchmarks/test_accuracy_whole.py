"""The accuracy benchmark from images to results, on the CPU: real data, real trainings of a few iterations."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nnunetv2_slicemamba.demo.layout import DATA

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("accuracy")]

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "accuracy.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six crops of the shipped nuclei in the folders of ISIC 2017."""
    root = tmp_path_factory.mktemp("accuracy")
    source = root / "isic"
    images, masks = source / "ISIC-2017_Training_Data", source / "ISIC-2017_Training_Part1_GroundTruth"
    for folder in (images, masks):
        folder.mkdir(parents=True)
    for i in range(6):
        box = (64, 64, 128, 128)
        with Image.open(DATA / "nuclei2d" / "imagesTr" / f"nuclei_{i:03d}_0000.png") as image:
            image.convert("RGB").crop(box).save(images / f"ISIC_{i:07d}.jpg")
        with Image.open(DATA / "nuclei2d" / "labelsTr" / f"nuclei_{i:03d}.png") as mask:
            white = mask.crop(box).point(lambda value: 255 * (value > 0))
            white.save(masks / f"ISIC_{i:07d}_segmentation.png")
    return root


def command(root: Path, runs: str, trial: str, *more: str) -> list[str]:
    folders = ("--data", f"isic2017={root / 'isic'}", "--work", str(root / "work"), "--out", str(root / "out"))
    options = ("--runs", runs, "--device", "cpu", "--trial", trial, "--every", "5", "--seconds", "500", *more)
    return [sys.executable, str(BENCHMARK), "run", *folders, *options]


def call(root: Path, runs: str, trial: str, *more: str) -> str:
    done = subprocess.run(command(root, runs, trial, *more), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def result(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / "out" / f"{name}.json").read_text())


def test_stock_a_changed_network_and_a_changed_trainer_are_trained_and_validated_once(root: Path) -> None:
    names = ("isic2017-stock", "isic2017-m-dstate8", "isic2017-fold1-m-ema")
    # a second name of the first one is no run of its own
    said = call(root, ",".join((*names, "isic2017-fold0-stock")), "1x2")
    assert "finished: 3 of 3" in said
    results = {name.removeprefix("isic2017-"): result(root, name) for name in names}
    for name, found in results.items():
        assert found["state"] == "finished"
        assert found["fold"] == name.startswith("fold1")
        assert found["trial"] == [1, 2]
        assert found["epochs_done"] == len(found["pseudo_dice"]) == len(found["train_losses"]) == 1
        assert len(found["val_losses"]) == 1
        assert 0 <= found["dice"]["mean"] <= 1
        assert list(found["dice"]["per_class"]) == ["lesion"]
        assert found["dice"]["cases"] == (1 if found["fold"] else 2)  # of nnU-Net's split of six cases
        assert found["epoch_seconds"] > 0
        assert found["prediction"]
        assert found["versions"]["nnunetv2"].startswith("2.")
        assert found["batch_size"] >= 2
        assert found["augmentation_processes"] >= 1
        assert len(found["patch_size"]) == 2
    assert (results["stock"]["network"], results["stock"]["slicing"]) == ("PlainConvUNet", None)
    assert (results["fold1-m-ema"]["network"], results["fold1-m-ema"]["slicing"]) == ("SliceMambaUNet", "2x4")
    # a state of 8 in place of 16 has fewer parameters
    assert results["m-dstate8"]["parameters"] < results["fold1-m-ema"]["parameters"]
    raw = root / "work" / "nnUNet_preprocessed" / "Dataset017_ISIC2017"
    assert {file.stem for file in raw.glob("*Plans*.json")} == {
        *("nnUNetPlans", "nnUNetSliceMambaMPlans", "nnUNetSliceMambaMPlans_m_dstate8")
    }
    # all of them read the same data
    assert [folder.name for folder in raw.glob("nnUNet*_2d")] == ["nnUNetPlans_2d"]

    before = {file: file.stat().st_mtime_ns for file in (root / "work").rglob("*") if file.is_file()}
    again = call(root, ",".join(names), "1x2")
    assert again.count("finished before") == 3
    assert {file: file.stat().st_mtime_ns for file in (root / "work").rglob("*") if file.is_file()} == before


def test_an_interrupted_run_is_recorded_as_unfinished_and_goes_on_to_its_end(root: Path) -> None:
    name, trial, state = "isic2017-m-ema", "8x1", root / "work" / "trial_8x1" / "isic2017-m-ema" / "state.json"
    process = subprocess.Popen(command(root, name, trial), stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    # a checkpoint is written every five epochs
    while not state.is_file() or json.loads(state.read_text()).get("epochs_done", 0) < 6:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    stopped = result(root, name)
    assert stopped["state"] == "unfinished"
    assert 6 <= stopped["epochs_done"] < 8
    assert stopped["epochs"] == 8
    assert stopped["dice"] is None
    call(root, name, trial)
    found = result(root, name)
    assert found["state"] == "finished"
    assert found["epochs_done"] == 8
    assert found["pseudo_dice"][:5] == stopped["pseudo_dice"][:5]  # it went on, and did not begin anew
    assert found["earlier"][-1]["state"] == "unfinished"


def test_a_run_whose_plans_cannot_be_made_fails_with_the_reason_and_alone(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "more.json"
    planner = {"command": ["slicemamba", "plan", "--no-such-option"], "plans_name": "nnUNetNonePlans"}
    file.write_text(json.dumps([{"name": "none", "planner": planner, "prediction": "it cannot be planned"}]))
    runs = "isic2017-none,isic2017-m"
    done = subprocess.run(
        command(root, runs, "1x2", "--candidates", str(file), "--parallel", "1"), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "to do: isic2017-none" in done.stdout
    failed = result(root, "isic2017-none")
    assert failed["state"] == "failed"
    assert "no plans nnUNetNonePlans" in failed["failure"][0]
    assert "--no-such-option" in failed["failure"][0]
    assert result(root, "isic2017-m")["state"] == "finished"


def test_a_supernet_is_searched_and_what_needs_it_waits_for_it(root: Path) -> None:
    runs = "isic2017-m-searched,isic2017-m-inherit,isic2017-m-supernet"
    said = call(root, runs, "1x3")
    assert "finished: 3 of 3" in said
    supernet, searched, inherit = (result(root, f"isic2017-m-{name}") for name in ("supernet", "searched", "inherit"))
    assert supernet["network"] == "SliceMambaSupernet"
    assert supernet["search"]["how_chosen"] == "search"
    assert supernet["search_seconds"] > 0
    slicing = tuple(map(tuple, supernet["search"]["slicing"]))
    for found in (searched, inherit):
        assert found["network"] == "SliceMambaUNet"
        assert found["search"] is None
        assert found["supernet"] == "m-supernet"
        log = (root / "work" / "trial_1x3" / found["name"] / "log.txt").read_text()
        assert f"(search): {slicing}" in log
        assert ("inherited from the supernet" in log) == (found is inherit)
    # the weights are gone with --work; the slicing is kept
    shutil.rmtree(root / "work" / "trial_1x3")
    (root / "out" / "isic2017-m-searched.json").unlink()
    again = call(root, "isic2017-m-searched", "1x3")
    assert "m-supernet" not in again
    log = (root / "work" / "trial_1x3" / "isic2017-m-searched" / "log.txt").read_text()
    assert f"(search): {slicing}" in log
