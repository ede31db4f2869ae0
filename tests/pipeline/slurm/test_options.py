"""Options of sbatch: what is given is handed on, what cannot be meant is refused before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.pipeline.slurm import options as module
from nnunetv2_slicemamba.pipeline.slurm.client import minutes_of
from nnunetv2_slicemamba.pipeline.slurm.options import refuse_unshared_folders, slurm_options
from tests.pipeline.slurm.fake_slurm import FakeSlurm


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        ("90", 90),
        ("90:01", 91),
        ("12:00:00", 720),
        ("1-12", 2160),
        ("1-00:30", 1470),
        ("2-0:0:1", 2881),
        *((wrong, None) for wrong in ("infinite", "", "-5", "1-", "1:2:3:4", "1h", "\N{SUPERSCRIPT TWO}")),
    ],
)
def test_times_are_read_as_sbatch_reads_them(time: str, minutes: int | None) -> None:
    assert minutes_of(time) == minutes


def test_what_is_given_is_handed_on_by_sbatchs_names(slurm: FakeSlurm) -> None:
    assert slurm_options("local", None, None, None, ()) is None
    found = slurm_options("slurm", "gpu", "2-00:00:00", "lab7", ("mem=64G", "--exclusive", "constraint=a100&nvlink"))
    assert found is not None
    assert found.minutes == 2880
    given = {"mem": "64G", "exclusive": True, "constraint": "a100&nvlink", "partition": "gpu", "account": "lab7"}
    assert found.sbatch == given
    assert not found.asks_for_gpu
    one = slurm_options("slurm", None, "60", None, ("gres=gpu:a100:1",))
    assert one is not None
    assert one.asks_for_gpu


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pbs", None, None, None, ()), "--launcher 'pbs' does not exist; give local"),
        (("local", "gpu", None, None, ()), "--partition 'gpu' needs --launcher slurm"),
        (("local", None, None, None, ("mem=1G",)), "--sbatch 'mem=1G' needs --launcher slurm"),
        (("slurm", "gpu", None, None, ()), "needs --time, the longest time of one job"),
        (("slurm", "gpu", "soon", None, ()), "--time 'soon' is no time; give HH:MM:SS"),
        (("slurm", "gpu", "2", None, ()), "--time '2' is too short; give at least 3 minutes"),
        (("slurm", "fast", "60", None, ()), "--partition 'fast' does not exist; give one that sinfo names: cpu, gpu"),
        (("slurm", None, "61", None, ()), "--time is 61 minutes; partition cpu allows at most 60"),
        (("slurm", "gpu", "60", None, ("array=0-3",)), "--sbatch 'array=0-3' is what the run decides"),
        (("slurm", "gpu", "60", None, ("nodes=2",)), "--sbatch 'nodes=2' is what the run decides"),
        (("slurm", "gpu", "60", None, ("account=lab7",)), "has an option of its own: give --account lab7"),
        (("slurm", "gpu", "60", None, ("-N 2",)), "--sbatch '-N 2' is no long option of sbatch"),
        (("slurm", "gpu", "60", None, ("mem=",)), "--sbatch mem has the value ''; give one line of text"),
        (("slurm", "gpu", "60", "lab\n#SBATCH --array=0-9", ()), "--account has the value .*; give one line of text"),
    ],
)
def test_what_cannot_be_meant_is_refused(slurm: FakeSlurm, arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        slurm_options(*arguments)


def test_a_machine_without_slurm_and_a_cluster_that_does_not_answer_are_told(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.says("sinfo_fails", "slurm_load_partitions: Unable to contact slurm controller (connect failure)")
    with pytest.raises(InputError, match="sinfo fails: slurm_load_partitions: Unable to contact"):
        slurm_options("slurm", "gpu", "60", None, ())
    slurm.says("sinfo_fails", "")
    slurm.says("sinfo_says", "cpu|1:00:00\n")
    with pytest.raises(InputError, match="no default partition; give --partition, one of cpu"):
        slurm_options("slurm", None, "60", None, ())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="--launcher slurm needs sbatch, which is not on the PATH"):
        slurm_options("slurm", "gpu", "60", None, ())


def test_folders_in_this_machines_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setattr(module, "_file_system", lambda folder: "tmpfs" if folder == tmp_path / "results" else "nfs4")
    with pytest.raises(InputError, match=r"nnUNet_results=.*/results is in this machine's memory \(tmpfs\)"):
        refuse_unshared_folders()
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    refuse_unshared_folders()
