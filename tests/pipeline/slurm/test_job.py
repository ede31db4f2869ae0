"""A job on its node: warned before the end of its time it saves and is queued again, and then goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import submitit

from nnunetv2_slicemamba.pipeline.slurm.nodes import part_of_node
from nnunetv2_slicemamba.pipeline.step import Command
from tests.pipeline.slurm.fake_slurm import FakeSlurm
from tests.pipeline.slurm.stand_in_work import StandInJob
from tests.pipeline.test_at_once import wait_for

VARIABLES = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "101", "SLURMD_NODENAME": "n1"}


class Node:
    """A node that runs job 101. folder: of the run."""

    def __init__(self, folder: Path, minutes: int, saves: bool = True) -> None:
        self.folder, self.records = folder, folder / "training"
        self.records.mkdir(parents=True)
        work = StandInJob(str(folder), "training", {"SLICEMAMBA_SEED": "3"}, minutes)
        work.saves = saves
        submission = submitit.helpers.DelayedSubmission(work)
        submission.set_timeout(minutes, 5)
        submission.dump(self.records / "101_submitted.pkl")

    def start(self, **variables: str) -> subprocess.Popen[str]:
        """The process that SLURM starts, in a group of its own with all that it starts."""
        call = [sys.executable, "-m", "submitit.core._submit", str(self.records)]
        log = (self.records / "101_0_log.out").open("a")
        return subprocess.Popen(
            call, env={**os.environ, **VARIABLES, **variables}, stdout=log, stderr=log, start_new_session=True
        )

    def at_work(self) -> bool:
        return (self.folder / "at_work").is_file()

    def record(self, name: str) -> dict:
        return json.loads((self.records / f"{name}.json").read_text())


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_warned_job_saves_and_goes_on_where_it_was(slurm: FakeSlurm, tmp_path: Path, number: int) -> None:
    node = Node(tmp_path / "run", minutes=60)
    process = node.start()
    wait_for(node.at_work)
    assert node.record("job")["place"] == "n1"
    assert not (node.records / "ended.json").exists()
    os.killpg(process.pid, number)  # SLURM sends it to all processes of a job
    assert process.wait(30) != 0
    # after SIGTERM, of preemption, SLURM queues the job by itself
    assert [call for call in slurm.called if "scontrol" in call] == (
        ["scontrol requeue 101"] if number == signal.SIGUSR2 else []
    )
    assert node.record("ended")["code"] == 143
    assert node.start().wait(30) == 0
    assert (node.folder / "made").read_text() == "saved"
    assert node.record("ended") | {"ended": ""} == {"job": "101", "code": 0, "message": "", "ended": ""}


def test_a_step_whose_time_is_too_short_to_get_on_fails_in_place_of_being_queued_for_ever(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    node = Node(tmp_path / "run", minutes=0, saves=False)
    process = node.start()
    wait_for(node.at_work)
    os.killpg(process.pid, signal.SIGUSR2)
    assert process.wait(30) == 1
    assert not any("scontrol" in call for call in slurm.called)
    assert "over before there was anything to go on from; give more with --time" in node.record("ended")["message"]


def test_each_node_of_a_search_runs_its_part_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"SLURM_JOB_NUM_NODES": "2", "SLURM_PROCID": "1", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}
    for name, value in {**VARIABLES, **told}.items():
        monkeypatch.setenv(name, value)
    whole = Command("slicemamba", ("search", "-d", "501", "-c", "2d"), {"SLICEMAMBA_SEED": "3"})
    part = part_of_node(whole, submitit.JobEnvironment(), "cuda")
    assert (part.name, part.variables) == ("torchrun", whole.variables)
    assert " ".join(part.arguments) == (
        "--nnodes 2 --node-rank 1 --nproc-per-node gpu --master-addr 10.0.0.7 --master-port 20101 "
        "-m nnunetv2_slicemamba.search -d 501 -c 2d"
    )
    monkeypatch.delenv("SLURM_LAUNCH_NODE_IPADDR")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "gpu[07-08]")
    assert " --nproc-per-node 1 --master-addr gpu07 " in " ".join(
        part_of_node(whole, submitit.JobEnvironment(), "cpu").arguments
    )


def test_a_warned_node_that_is_not_the_first_leaves_the_queue_and_the_steps_records_to_that_one(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    node = Node(tmp_path / "run", minutes=60)
    process = node.start(SLURM_PROCID="1", SLURM_JOB_NUM_NODES="2")
    wait_for(node.at_work)
    os.killpg(process.pid, signal.SIGUSR2)
    assert process.wait(30) == 0
    assert not any("scontrol requeue" in call for call in slurm.called)
    assert not (node.records / "job.json").exists()
    assert node.record("node_1/ended")["code"] == 143
