"""Steps as jobs: what follows what, with which options, and nothing half submitted."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.pipeline.at_once import only_run
from nnunetv2_slicemamba.pipeline.cancelling import cancel_run
from nnunetv2_slicemamba.pipeline.run_folder import RUN_JSON, RunFolder
from nnunetv2_slicemamba.pipeline.slurm.options import SlurmOptions
from nnunetv2_slicemamba.pipeline.slurm.submission import submit_run
from nnunetv2_slicemamba.pipeline.step import Command, Finished, Step
from tests.pipeline.slurm.fake_slurm import FakeSlurm
from tests.pipeline.test_equal import silent

OPTIONS = SlurmOptions(720, {"partition": "gpu", "mem": "64G", "exclusive": True, "cpus-per-task": "12"})
DONE = ("fold_1_supernet",)


def graph(done: tuple[str, ...] = DONE) -> list[Step]:
    """Two folds and the steps after them; those named in `done` are finished."""
    names = {"plan": ()}
    for fold in "01":
        names |= {f"fold_{fold}_supernet": ("plan",), f"fold_{fold}_training": (f"fold_{fold}_supernet",)}
    names |= {"predict": ("fold_0_training", "fold_1_training"), "report": ("predict",)}

    def look(name: str) -> Command | Finished:
        return Finished("") if name in (*done, "plan") else Command("slicemamba", ())

    found = []
    for name, after in names.items():
        fold = name.split("_")[1] if "_" in name else ""
        found.append(Step(name, fold, name.rpartition("_")[2], after, lambda name=name: look(name)))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "Dataset501_Nuclei" / "steps" / "run")
    settings = {"trainer": "", "supernet_trainer": "", "device": "", "search_arguments": []}
    settings |= {"npz": False, "predict": False}
    asked = {"dataset": "", "configuration": "", "plans_name": "", "folds": [], "settings": settings}
    said = {"command": "slicemamba run again", "process": 1, "host": "login1", "started": "now", "jobs": {}}
    made.path.mkdir(parents=True)
    write_json(made.file, {**asked, **said})
    return made


def test_steps_follow_what_they_need_and_those_of_all_folds_whatever_became_of_the_folds(
    slurm: FakeSlurm, folder: RunFolder
) -> None:
    submitted = submit_run(graph(), folder, OPTIONS, "cuda")
    jobs = {one.step.name: one.job for one in submitted}
    # not what is finished
    assert list(jobs) == ["fold_0_supernet", "fold_0_training", "fold_1_training", "predict", "report"]
    assert RUN_JSON.read(folder.file)["jobs"] == jobs
    options = {name: slurm.submitted[job] for name, job in jobs.items()}
    assert {name: given.get("dependency") for name, given in options.items()} == {
        "fold_0_supernet": None,
        "fold_0_training": f"afterok:{jobs['fold_0_supernet']}",
        "fold_1_training": None,
        "predict": f"afterany:{jobs['fold_0_training']}:{jobs['fold_1_training']}",
        "report": f"afterok:{jobs['predict']}",
    }
    expected = {"partition": "gpu", "mem": "64G", "exclusive": "", "cpus-per-task": "12", "time": "720", "requeue": ""}
    expected |= {"kill-on-invalid-dep": "yes", "job-name": "Dataset501_Nuclei.fold_0_training", "signal": "USR2@90"}
    assert expected.items() <= options["fold_0_training"].items()
    assert "--cpus-per-task=12" in options["fold_0_training"]["starts"]
    # only what holds a network gets a GPU
    assert [given.get("gpus-per-node") for given in options.values()] == ["1", "1", "1", "1", None]
    on_cpus = submit_run(graph(), folder, OPTIONS, "cpu")
    assert "gpus-per-node" not in slurm.submitted[on_cpus[0].job]


def test_a_search_has_a_task_on_each_of_its_nodes_which_all_end_when_one_fails(
    slurm: FakeSlurm, folder: RunFolder
) -> None:
    steps = [
        Step("fold_0_supernet", "0", "supernet", (), lambda: Command("slicemamba", ())),
        Step("fold_0_search", "0", "search", ("fold_0_supernet",), lambda: Command("slicemamba", ())),
    ]
    submit_run(steps, folder, replace(OPTIONS, search_nodes=4), "cuda")
    supernet, search = slurm.submitted.values()
    assert {"nodes": "4", "ntasks-per-node": "1", "gpus-per-node": "1"}.items() <= search.items()
    assert "--kill-on-bad-exit=1" in search["starts"]
    assert "--wait=0" in search["starts"]  # the first node ends later than the others
    assert (supernet["nodes"], supernet.get("ntasks-per-node")) == ("1", None)
    assert "--kill-on-bad-exit" not in supernet["starts"]


def test_a_job_carries_the_variables_that_it_needs_whatever_the_cluster_hands_on(
    slurm: FakeSlurm, folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_results", "results")
    monkeypatch.setenv("SLICEMAMBA_SEED", "3")
    monkeypatch.setenv("SECRET", "not handed on")
    job = submit_run(graph(), folder, OPTIONS, "cuda")[0].job
    work = pickle.loads((folder.step("fold_0_supernet") / f"{job}_submitted.pkl").read_bytes()).function
    assert work.variables["nnUNet_results"] == str(tmp_path / "results")
    assert work.variables["SLICEMAMBA_SEED"] == "3"
    assert "SECRET" not in work.variables
    assert (work.step, work.minutes, work.folder) == ("fold_0_supernet", 720, RunFolder(folder.path.resolve()))


def test_a_refused_job_takes_those_before_it_along(slurm: FakeSlurm, folder: RunFolder) -> None:
    slurm.says("refuse", "101")
    with pytest.raises(InputError, match=r"sbatch refuses a job: .*No such account; nothing was submitted"):
        submit_run(graph(), folder, OPTIONS, "cuda")
    slurm.says("refuse", "103")
    with pytest.raises(InputError, match="jobs submitted before it are cancelled: 101, 102. Correct"):
        submit_run(graph(), folder, OPTIONS, "cuda")
    assert slurm.called[-1] == "scancel 102 101"
    slurm.says("refuse", "104")
    slurm.says("scancel_fails", "scancel: error: slurmctld is down")
    with pytest.raises(InputError, match="are left .*slurmctld is down.*, end them with 'scancel 103'"):
        submit_run(graph(), folder, OPTIONS, "cuda")


def test_a_dataset_has_one_run_and_cancel_ends_it_last_job_first(slurm: FakeSlurm, folder: RunFolder) -> None:
    submit_run(graph(), folder, OPTIONS, "cuda")
    slurm.queue("101|COMPLETED||n0", "102|RUNNING|None|n0", "103|PENDING|Priority|")
    another = RunFolder(folder.path.with_name("another"))
    refused = r"2 jobs of SLURM run or wait for run: 102, 103.*slicemamba cancel -d Dataset501_Nuclei"
    with pytest.raises(InputError, match=refused), only_run(another):
        pass
    slurm.says("squeue_fails", "Unable to contact slurm controller")
    refused = "run.json names jobs of SLURM, and whether they have ended is not known"
    with pytest.raises(InputError, match=refused), only_run(another):
        pass
    slurm.says("squeue_fails", "")
    console = silent()
    cancel_run(folder, console, patience=0)
    assert "scancel 103 102" in slurm.called
    slurm.queue("101|COMPLETED||n0", "102|CANCELLED||n0", "103|CANCELLED||")
    cancel_run(folder, console)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "its steps are still ending. To go on: slicemamba run again" in told
    assert "no job of it waits or runs" in told
    with only_run(another):
        pass


def test_jobs_that_slurm_has_forgotten_do_not_stand_in_the_way(slurm: FakeSlurm, folder: RunFolder) -> None:
    submit_run(graph(), folder, OPTIONS, "cuda")
    slurm.says("squeue_fails", "slurm_load_jobs error: Invalid job id specified")
    with only_run(folder):
        pass
