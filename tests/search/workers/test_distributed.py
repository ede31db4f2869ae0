"""Several processes search as one does, and none of them takes a finished evaluation with it when it dies."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
import torch

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.search import open_ledger, read_ledger, read_slicing_file, run_search
from nnunetv2_slicemamba.search.workers.processes import Process
from nnunetv2_slicemamba.slicing.candidates import wide_candidates
from nnunetv2_slicemamba.trainers import TRAINERS
from tests.forked import forked
from tests.search.distributed_search import SETTINGS, free_port, process_of_a_search
from tests.search.killable_search import CANDIDATES, evaluate, fingerprint

pytestmark = pytest.mark.xdist_group("forked")
PLANS, SUPERNET = "nnUNetSliceMambaSPlans", "SliceMambaSupernetTrainer_1epoch"


@pytest.fixture(scope="module")
def start():
    """Starts the processes of a search in a folder."""
    running = []

    def start(folder: Path, world: int, seconds: float = 0.0, budget: float | None = None, candidates=CANDIDATES):
        port = free_port()
        processes = [
            forked().Process(target=process_of_a_search, args=(folder, rank, world, port, seconds, budget, candidates))
            for rank in range(world)
        ]
        for process in processes:
            process.start()
            running.append(process)
        return processes

    yield start
    for process in running:
        process.kill()
        process.join()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory):
    """The same search by one process."""
    with open_ledger(tmp_path_factory.mktemp("alone") / "study.db", fingerprint(SETTINGS)) as ledger:
        return run_search(evaluate, SETTINGS, ledger, progress=False)


def content_of(records) -> list[tuple]:
    """Everything but the time it took; NaN made comparable."""
    return [
        (r.generation, r.index, r.origin, r.architecture, None if math.isnan(r.fitness) else r.fitness, dict(r.details))
        for r in records
    ]


def logged(folder: Path) -> list[tuple[str, str]]:
    """(process, architecture) of every evaluation that ended."""
    file = folder / "log"
    return [tuple(line.split(" ", 1)) for line in file.read_text().splitlines()] if file.exists() else []


def wait_until(holds, processes=(), seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        ended = [process.exitcode for process in processes]
        assert time.monotonic() < end, f"nothing happened; exit codes: {ended}"
        assert not ended or None in ended, f"the processes ended before they were killed, with {ended}"
        time.sleep(0.002)


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_end_with_the_ledger_and_the_choice_of_one(start, alone, tmp_path, world):
    for process in start(tmp_path, world, seconds=0.002):
        process.join(60)
        assert process.exitcode == 0
    records = read_ledger(tmp_path / "study.db")[1]
    assert content_of(records) == content_of(alone.records)
    assert any(math.isnan(r.fitness) for r in records), "the test should include an undefined fitness"
    ended = logged(tmp_path)
    assert sorted(a for _, a in ended) == sorted(str(r.architecture) for r in records), "each was evaluated once"
    by_process = Counter(pid for pid, _ in ended)
    assert len(by_process) == world
    assert min(by_process.values()) > len(ended) / world / 3, "one process did nearly everything"
    kept = [file.read_text().splitlines() for file in (tmp_path / "study.evaluations").glob("*.jsonl")]
    assert len(kept) == world, "each process has a file of its own"
    assert sum(map(len, kept)) == 2 + len(records), "each evaluation is kept once, behind the header and its double"


def test_several_processes_search_wide_candidates_as_one_does(start, tmp_path):
    wide = wide_candidates(2)
    with open_ledger(tmp_path / "alone" / "study.db", fingerprint(SETTINGS, candidates=wide)) as ledger:
        alone = run_search(evaluate, SETTINGS, ledger, progress=False)
    (tmp_path / "several").mkdir()
    for process in start(tmp_path / "several", 2, candidates=wide):
        process.join(60)
        assert process.exitcode == 0
    assert content_of(read_ledger(tmp_path / "several" / "study.db")[1]) == content_of(alone.records)


def test_processes_killed_ten_times_over_lose_no_finished_evaluation(start, alone, tmp_path):
    rng = random.Random()
    before: list[tuple[str, str]] = []
    in_flight = 0
    # evaluations to wait for, 12 in all: some while they start, and not so many that the search would be over
    for turn, more in enumerate([0, *rng.sample([0, 0, 1, 1, 1, 1, 2, 3, 3], 9)]):
        processes = start(tmp_path, 2, seconds=0.008)
        n = len(before) + more
        if turn:
            wait_until(lambda n=n: len(logged(tmp_path)) >= n, processes)
        time.sleep(rng.uniform(0, 0.008))
        victim = rng.randrange(2)
        for process in (processes[victim], processes[1 - victim]):  # as torchrun does when one is gone
            process.kill()  # unless it has noticed that the other is gone
            process.join()
            time.sleep(rng.uniform(0, 0.008))
        now = logged(tmp_path)
        # each may have been killed after it had said that it ended, before it had kept it: one evaluation at most
        in_flight += 2
        assert len({a for _, a in now}) >= len(now) - in_flight, "a finished evaluation was made again"
        before = now
    for process in start(tmp_path, 2):
        process.join(60)
        assert process.exitcode == 0
    ended = Counter(a for _, a in logged(tmp_path))
    assert (tmp_path / "done").read_text().startswith("True")
    records = read_ledger(tmp_path / "study.db")[1]
    assert content_of(records) == content_of(alone.records)
    assert set(ended) == {str(r.architecture) for r in records}
    assert sum(ended.values()) - len(ended) <= 3, "more were made again than can be killed in the moment of being kept"
    assert 10 < len(before) < len(records), "the kills came too late or too early to say anything"


def test_a_time_budget_ends_all_processes_and_keeps_what_they_did(start, alone, tmp_path):
    for process in start(tmp_path, 2, seconds=0.02, budget=0.15):
        process.join(60)
        assert process.exitcode == 0
    records = read_ledger(tmp_path / "study.db")[1]
    assert 2 <= len(records) < SETTINGS.evaluations
    assert (tmp_path / "done").read_text() == f"False {len(records)}"
    assert sorted(a for _, a in logged(tmp_path)) == sorted(str(r.architecture) for r in records)
    for process in start(tmp_path, 2):
        process.join(60)
    assert content_of(read_ledger(tmp_path / "study.db")[1]) == content_of(alone.records)


def test_a_process_knows_its_place_and_its_gpu(monkeypatch):
    assert Process.from_environment({}) == Process()
    environment = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    process = Process.from_environment(environment)
    assert process == Process(5, 8, 1, 4)
    assert not process.is_writer
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert process.device(torch.device("cuda")) == torch.device("cuda:1")
    assert chosen == [1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        InputError, match=r"4 processes on this machine need a GPU each, it has 1: .*--nproc-per-node 1"
    ):
        process.device(torch.device("cuda"))
    assert Process().device(torch.device("cuda")) == torch.device("cuda")


def test_torchrun_with_two_processes_chooses_what_one_process_chooses(workspace: Path, monkeypatch, capsys):
    selection = select("901", "2d", "0", PLANS)
    description = json.loads((selection.preprocessed_folder / "dataset.json").read_text())
    torch.manual_seed(0)
    plans = {**selection.plans, "continue_training": False}
    trainer = TRAINERS[SUPERNET](plans, "2d", 0, description, torch.device("cpu"))
    trainer.initialize()
    trainer.save_checkpoint(str(selection.fold_folder(SUPERNET) / "checkpoint_final.pth"))
    fold = ["-d", "901", "-c", "2d", "-f", "0", "-p", PLANS, "-tr", SUPERNET, "-device", "cpu"]
    command = [*fold, "--population", "6", "--generations", "2", "--parents", "3"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    shared = subprocess.run(
        [*torchrun, "-m", "nnunetv2_slicemamba.search", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert shared.returncode == 0, shared.stderr
    assert shared.stdout.count("Best fitness") == 1, "one process speaks"
    assert "of 18 architectures (18 evaluated now)" in shared.stdout
    folder = selection.fold_folder(SUPERNET) / "slicing_search"
    storage = f"sqlite:///{folder / 'study.db'}"
    wait_until(lambda: len(optuna.load_study(study_name=None, storage=storage).trials) == 18, seconds=120)
    by_two, records = read_slicing_file(folder / "best_slicing.json"), read_ledger(folder / "study.db")[1]

    from nnunetv2_slicemamba.cli import main

    with contextlib.suppress(SystemExit):
        main(["search", *command, "--discard"])
    assert "(18 evaluated now)" in capsys.readouterr().out
    by_one = read_slicing_file(folder / "best_slicing.json")
    assert content_of(read_ledger(folder / "study.db")[1]) == content_of(records)
    assert (by_one.choice.slicing, by_one.choice.fitness) == (by_two.choice.slicing, by_two.choice.fitness)
