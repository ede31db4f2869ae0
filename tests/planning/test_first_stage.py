"""A cascade's second stage is refused, before it is trained, where its first stage has not predicted all cases."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.planning.first_stage import require_first_stage
from nnunetv2_slicemamba.planning.selection import Selection, select

DATASET, PLANS, TRAINER = "Dataset901_Disks", "nnUNetSliceMambaSPlans", "SliceMambaTrainer_1epoch"


@pytest.fixture
def cascade(workspace: Path) -> Selection:
    """Fold 0, of two cases, of a second stage."""
    folder = workspace / "nnUNet_preprocessed" / DATASET
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["case_0"], "val": ["case_3"]}]))
    plans = json.loads((folder / f"{PLANS}.json").read_text())
    plans["configurations"]["low"] = dict(plans["configurations"]["2d"])
    plans["configurations"]["2d"]["previous_stage"] = "low"
    (folder / f"{PLANS}.json").write_text(json.dumps(plans))
    return select("901", "2d", "0", PLANS)


@pytest.mark.parametrize("ending", [".b2nd", ".npz"])
def test_all_cases_of_the_fold_need_a_prediction(cascade: Selection, workspace: Path, ending: str) -> None:
    folder = workspace / "nnUNet_results" / DATASET / f"{TRAINER}__{PLANS}__low" / "predicted_next_stage" / "2d"
    command = f"'nnUNetv2_train {DATASET} low FOLD -tr {TRAINER} -p {PLANS}' makes them, for every FOLD"
    told = f"2 of 2 cases have no prediction of the first stage in {folder}: case_0, case_3; {command}"
    with pytest.raises(InputError, match=re.escape(told)):
        require_first_stage(cascade, TRAINER)
    folder.mkdir(parents=True)
    (folder / f"case_0{ending}").touch()
    with pytest.raises(InputError, match="1 of 2 cases have no prediction .*: case_3;"):
        require_first_stage(cascade, TRAINER)
    (folder / f"case_3{ending}").touch()
    require_first_stage(cascade, TRAINER)
    with pytest.raises(InputError, match="3 of 5 cases have no prediction .*: case_1, case_2, case_4;"):
        require_first_stage(replace(cascade, fold="all"), TRAINER)
    require_first_stage(replace(cascade, configuration="low"), TRAINER)
