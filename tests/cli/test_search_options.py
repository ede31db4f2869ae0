"""`slicemamba holdout` and the options of `slicemamba search`, as a user calls them."""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from rich.console import Console

from nnunetv2_slicemamba.cli import main
from nnunetv2_slicemamba.common.durations import duration_text
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.pipeline import fold_steps, running
from nnunetv2_slicemamba.pipeline.fold_steps import hold_out_all
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.search import (
    Evaluation,
    SearchSettings,
    dry_run,
    read_holdout,
    read_ledger,
    read_slicing_file,
)
from nnunetv2_slicemamba.search import run as search_run
from nnunetv2_slicemamba.search.choosing.write_choice import write_choice
from nnunetv2_slicemamba.search.dry_run import CostEstimate, time_paths, typical_tasks
from nnunetv2_slicemamba.search.evaluation.supernet_fold import SupernetFold
from nnunetv2_slicemamba.search.holdout import hold_out
from nnunetv2_slicemamba.search.records import Done, Task, tasks_of
from nnunetv2_slicemamba.search.workers.base import More, no_more
from nnunetv2_slicemamba.slicing.choice import FINALISTS
from nnunetv2_slicemamba.slicing.holdout_file import holdout_path
from tests.cli.commands import called
from tests.cli.supernets import save_untrained_supernet

PLANS, SUPERNET = "nnUNetSliceMambaSPlans", "SliceMambaSupernetTrainer_1epoch"
FOLD = ("-d", "901", "-c", "2d", "-f", "0", "-p", PLANS, "-tr", SUPERNET)
SEARCH = ("search", *FOLD, "-device", "cpu", "--population", "2", "--generations", "1")


@pytest.fixture
def call(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command in this process and gives what it printed; refused=True expects exit code 2."""

    def run(*arguments: str, refused: bool = False) -> str:
        capsys.readouterr()
        if refused:
            with pytest.raises(SystemExit) as stopped:
                main(arguments)
            assert stopped.value.code == 2
            return " ".join(capsys.readouterr().err.split())
        try:
            main(arguments)
            code = 0
        except SystemExit as ended:
            code = ended.code
        assert code == 0
        return capsys.readouterr().out

    return run


def fold_folder() -> Path:
    return select("901", "2d", "0", PLANS).fold_folder(SUPERNET)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_search_on_a_holdout_from_estimate_to_result(call: Callable[..., str]) -> None:
    assert "2 of 4 training cases are held out" in call("holdout", *FOLD, "--fraction", "0.5")
    save_untrained_supernet(select("901", "2d", "0", PLANS), SUPERNET)
    before = files_of(fold_folder())
    shown = call(*SEARCH, "--dry-run")
    assert files_of(fold_folder()) == before, "a dry run wrote something"
    assert "architectures:  4, each on 2 holdout cases" in shown
    assert "0 of them are in" in shown
    assert "mean of 5 paths" in shown

    # a thousandth of a second
    shown = call(*SEARCH, "--time-budget", "0.00001")
    assert "1 of 4 architectures are evaluated and kept in" in shown
    assert "Best fitness so far" in shown
    file = fold_folder() / "slicing_search" / "best_slicing.json"
    assert not read_slicing_file(file).complete

    before = files_of(fold_folder())
    told = call(*SEARCH, "--dry-run", "--finalists", "2")
    assert "1 of them are in" in told
    assert "finals:         at most 2 trainings by SliceMambaTrainer_1epoch" in told
    assert "another search and would be refused: seed 0, this search has 3" in call(*SEARCH, "--dry-run", "--seed", "3")
    assert files_of(fold_folder()) == before

    assert "of 4 architectures (3 evaluated now), on 2 holdout cases" in call(*SEARCH)
    found = read_slicing_file(file)
    assert found.complete
    assert found.measured_on is not None
    assert (found.measured_on.kind, found.measured_on.number) == ("holdout", 2)
    stored, records = read_ledger(fold_folder() / "slicing_search" / "study.db")
    assert stored["evaluation"]["holdout_cases"] == 2
    assert stored["evaluation"]["holdout_cases_sha256"] == found.measured_on.sha256
    assert len(records) == 4

    holdout_path(fold_folder()).unlink()
    assert "was trained with a holdout of 2 cases" in call(*SEARCH, refused=True)


def test_a_result_that_cannot_be_written_says_where_the_evaluations_are(
    call: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_untrained_supernet(select("901", "2d", "0", PLANS), SUPERNET)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("nnunetv2_slicemamba.search.choosing.write_choice.write_slicing_file", full)
        message = call(*SEARCH, refused=True)
    assert "No space left on device" in message
    assert (
        f"All 4 evaluations are kept in {fold_folder() / 'slicing_search' / 'study.evaluations'}; make room" in message
    )
    assert "4 architectures (0 evaluated now), on 1 validation case." in call(*SEARCH)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("holdout", *FOLD, "--fraction", "1.0"), "--fraction is 1.0; give a number above 0 and below 1"),
        (("holdout", *FOLD, "--fraction", "0.1"), "holds out 0 of them"),
        (("holdout", *FOLD, "--seed", "-1"), "--seed is -1; give a whole number from 0 to 2147483647"),
        (("holdout", *FOLD[:-1], "SliceMambaTrainer"), "'SliceMambaTrainer' is no supernet trainer"),
        ((*SEARCH, "--sampler", "grid"), "sampler is 'grid', it must be one of evolution, random, tpe, nsga2"),
        ((*SEARCH, "--sampler", "tpe", "--mutants", "1"), "--mutants and --crossovers are the evolution's"),
        ((*SEARCH, "--dry-run", "--figures-only"), "--dry-run and --figures-only exclude each other"),
        ((*SEARCH, "--time-budget", "0"), "--time-budget is 0; give a number above 0 and at most 1000000"),
        ((*SEARCH, "--objective", "speed"), "objective is 'speed', it must be one of dice, dice-latency, dice-memory"),
        ((*SEARCH, "--objective", "dice-memory"), "--objective dice-memory needs a CUDA device, the device is 'cpu'"),
        ((*SEARCH, "--max-memory-mib", "900"), "--max-memory-mib needs a CUDA device, the device is 'cpu'"),
        ((*SEARCH, "--max-latency-ms", "-1"), "--max-latency-ms is -1; give a number above 0"),
        (
            ("run", "-d", "901", "-c", "2d", "-f", "0", "--holdout", "2"),
            "--holdout is 2; give a number at least 0 and below 1",
        ),
    ],
)
def test_what_cannot_be_worked_with_is_refused(call: Callable[..., str], arguments: tuple, words: str) -> None:
    assert words in call(*arguments, refused=True)
    assert not holdout_path(fold_folder()).exists()


def test_a_holdout_is_removed_and_removing_none_is_no_error(call: Callable[..., str]) -> None:
    assert "There is no holdout" in call("holdout", *FOLD, "--remove")
    call("holdout", *FOLD, "--fraction", "0.5")
    assert "the search chooses on the validation cases" in call("holdout", *FOLD, "--remove")
    assert not holdout_path(fold_folder()).exists()


def test_a_run_holds_out_the_same_part_of_every_fold_and_keeps_a_holdout_of_that_part(workspace: Path) -> None:
    selections = [select("901", "2d", fold, PLANS) for fold in ("0", "1")]
    drawn = hold_out(SupernetFolder(selections[1], SUPERNET), 0.5, 3)[0]
    hold_out(SupernetFolder(selections[0], SUPERNET), 0.25, 3)
    shown = io.StringIO()
    hold_out_all([SupernetFolder(selection, SUPERNET) for selection in selections], 0.5, Console(file=shown, width=300))
    first, second = (read_holdout(holdout_path(one.fold_folder(SUPERNET))) for one in selections)
    assert first is not None
    assert (first.fraction, first.seed, len(first.cases)) == (0.5, 0, 2)
    assert second == drawn
    assert "holdout, fold 1: 2 of 4 training cases" in shown.getvalue()


@pytest.mark.parametrize("kind", ("", "Inherit"))
def test_a_runs_supernet_has_the_final_trainers_length(
    kind: str, call: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[fold_steps.RunSettings] = []
    monkeypatch.setattr(running, "run_fold", lambda selection, settings, console: asked.append(settings) or 0.5)
    trainer = f"SliceMamba{kind}Trainer_20epochs"
    call("run", "-d", "901", "-c", "2d", "-f", "0", "-p", PLANS, "-tr", trainer, "-device", "cpu")
    assert [(s.trainer, s.supernet_trainer) for s in asked] == [(trainer, "SliceMambaSupernetTrainer_20epochs")]


def test_an_estimate_is_the_mean_path_times_what_there_is_to_do() -> None:
    estimate = CostEstimate(1050, 50, (1.5, 0.5, 4.0), 8, "validation", "study.db")
    assert (estimate.mean, estimate.left) == (2.0, 1000)
    finals = "trainings by SliceMambaTrainer_100epochs and their validation, which the total is without"
    assert estimate.lines(3, "SliceMambaTrainer_100epochs")[-1] == f"finals:         at most 3 {finals}"
    few = replace(estimate, architectures=2).lines(3, "SliceMambaTrainer_100epochs")
    assert few[-1] == f"finals:         at most 2 {finals}"
    assert estimate.lines()[-2:] == [
        "seconds each:   2 (mean of 3 paths; 0.5 to 4 s)",
        "total:          35 min 0 s; what is left: 33 min 20 s",
    ]
    assert [duration_text(s) for s in (0.25, 59.0, 60.0, 3661.0, 90000.0)] == [
        "0.2 s",
        "59.0 s",
        "1 min 0 s",
        "1 h 1 min",
        "1 d 1 h",
    ]


class Timed:
    """Evaluates nothing; the first path takes long, and each of the others `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.given: list[Task] = []

    def evaluate(self, tasks: Sequence[Task], go_on: Callable[[], bool], more: More = no_more) -> Iterator[Done]:
        self.given = list(tasks)
        for number, task in enumerate(tasks):
            if not go_on():
                return
            yield Done(task, Evaluation(0.5), self.seconds if number else 1000.0)


@pytest.mark.parametrize(("seconds", "timed"), [(0.1, 24), (1.0, 11), (10.0, 5), (25.0, 3), (100.0, 3)])
def test_the_first_path_is_not_timed_and_slow_ones_are_timed_less_often(seconds: float, timed: int) -> None:
    tasks = tasks_of((i,) for i in range(25))
    assert time_paths(Timed(seconds), tasks, Console()) == [seconds] * timed
    assert time_paths(Timed(seconds), tasks[:1], Console()) == [1000.0]


@pytest.mark.parametrize("cache_gb", ["0", "0.5"])
def test_paths_are_timed_with_the_memory_for_features_that_the_search_would_have(
    cache_gb: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepared(folder: object, settings: object, device: object, cache_bytes: int | None = None) -> None:
        raise InputError(f"{cache_bytes} bytes")

    monkeypatch.setattr(dry_run, "prepare_search", prepared)
    fold = ("-d", "901", "-c", "2d", "-f", "0", "-p", "nnUNetSliceMambaSPlans", "-device", "cpu")
    ended = called("search", *fold, "--dry-run", "--cache-gb", cache_gb)
    assert ended.message == f"error: {round(float(cache_gb) * 2**30)} bytes"


def test_the_paths_that_are_timed_share_what_those_of_a_search_share() -> None:
    tasks = typical_tasks(SearchSettings(), [4] * 22)
    paths = [task.architecture for task in tasks]
    assert len(set(paths)) == len(paths) == 25
    assert paths == sorted(paths)
    shared = [next(i for i in range(22) if a[i] != b[i]) for a, b in pairwise(paths)]
    # random ones differ in their second or third block
    assert statistics.fmean(shared) > 2.5
    assert typical_tasks(SearchSettings(population=5), [1]) == tasks_of([(0,)])


@pytest.fixture
def quick_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass that counts says as much here."""
    monkeypatch.setattr("nnunetv2_slicemamba.search.evaluation.cost_measurement.WARM_UP", 0)
    monkeypatch.setattr("nnunetv2_slicemamba.search.evaluation.cost_measurement.REPEATS", 1)


def test_a_search_with_a_cost_from_limit_to_front(call: Callable[..., str], quick_measurement: None) -> None:
    save_untrained_supernet(select("901", "2d", "0", PLANS), SUPERNET)
    folder = fold_folder() / "slicing_search"
    message = call(*SEARCH, "--max-latency-ms", "0.001", refused=True)
    assert "none of the 4 architectures evaluated is within --max-latency-ms 0.001: the fastest, (" in message
    assert not (folder / "best_slicing.json").exists()

    costly = (*SEARCH, "--objective", "dice-latency")
    assert "--max-latency-ms 0.001, this search has None" in call(*costly, refused=True)
    assert "Pareto front of 4 architectures" in " ".join(call(*costly, "--discard").split())
    found = read_slicing_file(folder / "best_slicing.json")
    stored, records = read_ledger(folder / "study.db")
    front = json.loads((folder / "pareto.json").read_text())
    (chosen,) = (entry for entry in front["front"] if entry["chosen"])
    assert found.choice.fitness == chosen["fitness"] == max(record.fitness for record in records)
    assert tuple(chosen["architecture"]) == found.choice.architecture
    cost = found.choice.details["cost"]
    assert found.choice.details["objective"] == "dice-latency"
    assert (cost["name"], cost["value"]) == ("latency_ms", chosen["latency_ms"])
    assert cost["device"] == stored["evaluation"]["device"]
    assert all(record.cost is not None and record.cost > 0 for record in records)
    assert all(record.details["pytorch"] == str(torch.__version__) for record in records)
    assert (folder / "figures" / "pareto.png").is_file()

    # a search for Dice alone refuses to go on with it, and leaves nothing of it behind
    assert "with objective dice-latency, this search has dice" in call(*SEARCH, refused=True)
    call(*SEARCH, "--discard")
    assert not (folder / "pareto.json").exists()
    assert not (folder / "figures" / "pareto.png").exists()
    assert "cost" not in read_slicing_file(folder / "best_slicing.json").choice.details


def test_a_search_that_is_repeated_keeps_what_finals_chose(
    call: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluated(fold: SupernetFold, tasks: Sequence[Task], *_: object) -> Iterator[Done]:
        for task in tasks:
            yield Done(task, Evaluation(sum(task.architecture) / 100, {}), 0.0)

    monkeypatch.setattr(SupernetFold, "evaluate", evaluated)
    # neither is asked for here, and both take seconds
    monkeypatch.setattr(search_run, "write_fold_figures", lambda folder, *_: folder.search)
    monkeypatch.setattr(search_run, "StudyExport", lambda *_: nullcontext())
    folder = SupernetFolder(select("901", "2d", "0", PLANS), SUPERNET)
    save_untrained_supernet(folder.selection, SUPERNET)
    search = (*SEARCH[:-1], "0", "--parents", "1")
    call(*search)
    found = read_slicing_file(folder.slicing_file)
    best = found.choice
    (other,) = (one.architecture for one in read_ledger(folder.study)[1] if one.architecture != best.architecture)
    chosen = replace(
        best,
        architecture=other,
        slicing=tuple(found.candidates[index] for index in other),
        details={**best.details, FINALISTS: {"asked": 2}},
    )

    def hold_finals(**changed: str) -> None:
        hashes = {"checkpoint_hash": found.supernet_checkpoint_sha256, "plans_hash": found.plans_sha256, **changed}
        write_choice(folder, chosen, measured_on=found.measured_on, **hashes)

    hold_finals()
    said = call(*search)
    assert (
        f"The slicing is still the one that finals chose; to have the search's best, delete {folder.slicing_file}"
        in said
    )
    assert read_slicing_file(folder.slicing_file).choice == chosen
    hold_finals(checkpoint_hash="0" * 64)
    assert "that finals chose" not in call(*search)
    assert read_slicing_file(folder.slicing_file).choice == best
