"""`slicemamba compare --at-once` ends where trainings one after another end."""

import json
import sys

import pytest

from nnunetv2_slicemamba.pipeline import at_once
from tests.cli.commands import called
from tests.comparison.comparison_workspace import DATASET, calls
from tests.comparison.stand_in_job import run_stand_in_training

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="submitit needs Linux or macOS")
ARMS = ("--arms", "2x2,4x4")


def states(*options: str) -> dict[str, str]:
    """Training -> its state, as `slicemamba status` shows them."""
    ended = called("status", "-d", DATASET, *options)
    assert ended.code == 0, ended.err
    cells = [[cell.strip() for cell in row.split("│")] for row in ended.out.splitlines() if row.startswith("│")]
    return {row[1]: row[2] for row in cells}


def test_trainings_at_once_fail_alone_continue_and_end_as_those_in_a_row(run, root, folder, monkeypatch):
    monkeypatch.setattr(at_once, "run_job", run_stand_in_training)
    monkeypatch.setenv("STAND_IN_ENDS", "checkpoint")
    code, said = run("compare", *ARMS, "--at-once", "2")
    assert code == 2
    assert "2 of 2 steps failed" in said
    assert "2x2, repeat 0: 'nnUNetv2_train" in said
    assert f"log {folder}/steps/2x2_0/" in said
    assert states() == {"2x2, repeat 0": "failed", "4x4, repeat 0": "failed"}
    monkeypatch.delenv("STAND_IN_ENDS")
    code, said = run("compare", *ARMS, "--at-once", "2")
    assert code == 0, said
    assert sorted(calls(root)) == ["2x2/repeat_0", "2x2/repeat_0 --c", "4x4/repeat_0", "4x4/repeat_0 --c"]
    assert "2x2 in all 4" in said
    written = (folder / "comparison.json").read_text()
    assert all(arm["dice_mean"] > 0 for arm in json.loads(written)["arms"])
    code, said = run("compare", *ARMS)
    assert code == 0, said
    assert "2 finished" in said
    assert (folder / "comparison.json").read_text() == written
    assert len(calls(root)) == 4
    assert states() == states("-o", str(folder)) == dict.fromkeys(["2x2, repeat 0", "4x4, repeat 0"], "finished")
    assert f"comparison in {folder}: no process runs it" in called("cancel", "-d", DATASET).out


def test_places_are_checked_before_anything_is_written(run, folder):
    code, said = run("compare", *ARMS, "--gpus", "2")
    assert code == 2
    assert "--gpus 2 needs -device cuda" in said
    assert not folder.exists()


def test_what_runs_nowhere_is_told(root):
    ended = called("status", "-d", DATASET, "-o", str(root / "elsewhere"))
    assert ended.code == 2
    assert "elsewhere has no run with several steps at once" in ended.message
