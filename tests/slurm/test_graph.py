"""The demo's whole graph on a real cluster: preempted, warned, cancelled, on a node that goes down, and continued.

Nothing that is finished is lost, and the end is that of a run that nothing interrupted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image

from nnunetv2_slicemamba.common.nnunet_files import SUMMARY_JSON
from nnunetv2_slicemamba.demo.layout import DATASETS, lay_out
from nnunetv2_slicemamba.pipeline.run_folder import RUN_JSON
from nnunetv2_slicemamba.planning.sizes import plans_name_of
from tests.conftest import use_folders
from tests.slurm.cluster import said, told, wait_until
from tests.trainers.short_trainings import assert_same

DATASET = DATASETS["2d"].folder_name
SUPERNET, FINAL, PLANS = "SliceMambaSupernetTrainer_1epoch", "SliceMambaTrainer_demo", plans_name_of("S", "hybrid")
RUN = (
    *("run", "-d", "501", "-c", "2d", "-f", "0", "1", "--size", "S", "--network", "hybrid"),
    *("--gpu-memory", "0.3", "-tr", FINAL),
    *("--supernet-trainer", SUPERNET, "--population", "3", "--generations", "0", "-device", "cpu", "--predict"),
)
ON_SLURM = ("--launcher", "slurm", "--partition", "low", "--time", "30", "--search-nodes", "2")
LONG = 3600.0  # seconds, for what takes as long as the machine needs


def slicemamba(*arguments: str, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
    """A command as a user calls it, with its output."""
    call = [str(python), "-m", "nnunetv2_slicemamba", *arguments]
    variables = {**os.environ, "COLUMNS": "130"}
    return subprocess.run(call, capture_output=True, text=True, check=False, env=variables)


def states() -> dict[str, str]:
    """Step -> its state, as `slicemamba status` shows them."""
    ended = slicemamba("status", "-d", "501")
    assert ended.returncode == 0, ended.stderr
    rows = [row.split("│") for row in ended.stdout.splitlines() if row.startswith("│")]
    return {row[1].strip(): row[2].strip() for row in rows}


class Run:
    """The run of a workspace, whose steps lie in nnUNet_results."""

    def __init__(self, root: Path) -> None:
        self.results = root / "nnUNet_results" / DATASET
        self.steps = self.results / "steps" / f"{FINAL}__{PLANS}__2d"

    def job(self, step: str) -> str:
        """Number of a step's job."""
        return RUN_JSON.read(self.steps / "run.json")["jobs"][step]

    def fold(self, trainer: str, fold: int) -> Path:
        return self.results / f"{trainer}__{PLANS}__2d" / f"fold_{fold}"

    def epochs(self, fold: int) -> int:
        """Epochs that a fold's final training has ended."""
        logs = self.fold(FINAL, fold).glob("training_log_*.txt")
        return sum(log.read_text().count("Epoch time:") for log in logs)

    def log(self, step: str) -> str:
        return (self.steps / step / f"{self.job(step)}_0_log.out").read_text()


def state(job: str) -> str:
    """SLURM's word for the state of a job."""
    return said("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").strip()


def hold(job: str) -> None:
    """Waits until a job is queued again, and keeps it there."""
    wait_until(lambda: state(job) == "PENDING", 180)
    told("scontrol", "hold", job)


def start(job: str) -> None:
    """Lets a held job begin, without the two minutes that SLURM lets it wait."""
    told("scontrol", "release", job)
    said("scontrol", "update", f"jobid={job}", "starttime=now")  # which fails if they are over, and it has begun


def has_processes(job: str) -> bool:
    """Whether a node of this machine still ends a job."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"slurmstepd: [{job}." in file.read_text(errors="replace"):
                return True
    return False


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folders with crops of the demo's images."""
    use_folders(tmp_path, monkeypatch)
    lay_out(DATASETS["2d"], tmp_path / "nnUNet_raw")
    for file in (tmp_path / "nnUNet_raw").rglob("*.png"):
        image = Image.open(file)
        image.crop((0, 0, 64, 64)).save(file)
    for name, value in {"SLICEMAMBA_SEED": "3", "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}.items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    slicemamba("cancel", "-d", "501")


@pytest.mark.timeout(4 * LONG)
def test_an_interrupted_graph_ends_as_one_that_nothing_interrupts(
    cluster: None, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(root)
    ended = slicemamba(*RUN, *ON_SLURM)
    assert ended.returncode == 0, ended.stderr
    assert "slicemamba status -d" in ended.stdout
    assert states()["fold 1, search"] == "waiting"
    refused = slicemamba(*RUN, "--at-once", "2")
    assert refused.returncode == 2
    assert "10 jobs of SLURM run or wait" in refused.stderr

    # a search takes both nodes, so that no training may begin before it
    told("scontrol", "hold", run.job("fold_0_training"))
    wait_until(lambda: state(run.job("fold_1_search")) == "COMPLETED", LONG)
    assert "$ torchrun --nnodes 2 --node-rank 0" in run.log("fold_1_search")
    told("scontrol", "release", run.job("fold_0_training"))

    # preempted by jobs of another partition, both folds' trainings save and wait
    wait_until(lambda: min(run.epochs(0), run.epochs(1)) >= 1, LONG)
    kept = {fold: (run.fold(SUPERNET, fold) / "checkpoint_final.pth").stat().st_mtime_ns for fold in (0, 1)}
    finals = [run.job("fold_0_training"), run.job("fold_1_training")]
    (root / "urgent").mkdir()
    urgent = ["sbatch", "--partition=high", "--nodes=2", "--exclusive", f"--output={root}/urgent/%j", "--wrap=sleep 5"]
    told(*urgent)
    wait_until(lambda: all(state(job) == "PENDING" for job in finals), 180)
    found = states()
    assert [found[f"fold {fold}, training"] for fold in (0, 1)] == ["requeued", "requeued"]
    assert found["predict"] == "waiting"
    for job in finals:
        hold(job)

    # the node of one goes down, and comes back
    start(finals[1])
    wait_until(lambda: state(finals[1]) == "RUNNING", 180)
    node = said("squeue", "--noheader", f"--jobs={finals[1]}", "--format=%N").strip()
    wait_until(lambda: run.epochs(1) >= 2, LONG)
    told("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    # SLURM starts no second copy of a job on a node where the first one is still ending
    hold(finals[1])
    wait_until(lambda: not has_processes(finals[1]), 180)
    said("scontrol", "update", f"nodename={node}", "state=resume")  # which fails if it has come back by itself
    wait_until(lambda: said("sinfo", "--noheader", f"--nodes={node}", "--partition=low", "--format=%t") == "idle\n", 60)

    # the other one is warned of the end of its time
    start(finals[0])
    wait_until(lambda: run.epochs(0) >= 2, LONG)
    told("scancel", "--signal=USR2", finals[0])
    hold(finals[0])
    for job in finals:
        start(job)
    wait_until(lambda: {state(job) for job in finals} == {"RUNNING"}, 180)
    assert all(" --c" in run.log(f"fold_{fold}_training") for fold in (0, 1))

    # the whole run is cancelled, and continued by the same command
    ended = slicemamba("cancel", "-d", "501")
    assert f"ended. To go on: slicemamba {' '.join(RUN[:5])}" in ended.stdout, ended.stderr
    found = states()
    assert [found["fold 0, search"], found["fold 0, training"], found["fold 1, training"], found["report"]] == [
        *("finished", "stopped", "stopped", "waiting")
    ]
    ended = slicemamba(*RUN, *ON_SLURM)
    assert ended.returncode == 0, ended.stderr
    assert "supernet" not in ended.stdout
    wait_until(lambda: set(states().values()) == {"finished"}, LONG)
    assert kept == {fold: (run.fold(SUPERNET, fold) / "checkpoint_final.pth").stat().st_mtime_ns for fold in (0, 1)}
    assert "nothing was submitted" in slicemamba(*RUN, *ON_SLURM).stdout

    # the same on this machine, with nothing in its way
    other = root / "undisturbed"
    shutil.copytree(root / "nnUNet_preprocessed", other / "nnUNet_preprocessed")
    shutil.copytree(root / "nnUNet_raw", other / "nnUNet_raw")
    use_folders(other, monkeypatch)
    ended = slicemamba(*RUN, "--at-once", "2")
    assert ended.returncode == 0, ended.stderr
    same = Run(other)
    for fold in (0, 1):
        for trainer in (SUPERNET, FINAL):
            files = [one.fold(trainer, fold) / "checkpoint_final.pth" for one in (run, same)]
            assert_same(*(torch.load(file, weights_only=False) for file in files))
        summaries = [SUMMARY_JSON.read(one.fold(FINAL, fold) / "validation" / "summary.json") for one in (run, same)]
        assert summaries[0]["mean"] == summaries[1]["mean"]
    predicted = [one.results / f"{FINAL}__{PLANS}__2d" / "predictions" / "folds_0_1" for one in (run, same)]
    names = sorted(file.name for file in predicted[0].glob("*.png"))
    assert len(names) == 12
    assert all((predicted[0] / name).read_bytes() == (predicted[1] / name).read_bytes() for name in names)


@pytest.mark.timeout(LONG)
def test_a_node_without_the_package_is_told_by_status_and_nothing_after_it_begins(cluster: None, root: Path) -> None:
    environment = root / "environment"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (environment / "lib").symlink_to(Path(sys.prefix) / "lib")
    shutil.copyfile(Path(sys.prefix) / "pyvenv.cfg", environment / "pyvenv.cfg")
    ended = slicemamba(*RUN, *ON_SLURM, "--sbatch", "hold", python=environment / "bin" / "python")
    assert ended.returncode == 0, ended.stderr
    assert states()["plan"] == "queued"
    shutil.rmtree(environment)
    jobs = RUN_JSON.read(Run(root).steps / "run.json")["jobs"]
    told("scontrol", "release", ",".join(jobs.values()))
    wait_until(lambda: state(jobs["report"]) == "CANCELLED", 300)
    shown = slicemamba("status", "-d", "501").stdout
    assert f"error: execve(): {environment}/bin/python: No such file or directory. Every node needs this" in shown
    assert states() == {name: "failed" if name in ("plan", "predict") else "waiting" for name in states()}
