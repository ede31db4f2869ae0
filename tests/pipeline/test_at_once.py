"""Steps at once are jobs that end with their run, fail alone, and make what steps in a row make."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from nnunetv2_slicemamba.common.commands import CommandError
from nnunetv2_slicemamba.common.folder_lock import FolderInUseError
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.other_processes import lives
from nnunetv2_slicemamba.pipeline import at_once, places
from nnunetv2_slicemamba.pipeline.at_once import only_run, run_at_once
from nnunetv2_slicemamba.pipeline.cancelling import cancel_run
from nnunetv2_slicemamba.pipeline.run_folder import RunFolder
from nnunetv2_slicemamba.pipeline.states import FAILED, FINISHED, RUNNING, STOPPED, WAITING, states_on_disk
from tests.pipeline.stand_in_job import place, run_stand_in_job, stand_in_step

MAKE = "import sys, pathlib; pathlib.Path(sys.argv[1]).touch()"
SLEEP = "import os, sys, time; open(sys.argv[1] + '_process', 'w').write(str(os.getpid())); time.sleep(100)"


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(at_once, "run_job", run_stand_in_job)
    return RunFolder(tmp_path / "steps" / "run")


def test_a_failed_step_stops_only_those_that_need_it_and_the_same_call_goes_on(
    folder: RunFolder, tmp_path: Path
) -> None:
    mended, cores = tmp_path / "mended", tmp_path / "cores"
    report = f"import os; open({str(cores)!r}, 'w').write(f'{{os.sched_getaffinity(0)}} {{os.environ[\"GPU\"]}}'); "
    codes = {
        "bad": (f"import os, sys; os.path.exists({str(mended)!r}) or sys.exit('no memory left'); {MAKE}", ()),
        "needs_bad": (MAKE, ("bad",)),
        "good": (report + MAKE, ()),
        "needs_good": (MAKE, ("good",)),
        "needs_all": (MAKE, ("needs_bad", "needs_good")),
    }
    steps = [stand_in_step(name, code, tmp_path / f"made_{name}", after) for name, (code, after) in codes.items()]
    core = min(os.sched_getaffinity(0))
    two = [place("first"), place("second", [core], lambda: {"GPU": "7"})]
    shown = io.StringIO()
    with pytest.raises(CommandError, match=r"1 of 5 steps failed, and 2 that need them.*same command goes on") as told:
        run_at_once(steps, two, folder, Console(file=shown, width=200))
    assert f"bad: it failed with 1; log {folder.path}/bad/" in str(told.value)
    assert cores.read_text() == f"{{{core}}} 7"
    found = states_on_disk(steps, folder)
    assert [one.state for one in found] == [FAILED, WAITING, FINISHED, FINISHED, WAITING]
    assert found[0].log is not None
    assert "no memory left" in found[0].log.read_text()
    mended.touch()
    before = {name: (tmp_path / f"made_{name}").stat().st_mtime_ns for name in ("good", "needs_good")}
    run_at_once(steps, two, folder, Console(file=shown, width=200))
    assert {one.state for one in states_on_disk(steps, folder)} == {FINISHED}
    # the jobs of what was finished before are still told of
    jobs = {one.step.name: one.job for one in found}
    assert [one.job == jobs[one.step.name] for one in states_on_disk(steps, folder)][2:4] == [True, True]
    assert before == {name: (tmp_path / f"made_{name}").stat().st_mtime_ns for name in before}


def test_a_run_that_an_earlier_version_began_goes_on_in_its_folders(folder: RunFolder, tmp_path: Path) -> None:
    for fold in (0, 1):  # the step of a fold's training had another name
        record = {"job": f"10{fold}", "place": "cores 0", "log": "log", "started": "now", "command": "c"}
        (folder.path / f"fold_{fold}_final").mkdir(parents=True)
        write_json(folder.path / f"fold_{fold}_final" / "job.json", record)
    write_json(
        folder.path / "fold_0_final" / "ended.json", {"job": "100", "code": 0, "message": "", "ended": "a minute later"}
    )
    (tmp_path / "made_0").touch()
    steps = [
        stand_in_step("fold_0_training", "raise SystemExit('trained again')", tmp_path / "made_0"),
        stand_in_step("fold_1_training", MAKE, tmp_path / "made_1"),
    ]
    assert [(one.state, one.job) for one in states_on_disk(steps, folder)] == [(FINISHED, "100"), (STOPPED, "101")]
    run_at_once(steps, [place()], folder, Console(file=io.StringIO()))
    assert [one.state for one in states_on_disk(steps, folder)] == [FINISHED, FINISHED]
    assert {file.name for file in folder.path.iterdir()} == {"fold_0_final", "fold_1_final"}


def test_a_command_that_succeeds_and_makes_nothing_has_failed(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="its command succeeded, and left it unfinished"):
        run_at_once([stand_in_step("idle", "", tmp_path / "made")], [place()], folder, Console(file=io.StringIO()))


@pytest.mark.parametrize("end", ["cancelled", "killed"])
def test_steps_end_with_their_run(end: str, folder: RunFolder, tmp_path: Path) -> None:
    script = [sys.executable, "-m", "tests.pipeline.stand_in_job", str(folder.path), SLEEP, SLEEP]
    process = subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    files = [folder.path / f"made_{i}_process" for i in range(2)]
    wait_for(lambda: process.poll() is not None or all(file.is_file() and file.read_text() for file in files))
    numbers = [int(file.read_text()) for file in files]
    steps = [stand_in_step(f"step{i}", SLEEP, folder.path / f"made_{i}") for i in range(2)]
    assert [one.state for one in states_on_disk(steps, folder)] == [RUNNING, RUNNING]
    with pytest.raises(FolderInUseError), only_run(RunFolder(folder.path.with_name("another"))):
        pass
    shown = io.StringIO()
    if end == "cancelled":
        cancel_run(folder, Console(file=shown))
        assert process.wait(30) == 143
        assert "ended. To go on: again" in shown.getvalue()
    else:
        process.kill()
        process.wait(30)
    wait_for(lambda: not any(map(lives, numbers)))
    wait_for(lambda: {one.state for one in states_on_disk(steps, folder)} == {STOPPED})
    cancel_run(folder, Console(file=shown))
    assert "no process runs it" in shown.getvalue()


def test_a_run_of_another_machine_is_not_cancelled(folder: RunFolder, tmp_path: Path) -> None:
    with only_run(folder):
        settings = {"trainer": "", "supernet_trainer": "", "device": "", "search_arguments": []}
        settings |= {"npz": False, "predict": False}
        asked = {"dataset": "", "configuration": "", "plans_name": "", "folds": [], "settings": settings}
        said = {"command": "again", "process": os.getpid(), "host": "elsewhere", "started": "now"}
        write_json(folder.file, {**asked, **said})
        with pytest.raises(InputError, match="is run on elsewhere; call this command there"):
            cancel_run(folder, Console(file=io.StringIO()))


def test_places_share_the_cores_and_the_gpus_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "usable_cores", lambda: list(range(4, 20)))
    monkeypatch.setattr(places, "get_allowed_n_proc_DA", lambda: int(os.environ.get("nnUNet_n_proc_DA", "12")))
    for name in ("nnUNet_n_proc_DA", "nnUNet_def_n_proc", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    found = places.places_on_gpus(2, 2)
    assert [one.gpu for one in found] == ["0", "1", "0", "1"]
    assert [one.cores for one in found] == [(4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15), (16, 17, 18, 19)]
    assert found[0].variables() == {"nnUNet_n_proc_DA": "4", "nnUNet_def_n_proc": "4", "CUDA_VISIBLE_DEVICES": "0"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa, GPU-bb,GPU-cc")
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    (one, other) = places.places_on_gpus(2, 1)
    assert (one.gpu, other.gpu) == ("GPU-aa", "GPU-bb")
    assert other.variables()["nnUNet_n_proc_DA"] == "1"
    assert [one.cores for one in places.places_without_gpu(3)] == [
        (4, 5, 6, 7, 8),
        (9, 10, 11, 12, 13),
        (14, 15, 16, 17, 18, 19),
    ]
    assert places.shares_of([3, 5], 3) == [(3,), (5,), (3,)]


@pytest.mark.parametrize(
    ("device", "gpus", "per_gpu", "at_once", "message"),
    [
        ("cpu", 2, 1, None, "--gpus 2 needs -device cuda, and this run is on cpu; give --at-once 2"),
        ("cuda", None, 1, 3, "--at-once 3 is for steps without a GPU; give --gpus 1 --per-gpu 3"),
        ("cuda", 5, 1, None, "--gpus is 5; give at most 4"),
        ("cuda", None, 2, None, "--per-gpu 2 needs --gpus"),
        ("cuda", 1, 1, 2, "--gpus 1 and --at-once 2 exclude each other"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    device: str, gpus: int | None, per_gpu: int, at_once: int | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    with pytest.raises(InputError, match=message):
        places.places_for(device, gpus, per_gpu, at_once)
    assert places.places_for(device, None, 1, None) == []
