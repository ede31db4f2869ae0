"""States of submitted steps: of every word of SLURM, with and without a record of the job's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.folder_lock import FolderInUseError
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.pipeline.run_folder import RunFolder
from nnunetv2_slicemamba.pipeline.slurm_states import states_in_slurm
from nnunetv2_slicemamba.pipeline.states import StepState
from nnunetv2_slicemamba.pipeline.step import Finished, Step
from tests.pipeline.slurm.fake_slurm import FakeSlurm
from tests.pipeline.stand_in_job import stand_in_step

ENDED_WELL, STOPPED, BAD = 0, 143, 1


def state(
    slurm: FakeSlurm,
    tmp_path: Path,
    row: str,
    began: bool = True,
    code: int | None = None,
    log: str | None = "training",
    named: str = "fold_0_training",
) -> StepState:
    """State of one step whose job is 101. row: of squeue, without the number. code: recorded exit code.

    named: the step, in files.
    """
    folder = RunFolder(tmp_path / "steps" / "run")
    records = folder.path / named
    records.mkdir(parents=True, exist_ok=True)
    file = records / "101_0_log.out"
    if log is not None:
        file.write_text(f"{log}\nsrun: error: n1: task 0: Exited\n")
    if began:
        record = {"job": "101", "place": "n0", "log": str(file), "started": "2026-01-01T00:00:00+00:00", "command": "c"}
        write_json(records / "job.json", record)
    if code is not None:
        ended = {"job": "101", "code": code, "message": "why", "ended": "2026-01-01T00:01:00+00:00"}
        write_json(records / "ended.json", ended)
    slurm.queue(*([f"101|{row}"] if row else []))
    step = stand_in_step("fold_0_training", "", tmp_path / "made")
    (found,) = states_in_slurm([step], folder, {named: "101"})
    return found


@pytest.mark.parametrize(
    ("row", "began", "code", "expected", "place"),
    [
        ("PENDING|Dependency|", False, None, "waiting", ""),
        ("PENDING|Priority|", False, None, "queued", "(Priority)"),
        ("CONFIGURING|None|n1", False, None, "running", "n1"),
        ("RUNNING|None|n1", True, None, "running", "n1"),
        # its first attempt was stopped, and left its record
        ("PENDING|BeginTime|", True, STOPPED, "requeued", "(BeginTime)"),
        ("REQUEUE_HOLD|JobHeldAdmin|", True, None, "requeued", "(JobHeldAdmin)"),
        ("COMPLETING|None|n1", True, BAD, "failed", "n1"),
        ("FAILED|NonZeroExitCode|n1", True, BAD, "failed", "n0"),
        ("CANCELLED|None|n1", True, STOPPED, "stopped", "n0"),
        ("CANCELLED|None|n1", True, None, "stopped", "n0"),
        # a step that it needs has failed
        ("CANCELLED|DependencyNeverSatisfied|", False, None, "waiting", ""),
        ("", True, BAD, "failed", "n0"),
        ("", True, None, "stopped", "n0"),
        ("", False, None, "failed", ""),
    ],
)
def test_a_state_is_slurms_while_the_job_lives_and_then_the_records(
    slurm: FakeSlurm, tmp_path: Path, row: str, began: bool, code: int | None, expected: str, place: str
) -> None:
    found = state(slurm, tmp_path, row, began, code)
    assert (found.state, found.place, found.job) == (expected, place, "101")


def test_what_is_finished_is_so_by_its_files_whatever_slurm_says(slurm: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "made").touch()
    assert state(slurm, tmp_path, "NODE_FAIL|None|n0", code=ENDED_WELL).state == "finished"
    assert state(slurm, tmp_path, "").state == "finished"


def test_a_job_that_an_earlier_version_submitted_is_found_under_its_name(slurm: FakeSlurm, tmp_path: Path) -> None:
    found = state(slurm, tmp_path, "RUNNING|None|n1", named="fold_0_final")
    assert (found.step.name, found.state, found.place, found.job) == ("fold_0_training", "running", "n1", "101")


def test_a_step_that_has_ended_does_not_run_while_the_next_one_works_in_its_folder(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, *rest: object) -> Step:
        def look() -> Finished:
            raise FolderInUseError("a search works in it")

        return Step(name, "", name, (), look)

    monkeypatch.setattr("tests.pipeline.slurm.test_states.stand_in_step", refuse)
    assert state(slurm, tmp_path, "COMPLETED|None|n0", code=ENDED_WELL).state == "finished"
    assert state(slurm, tmp_path, "RUNNING|None|n0", code=BAD).state == "running"


def test_a_node_without_the_package_or_the_folder_is_told(slurm: FakeSlurm, tmp_path: Path) -> None:
    said = "ModuleNotFoundError: No module named 'nnunetv2_slicemamba'"
    without = state(slurm, tmp_path, "FAILED|NonZeroExitCode|n1", began=False, log=said)
    assert without.state == "failed"
    assert f"its job ended on node n1 before it began: {said}. Every node needs this package, in " in without.message
    log = tmp_path / "steps" / "run" / "fold_0_training" / "101_0_log.out"
    log.unlink()
    unshared = state(slurm, tmp_path, "FAILED|NonZeroExitCode|n1", began=False, log=None)
    assert f"before it began, and left no log. Every node must see its folder: {log}" in unshared.message


def test_what_ended_a_job_is_told_also_from_the_accounting_of_older_ones(slurm: FakeSlurm, tmp_path: Path) -> None:
    killed = state(slurm, tmp_path, "OUT_OF_MEMORY|None|n1")
    assert (killed.state, killed.message) == ("failed", "SLURM ended its job: OUT_OF_MEMORY (training)")
    slurm.says("sacct_fails", "")
    slurm.says("sacct_says", "101|CANCELLED by 0|n1\n")
    assert state(slurm, tmp_path, "").state == "stopped"
    slurm.says("sacct_says", "101|NODE_FAIL|n1\n")
    slurm.says("squeue_fails", "slurm_load_jobs error: Invalid job id specified")
    assert state(slurm, tmp_path, "").message == "SLURM ended its job: NODE_FAIL (training)"
