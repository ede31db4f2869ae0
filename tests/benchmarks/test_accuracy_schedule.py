"""The accuracy benchmark's processes: as many at a time as asked for, none left behind, none started in vain."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from accuracy_checkpoints import PART, pack, unpack
from accuracy_list import CANDIDATES
from accuracy_results import RunFolder
from accuracy_runs import find_run
from accuracy_schedule import FAILED, FINISHED, GRACE, NOT_STARTED, STOPPED, Job, failure, how_far, run_jobs

pytestmark = pytest.mark.slow  # a benchmark's machinery, tested by `make test-all`

SLEEP = "import time; time.sleep({})"
GPU = "import os, sys, time; print(os.environ['GPU']); time.sleep(float(sys.argv[1]))"
# a training with a worker that ignores interrupts, as processes in the background of a shell do
STUBBORN = """
import os, signal, sys, time
if os.fork() == 0:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    open(sys.argv[1], "w").write(str(os.getpid()))
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
    os._exit(130)
"""


@pytest.fixture
def job(tmp_path: Path):
    def make(name: str, code: str = SLEEP.format(0), *arguments: str, **changed) -> Job:
        return Job(name, [sys.executable, "-c", code, *arguments], tmp_path / f"{name}.txt", **changed)

    return make


def in_time(seconds: float) -> float:
    return time.monotonic() + GRACE + seconds


def test_two_run_at_a_time_and_each_knows_what_ran_beside_it(job) -> None:
    jobs = [job(name, "import time; print(time.time()); time.sleep(0.6); print(time.time())") for name in "abc"]
    outcomes = run_jobs(jobs, 2, in_time(30), Console(quiet=True))
    assert {o.ended for o in outcomes.values()} == {FINISHED}
    times = {one.name: [float(line) for line in one.log.read_text().split()] for one in jobs}
    assert max(times["a"][0], times["b"][0]) < min(times["a"][1], times["b"][1]) < times["c"][0]
    assert "b" in outcomes["a"].beside
    alone = run_jobs(jobs[:2], 1, in_time(30), Console(quiet=True))
    assert alone["a"].beside == alone["b"].beside == ()


def on_gpus(jobs: list[Job], *gpus: str) -> dict[str, str]:
    """What GPU each job was told, one place for each of those given."""
    outcomes = run_jobs(jobs, len(gpus), in_time(60), Console(quiet=True), places=[{"GPU": gpu} for gpu in gpus])
    assert {o.ended for o in outcomes.values()} == {FINISHED}
    return {one.name: one.log.read_text().strip() for one in jobs}


def test_jobs_are_spread_evenly_over_the_gpus_of_their_places(job) -> None:
    own = {"GPU": "its own"}
    jobs = [job("prepare", GPU, "1", variables=own, counted=False)]
    jobs += [job(name, GPU, "1", variables=own) for name in "abcd"]
    assert on_gpus(jobs, "0", "1", "0", "1") == {"prepare": "its own", "a": "0", "b": "1", "c": "0", "d": "1"}
    # whatever order the places are in
    assert on_gpus(jobs, "0", "0", "1", "1") == {"prepare": "its own", "a": "0", "b": "1", "c": "0", "d": "1"}


def test_a_place_is_taken_again_when_its_job_has_ended(job) -> None:
    full = [*(job(name, GPU, seconds) for name, seconds in zip("abcd", ("3", "0", "3", "3"), strict=True))]
    assert on_gpus([*full, job("e", GPU, "0")], "0", "1", "0", "1")["e"] == "1"
    # with places free on both, the GPU with fewer trainings
    assert on_gpus([*full[:2], job("c", GPU, "0", after=("b",))], "0", "0", "1", "1") == {"a": "0", "b": "1", "c": "1"}


def test_what_the_time_is_too_short_for_makes_way_for_what_fits(job) -> None:
    jobs = [job("long", seconds=100), job("heir", after=("long",)), job("short", seconds=5)]
    outcomes = run_jobs(jobs, 1, in_time(20), Console(quiet=True))
    assert outcomes["heir"].ended == NOT_STARTED
    assert outcomes["long"].ended == NOT_STARTED
    assert "it needs about 100 s" in outcomes["long"].why
    assert outcomes["short"].ended == FINISHED


def test_a_job_waits_for_another_one_and_fails_with_it(job, tmp_path: Path) -> None:
    made = tmp_path / "made"
    jobs = [
        job("use", f"open({str(made)!r})", after=("make",)),
        job("make", f"import time; time.sleep(0.5); open({str(made)!r}, 'w')", counted=False),
        job("lost", after=("broken",)),
        job("broken", "raise ValueError('no data')", counted=False),
    ]
    outcomes = run_jobs(jobs, 1, in_time(30), Console(quiet=True))
    assert {name: o.ended for name, o in outcomes.items()} == {
        **{"use": FINISHED, "make": FINISHED, "broken": FAILED, "lost": FAILED}
    }
    assert outcomes["lost"].seconds == 0
    assert failure(jobs[3].log)[-1] == "ValueError: no data"


def test_when_the_time_is_over_everything_is_stopped_with_its_workers(job, tmp_path: Path) -> None:
    worker, ended = tmp_path / "worker", []
    jobs = [job("training", STUBBORN, str(worker)), job("next")]
    began = time.monotonic()
    outcomes = run_jobs(jobs, 1, in_time(1.5), Console(quiet=True), ended.append)
    assert time.monotonic() - began < GRACE
    assert outcomes["training"].ended == STOPPED
    assert outcomes["next"].ended == NOT_STARTED
    assert [o.name for o in ended] == ["training", "next"]
    assert jobs[0].log.read_text() == "interrupted\n"
    time.sleep(0.2)
    # a killed process that nobody waited for is a zombie, which does nothing any more
    state = Path(f"/proc/{worker.read_text()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_line_says_how_far_a_training_is(job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state.json"
    notes = {"phase": "training", "epochs": 20, "epoch_seconds": [9.0, 7.1], "pseudo_dice": [0.5, 0.8312]}
    state.write_text(json.dumps(notes))
    training = job("isic2017-m", SLEEP.format(1), state=state)
    assert how_far(training) == "epoch 2 of 20, pseudo Dice 0.8312, 7.1 s"
    run_jobs([training], 1, in_time(30), Console(width=120), every=0.4)
    assert "isic2017-m: epoch 2 of 20, pseudo Dice 0.8312, 7.1 s" in capsys.readouterr().out
    state.write_text(json.dumps(notes | {"phase": "validation"}))
    assert how_far(training).startswith("validation after epoch 2")


def test_the_traceback_is_found_behind_what_workers_say_after_it(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text('epoch 3\nTraceback (most recent call last):\n  File "a.py", line 1\nValueError: NaN\nworker: bye\n')
    assert failure(log) == ["Traceback (most recent call last):", '  File "a.py", line 1', "ValueError: NaN"]
    log.write_text("killed\n")
    assert failure(log) == ["killed"]
    assert failure(tmp_path / "missing") == []


def test_an_unfinished_training_is_packed_into_small_parts_and_goes_on_elsewhere(tmp_path: Path) -> None:
    run = find_run("isic2017-m", {c.name: c for c in CANDIDATES})
    folder, elsewhere = RunFolder(run, tmp_path / "here"), RunFolder(run, tmp_path / "there")
    assert pack(folder, tmp_path / "out", 2**30) == []
    folder.fold.mkdir(parents=True)
    weights = os.urandom(PART + 1000)
    (folder.fold / "checkpoint_latest.pth").write_bytes(weights)
    (folder.fold / "checkpoint_best.pth").write_bytes(b"older")
    folder.state.write_text('{"epochs_done": 5}')
    slicing = folder.fold.parents[1] / "Supernet__plans__2d" / "fold_0" / "slicing_search" / "best_slicing.json"
    slicing.parent.mkdir(parents=True)
    slicing.write_text("{}")
    assert pack(folder, tmp_path / "out", PART) == []  # larger than wanted
    parts = pack(folder, tmp_path / "out", 2 * PART)
    assert [part.name for part in parts] == ["isic2017-m.tar.00", "isic2017-m.tar.01"]
    assert max(part.stat().st_size for part in parts) <= PART
    assert elsewhere.flags() == []
    assert unpack(elsewhere, [tmp_path / "nothing", tmp_path / "out"])
    assert elsewhere.flags() == ["--c"]
    assert (elsewhere.fold / "checkpoint_latest.pth").read_bytes() == weights
    assert elsewhere.notes() == {"epochs_done": 5}
    assert list(elsewhere.results.rglob("best_slicing.json"))
    assert not unpack(elsewhere, [tmp_path / "out"])  # what is there is newer
    (folder.fold / "checkpoint_latest.pth").write_bytes(b"smaller")
    assert pack(folder, tmp_path / "out", PART) == parts[:1]
    assert not parts[1].exists()
