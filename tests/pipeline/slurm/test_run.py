"""`slicemamba run --launcher slurm`: what it submits and says, with plans and without, and what refuses it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings
from nnunetv2_slicemamba.pipeline.graph import steps_of
from nnunetv2_slicemamba.pipeline.preparing import Planning, draw_folds, named_selections, planning_step
from nnunetv2_slicemamba.pipeline.run_folder import RUN_JSON, RunFolder
from nnunetv2_slicemamba.pipeline.slurm import job
from nnunetv2_slicemamba.pipeline.slurm.job import StepJob
from nnunetv2_slicemamba.pipeline.step import Command, Finished
from tests.cli.commands import Ended, called
from tests.pipeline.slurm.fake_slurm import FakeSlurm

PLANS, FINAL = "nnUNetSliceMambaSPlans", "SliceMambaTrainer_1epoch"
FOLDS = ("-d", "901", "-c", "2d", "-f", "0", "1", "-p", PLANS)
RUN = ("run", *FOLDS, "--size", "S", "-tr", FINAL, "--search", "--predict")
ON_SLURM = ("--launcher", "slurm", "--partition", "gpu", "--time", "12:00:00", "--account", "lab7")


@pytest.fixture
def folder(workspace: Path) -> RunFolder:
    raw = workspace / "nnUNet_raw" / "Dataset901_Disks"
    shutil.copytree(raw / "imagesTr", raw / "imagesTs")
    return RunFolder(workspace / "nnUNet_results" / "Dataset901_Disks" / "steps" / f"{FINAL}__{PLANS}__2d")


def rows(ended: Ended) -> dict[str, list[str]]:
    """Cells of a shown table by their first one."""
    found = [[cell.strip() for cell in row.split("│")[1:-1]] for row in ended.out.splitlines() if row.startswith("│")]
    return {cells[0]: cells[1:] for cells in found}


def test_the_command_ends_after_submission_and_says_how_to_see_and_cancel(
    slurm: FakeSlurm, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    ended = called(*RUN, *ON_SLURM)
    assert ended.code == 0, ended.err
    assert rows(ended)["fold 1, search"] == ["105", "afterok:104"]
    assert rows(ended)["predict"] == ["107", "afterany:103:106"]
    assert "plan" not in rows(ended)
    assert "See them: slicemamba status -d Dataset901_Disks\n" in ended.out
    assert "End them: slicemamba cancel -d Dataset901_Disks\n" in ended.out
    first = slurm.submitted["101"]
    assert (first["partition"], first["account"], first["gpus-per-node"]) == ("gpu", "lab7", "1")
    # the folds, which trainings at once would each draw
    assert len(list((folder.path.parents[3] / "nnUNet_preprocessed").glob("*901*/splits_final.json"))) == 1

    slurm.queue("101|RUNNING|None|n7", "102|PENDING|Dependency|", "104|PENDING|Priority|")
    shown = called("status", "-d", "901")
    assert [rows(shown)[name][0] for name in ("fold 0, supernet", "fold 0, search", "fold 1, supernet")] == [
        *("running", "waiting", "queued")
    ]
    assert rows(shown)["fold 0, supernet"][4] == "n7"
    assert "Jobs of SLURM run it since " in shown.out
    for again in ((), ON_SLURM):
        ended = called(*RUN, *(again or ("-device", "cpu", "--at-once", "2")))
        assert ended.code == 2
        assert "3 jobs of SLURM run or wait for" in ended.message
    slurm.says("squeue_fails", "Unable to contact slurm controller")
    assert (
        "This is what files tell; SLURM has not been asked: squeue fails: Unable" in called("status", "-d", "901").out
    )


def test_without_plans_a_job_makes_them_and_the_others_follow_it(slurm: FakeSlurm, folder: RunFolder) -> None:
    (preprocessed,) = (folder.path.parents[3] / "nnUNet_preprocessed").glob("Dataset901*")
    shutil.rmtree(preprocessed)
    ended = called(*RUN, *ON_SLURM, "--holdout", "0.5", "--search-nodes", "2", "-q")
    assert ended.code == 0, ended.err
    assert "slicemamba " not in ended.out, "what to type next is left out"
    assert rows(ended)["plan"] == ["101", ""]
    assert rows(ended)["fold 0, supernet"] == ["102", "afterok:101"]
    assert rows(ended)["fold 1, supernet"] == ["105", "afterok:101"]
    assert "gpus-per-node" not in slurm.submitted["101"]
    assert [slurm.submitted[job]["nodes"] for job in ("102", "103", "104")] == ["1", "2", "1"]
    asked = RUN_JSON.read(folder.file)
    planning = Planning(**asked["planning"])
    assert planning == Planning("S", "paper", 8.0, 0.5)
    needed = planning_step(named_selections("901", "2d", ["0", "1"], PLANS), planning).look()
    assert isinstance(needed, Command)
    assert needed.arguments[:5] == ("plan", "-d", "Dataset901_Disks", "--size", "S")
    assert called("status", "-d", "901").code == 0


def test_a_baselines_jobs_are_its_trainings_and_what_follows_them(slurm: FakeSlurm, folder: RunFolder) -> None:
    (file,) = (folder.path.parents[3] / "nnUNet_preprocessed").glob(f"Dataset901*/{PLANS}.json")
    plans = json.loads(file.read_text().replace("SliceMambaUNet", "PlainConvUNet")) | {"plans_name": "nnUNetPlans"}
    file.with_name("nnUNetPlans.json").write_text(json.dumps(plans))
    baseline = ("run", "-d", "901", "-c", "2d", "-f", "0", "1", "-tr", "nnUNetTrainer_20epochs", "--predict")
    ended = called(*baseline, *ON_SLURM)
    assert ended.code == 0, ended.err
    assert list(rows(ended)) == ["fold 0, training", "fold 1, training", "predict", "report"]
    begun = folder.path.with_name("nnUNetTrainer_20epochs__nnUNetPlans__2d")
    # the second is the name of a job that an earlier version submitted
    for name in ("fold_1_training", "fold_1_final"):
        step = StepJob(str(begun), name, {}, 60).step_now(RUN_JSON.read(RunFolder(begun).file), [])
        assert step.name == "fold_1_training"
    needed = step.look()
    assert isinstance(needed, Command)
    assert needed.arguments[:7] == ("Dataset901_Disks", "2d", "1", "-tr", "nnUNetTrainer_20epochs", "-p", "nnUNetPlans")
    assert called("status", "-d", "901").code == 0
    # what is missing is refused before a job is submitted, and its step is not a plan of ours
    number = len(slurm.submitted)
    next(file.parent.glob("*_2d/*.pkl")).unlink()
    slurm.queue()  # none of them is left
    ended = called(*baseline, *ON_SLURM)
    assert ended.code == 2
    assert "lacks 1 of 5 training cases" in ended.message
    assert len(slurm.submitted) == number
    planning = steps_of(RUN_JSON.read(RunFolder(begun).file))[0].look()
    assert isinstance(planning, Command)
    assert (planning.name, planning.arguments[2:4]) == ("nnUNetv2_preprocess", ("-plans_name", "nnUNetPlans"))


def test_what_was_planned_is_told_from_what_was_half_planned(folder: RunFolder) -> None:
    selections = named_selections("901", "2d", ["all", "1"], PLANS)
    selection, planning = selections[0], Planning("S", "paper", 8.0)
    step = planning_step(selections, planning)
    splits = selection.preprocessed_folder / "splits_final.json"
    splits.unlink(missing_ok=True)
    assert isinstance(step.look(), Command)
    assert isinstance(planning_step(selections[:1], planning).look(), Finished)  # -f all has no split
    settings = RunSettings(FINAL, "SliceMambaSupernetTrainer_1epoch", "cpu", search=False)
    draw_folds(selections[:1], settings)
    assert not splits.is_file()
    draw_folds(selections, settings)
    assert isinstance(step.look(), Finished)
    next(selection.preprocessed_folder.glob("*_2d/*.pkl")).unlink()
    assert isinstance(step.look(), Command)


def test_the_steps_of_all_folds_take_the_folds_that_there_are(
    slurm: FakeSlurm, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert called(*RUN, *ON_SLURM).code == 0
    asked, told = RUN_JSON.read(folder.file), []
    monkeypatch.setattr(job, "is_finished", lambda step: step.fold == "1")
    needed = StepJob(str(folder.path), "predict", {}, 60).step_now(asked, told).look()
    assert isinstance(needed, Command)
    assert needed.makes is not None
    assert needed.makes.name == "folds_1"
    assert " -f 1 -device" in " ".join(needed.arguments)
    assert told == ["with fold 1 alone: the others are not trained and validated"]
    monkeypatch.setattr(job, "is_finished", lambda step: False)
    with pytest.raises(RuntimeError, match="no fold is trained and validated"):
        StepJob(str(folder.path), "predict", {}, 60).step_now(asked, told)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*ON_SLURM, "--gpus", "2"), "--gpus, --per-gpu and --at-once are for this machine"),
        ((*ON_SLURM, "-device", "mps"), "device 'mps' is none of a cluster's nodes; give cuda or cpu"),
        ((*ON_SLURM, "-f", "x"), "fold 'x' does not exist"),
        (("--partition", "gpu"), "--partition 'gpu' needs --launcher slurm"),
        (("--search-nodes", "2"), "--search-nodes '2' needs --launcher slurm"),
        ((*ON_SLURM, "--search-nodes", "2", "--no-search"), "--search-nodes 2 is for searches, and this run has none"),
    ],
)
def test_what_does_not_go_together_is_refused(
    slurm: FakeSlurm, folder: RunFolder, options: tuple[str, ...], message: str
) -> None:
    run = [word for word in RUN if "--no-search" not in options or word != "--search"]
    ended = called(*run, *(word for word in options if word != "--no-search"))
    assert ended.code == 2
    assert message in ended.message
    assert slurm.submitted == {}
