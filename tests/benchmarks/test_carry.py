"""Tests of the packer of unfinished trainings: what comes out is what went in, and torn parts are noticed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import carry
import numpy as np
import pytest
import torch

MODEL = "nnUNet_results/Dataset701_a/nnUNetTrainer__nnUNetPlans__2d/fold_0"


def run(work: Path, name: str, epochs: int, checkpoint: str, size: int = 100_001) -> Path:
    """A training's folder with a checkpoint of random numbers, as accuracy.py leaves it; returns the checkpoint."""
    folder = work / "runs" / name
    (folder / MODEL).mkdir(parents=True)
    (folder / "notes.json").write_text(json.dumps({"epochs": {"seconds": [1.0] * epochs}}))
    numbers = np.random.default_rng(epochs).normal(size=size // 4 + 1).astype(np.float32)
    (folder / MODEL / checkpoint).write_bytes(numbers.tobytes()[:size])
    (folder / MODEL / "checkpoint_best.pth").write_bytes(b"not needed")
    return folder / MODEL / checkpoint


def test_unfinished_trainings_come_out_as_they_went_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, parts, other = (tmp_path / name for name in ("work", "parts", "other"))
    files = [run(work, "a", 5, "checkpoint_latest.pth"), run(work, "b", 20, "checkpoint_final.pth")]
    done = run(work, "done", 20, "checkpoint_final.pth")
    (done.parent / "validation").mkdir()
    (done.parent / "validation" / "summary.json").write_text("{}")
    assert carry.main(["pack", str(work), str(parts), "--part", "0.03"]) == 0
    (folder,) = parts.iterdir()
    assert all(file.stat().st_size <= 0.03 * carry.MIB for file in folder.iterdir())
    # float32 numbers lose a part of their exponents
    assert sum(file.stat().st_size for file in folder.iterdir()) < 0.92 * 2 * 100_001
    assert carry.main(["unpack", str(parts), str(other)]) == 0
    notes = [work / "runs" / name / "notes.json" for name in "ab"]
    found = sorted(file.relative_to(other) for file in other.rglob("*") if file.is_file())
    assert found == sorted(file.relative_to(work) for file in (*files, *notes))
    assert all((other / file).read_bytes() == (work / file).read_bytes() for file in found)
    # what a machine has already is newer
    newer = other / files[0].relative_to(work)
    newer.write_bytes(b"newer")
    assert carry.unpack(parts, other) == []
    assert newer.read_bytes() == b"newer"
    assert carry.main(["pack", str(work), str(parts)]) == 2
    assert "is not empty: give a new folder" in capsys.readouterr().out


def test_a_torn_or_missing_part_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    run(tmp_path / "work", "a", 5, "checkpoint_latest.pth")
    carry.pack(tmp_path / "work", tmp_path / "parts", limit=60, part=0.03)
    last = max(file for file in (tmp_path / "parts" / "0").iterdir() if file.name != carry.INDEX)
    whole = last.read_bytes()
    last.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=rf"{last.name} is missing or torn; copy the parts again"):
        carry.unpack(tmp_path / "parts", tmp_path / "other")
    last.unlink()
    with pytest.raises(ValueError, match="missing or torn"):
        carry.unpack(tmp_path / "parts", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_every_folder_is_a_load_of_its_own_and_the_furthest_are_in_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, parts, other = (tmp_path / name for name in ("work", "parts", "other"))
    for name, epochs, size in (("early", 5, 100_001), ("late", 500, 100_001), ("huge", 50, 200_001)):
        run(work, name, epochs, "checkpoint_latest.pth", size)
    assert carry.main(["pack", str(work), str(parts), "--limit", "0.1"]) == 1
    assert re.search(r"no room for huge, which has 0\.2 MiB", capsys.readouterr().out)
    assert all(sum(file.stat().st_size for file in folder.iterdir()) < 0.11 * carry.MIB for folder in parts.iterdir())
    (parts / "1").rename(tmp_path / "later")
    assert {file.split("/")[1] for file in carry.unpack(parts, other)} == {"late"}
    (tmp_path / "later").rename(parts / "1")
    assert {file.split("/")[1] for file in carry.unpack(parts, other)} == {"early"}
    with pytest.raises(ValueError, match=r"holds no folder with index\.json"):
        carry.unpack(work, other)


def test_finished_models_come_without_the_optimisers_state(tmp_path: Path) -> None:
    checkpoint = run(tmp_path / "work", "a", 20, "checkpoint_final.pth")
    weights = {"w": torch.arange(1000.0)}
    state = {"state": {0: {"momentum_buffer": torch.ones(1000)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    torch.save({"network_weights": weights, "optimizer_state": state, "current_epoch": 20}, checkpoint)
    (checkpoint.parent / "validation").mkdir()
    for file in (checkpoint.parent / carry.SUMMARY, checkpoint.parents[1] / "plans.json"):
        file.write_text("{}")
    assert carry.trainings(tmp_path / "work", finished=False) == []
    assert carry.main(["pack", str(tmp_path / "work"), str(tmp_path / "parts"), "--finished"]) == 0
    carry.unpack(tmp_path / "parts", tmp_path / "other")
    found = tmp_path / "other" / checkpoint.relative_to(tmp_path / "work")
    content = torch.load(found, weights_only=True)
    assert torch.equal(content["network_weights"]["w"], weights["w"])
    assert content["optimizer_state"] == {"state": {}, "param_groups": state["param_groups"]}
    assert (found.parents[1] / "plans.json").is_file()
    assert (found.parent / carry.SUMMARY).is_file()
