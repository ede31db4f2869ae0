"""Test of the benchmark of wide candidates from images to tables, on the CPU: a supernet, three searches, trainings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import results
import search_wide
from PIL import Image

from nnunetv2_slicemamba.demo.layout import DATA

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("accuracy")]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Fourteen crops of the shipped nuclei as images and masks."""
    folder = tmp_path / "cells"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i, file in enumerate(sorted((DATA / "nuclei2d" / "imagesTr").iterdir())[:14]):
        box = (64, 64, 128, 128)
        with Image.open(file) as image:
            image.convert("RGB").crop(box).save(folder / "images" / f"c{i}.png")
        with Image.open(DATA / "nuclei2d" / "labelsTr" / file.name.replace("_0000", "")) as mask:
            mask.crop(box).point(lambda value: 255 * (value > 0)).save(folder / "masks" / f"c{i}.png")
    split = {"train": [f"c{i}" for i in range(10)], "val": [f"c{i}" for i in range(10, 14)]}
    (folder / "split.json").write_text(json.dumps(split))
    return folder


def test_a_supernet_is_searched_and_what_was_found_is_trained_only_once(tmp_path: Path, cells: Path) -> None:
    out = tmp_path / "out"
    size = ("--population", "6", "--generations", "1", "--parts", "front", "--front", "2", "--random", "1")
    folders = ("--data", f"cells={cells}", "--work", str(tmp_path / "work"), "--out", str(out))
    options = ("--batch", "cells=2", "--budget", "1x2", "--device", "cpu", "--per-gpu", "1")
    command = [sys.executable, search_wide.__file__, *folders, *options, *size]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    arms = results.read("arms", out)
    assert [row["arm"] for row in arms if row["part"] == "front"] == ["front-01", "front-02"]
    assert {"searched", "fixed", "no-scan", "cheapest", "dice-alone"} < {row["arm"] for row in arms}
    assert {row["cases"] for row in arms} == {"2"}
    for row in arms:
        assert float(row["least_ms"]) <= float(row["step_ms"])
    runs = {row["candidate"]: row for row in results.read("runs", out)}
    assert runs.keys() == {"wide-supernet", "wide-front-01", "wide-front-02"}
    assert all(row["state"] == "finished" for row in runs.values())
    for row in (one for one in arms if one["part"] == "front"):
        run = runs[f"wide-{row['arm']}"]
        assert (run["slicing"], run["fitness"], run["start_from"]) == (row["slicing"], row["fitness"], row["supernet"])
    timed = {row["work"] for row in results.read("timings", out)}
    assert timed == {"wide, for front", "wide, for dice", "wide, for budget"}
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "work").rglob("*") if file.is_file()}
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "work").rglob("*") if file.is_file()} == before
