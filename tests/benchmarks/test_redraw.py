"""Tests of new splits of data that have one."""

from __future__ import annotations

import json
from pathlib import Path

import accuracy_data
import pytest
import redraw


def test_new_splits_have_the_old_sizes_and_cases_and_the_first_is_the_old_one(tmp_path: Path) -> None:
    split = {"train": [f"case{i}" for i in range(8)], "val": [f"case{i}" for i in range(8, 20)]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    assert redraw.main([str(tmp_path), "--folds", "3"]) == 0
    splits = accuracy_data.read_splits(tmp_path)
    assert splits is not None
    assert (len(splits), splits[0]) == (4, split)
    for new in splits:
        assert (len(new["train"]), len(new["val"])) == (8, 12)
        assert sorted(new["train"] + new["val"]) == sorted(split["train"] + split["val"])
    assert len({tuple(new["val"]) for new in splits}) == 4
    assert redraw.main([str(tmp_path), "--folds", "5"]) == 0
    # a fold stays what it is when more are drawn
    assert (accuracy_data.read_splits(tmp_path) or [])[:4] == splits


def test_the_cases_of_a_patient_stay_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [f"patient{i:03d}_frame{j:02d}" for i in range(9) for j in (1, 12)]
    split = {"train": cases[:12], "val": cases[12:]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    assert redraw.main([str(tmp_path), "--patient", r"patient\d+"]) == 0
    for new in accuracy_data.read_splits(tmp_path) or []:
        assert (len(new["train"]), len(new["val"])) == (12, 6)
        assert not {case[:10] for case in new["train"]} & {case[:10] for case in new["val"]}
    (tmp_path / "split.json").write_text(json.dumps({"train": cases[:11], "val": cases[11:]}))
    assert redraw.main([str(tmp_path), "--patient", r"patient\d+"]) == 2
    assert "such as 'patient005': leave --patient out" in capsys.readouterr().out
    assert redraw.main([str(tmp_path / "nothing")]) == 2
