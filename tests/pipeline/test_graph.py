"""The graph of a run: what follows what, what the steps after all folds need, and what a run's folder remembers."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_reading import JsonFileError
from nnunetv2_slicemamba.comparison.begun import begun_of
from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings
from nnunetv2_slicemamba.pipeline.graph import graph_of, read_run, run_folder, write_run
from nnunetv2_slicemamba.pipeline.step import Command, Finished, Step, made_whole, unfinished
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder
from nnunetv2_slicemamba.planning.selection import Selection, select

PLANS, SUPERNET, FINAL = "nnUNetSliceMambaSPlans", "SliceMambaSupernetTrainer_1epoch", "SliceMambaTrainer_1epoch"
SETTINGS = RunSettings(FINAL, SUPERNET, "cpu", ("--seed", "0"), predict=True)
SAID = {"command": "slicemamba run", "process": 1, "host": "here", "started": "now"}


@pytest.fixture
def selections(workspace: Path) -> list[Selection]:
    raw = workspace / "nnUNet_raw" / "Dataset901_Disks"
    for part in ("images", "labels"):
        shutil.copytree(raw / f"{part}Tr", raw / f"{part}Ts")
    return [select("901", "2d", fold, PLANS) for fold in ("0", "1")]


def by_name(steps: list[Step]) -> dict[str, Step]:
    return {step.name: step for step in steps}


def test_folds_do_not_wait_for_each_other_and_the_ensemble_for_all(selections: list[Selection]) -> None:
    steps = by_name(graph_of(selections, SETTINGS))
    assert steps["fold_1_supernet"].after == ()
    assert steps["fold_1_search"].after == ("fold_1_supernet",)
    assert steps["fold_1_training"].after == ("fold_1_search",)
    assert steps["predict"].after == ("fold_0_training", "fold_1_training")
    assert (steps["evaluate"].after, steps["report"].after) == (("predict",), ("evaluate",))
    assert len(graph_of(selections, replace(SETTINGS, predict=False))) == 6


def test_without_a_search_a_fold_is_its_training(selections: list[Selection]) -> None:
    graph = graph_of(selections, replace(SETTINGS, search=False, predict=False))
    assert [(step.name, step.after) for step in graph] == [("fold_0_training", ()), ("fold_1_training", ())]


def test_without_test_cases_only_the_report_is_left_and_without_truth_no_evaluation(
    selections: list[Selection], workspace: Path
) -> None:
    raw = workspace / "nnUNet_raw" / "Dataset901_Disks"
    shutil.rmtree(raw / "labelsTs")
    assert [step.name for step in graph_of(selections, SETTINGS)[6:]] == ["predict", "report"]
    shutil.rmtree(raw / "imagesTs")
    assert [step.name for step in graph_of(selections, SETTINGS)[6:]] == ["report"]


def test_predictions_appear_whole_and_are_made_anew_after_another_training(selections: list[Selection]) -> None:
    steps = by_name(graph_of(selections, SETTINGS))
    checkpoints = [FoldFolder(selection, FINAL).checkpoint for selection in selections]
    for file in checkpoints:
        file.parent.mkdir(parents=True)
        file.touch()
    for attempt in range(2):
        needed = steps["predict"].look()
        assert isinstance(needed, Command)
        assert needed.makes is not None
        assert needed.arguments[needed.arguments.index("-o") + 1] == str(unfinished(needed.makes))
        with pytest.raises(FileNotFoundError), made_whole(needed):
            unfinished(needed.makes).joinpath("no folder", "file").touch()
        assert needed.makes.is_dir() == bool(attempt)
        with made_whole(needed):
            unfinished(needed.makes).mkdir(parents=True)
            for case in range(5):
                (unfinished(needed.makes) / f"case_{case}.png").touch()
            (unfinished(needed.makes) / "predict_from_raw_data_args.json").touch()
        assert isinstance(steps["predict"].look(), Finished)
        if not attempt:  # a fold is trained again later
            os.utime(needed.makes / "predict_from_raw_data_args.json", (1, 1))
    (needed.makes / "case_3.png").unlink()
    assert isinstance(steps["predict"].look(), Command)


def test_a_run_is_read_again_from_its_folder(selections: list[Selection], workspace: Path) -> None:
    (workspace / "nnUNet_results" / "Dataset901_Disks").mkdir()
    with pytest.raises(InputError, match="has no run with several steps at once"):
        begun_of("901")
    folder = run_folder(selections, SETTINGS)
    folder.path.mkdir(parents=True)
    write_run(folder, selections, SETTINGS, **SAID)
    assert begun_of("901") == begun_of("901", "2d") == [folder]
    steps, asked = read_run(folder)
    assert [step.name for step in steps] == [step.name for step in graph_of(selections, SETTINGS)]
    assert steps[0].look() == graph_of(selections, SETTINGS)[0].look()
    assert steps[1].look() == graph_of(selections, SETTINGS)[1].look()
    assert asked["command"] == "slicemamba run"
    # runs of before 0.2 do not say that they search: all did
    older = json.loads(folder.file.read_text())
    del older["settings"]["search"]
    folder.file.write_text(json.dumps(older))
    assert [step.name for step in read_run(folder)[0]] == [step.name for step in steps]
    with pytest.raises(InputError, match="has no run of configuration '3d_fullres'"):
        begun_of("901", "3d_fullres")
    folder.file.write_text(folder.file.read_text()[:40])
    with pytest.raises(JsonFileError, match="run.json is no JSON"):
        read_run(folder)
