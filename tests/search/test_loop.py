"""The search runs to its winner from wherever it was."""

import io
import math
import shutil

import pytest
from rich.console import Console

from nnunetv2_slicemamba.search import (
    Architecture,
    Evaluation,
    LedgerError,
    Record,
    SearchFailedError,
    SearchSettings,
    best_record,
    history_of,
    open_ledger,
    propose_with_origins,
    read_ledger,
    run_search,
)
from tests.search.killable_search import SETTINGS, evaluate, fingerprint, fitness_of


def run(tmp_path, evaluate=evaluate, settings=SETTINGS, progress=False, console=None, time_budget=None, **changes):
    with open_ledger(tmp_path / "study.db", fingerprint(settings, **changes)) as ledger:
        return run_search(evaluate, settings, ledger, progress, console, time_budget)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search from beginning to end: its study's file and its result."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "study.db", run(folder)


@pytest.fixture
def finished(whole, tmp_path):
    """A folder whose search has been finished."""
    shutil.copytree(whole[0].with_name("study.evaluations"), tmp_path / "study.evaluations")
    return tmp_path


def test_the_search_evaluates_what_evolution_proposes_and_the_best_ever_wins(whole):
    _, result = whole
    assert len(result.records) == result.evaluated_now == SETTINGS.evaluations
    assert not result.exhausted
    for generation in range(SETTINGS.generations + 1):
        before = [r for r in result.records if r.generation < generation]
        own = [r for r in result.records if r.generation == generation]
        proposals = propose_with_origins(SETTINGS, [4] * 5, generation, history_of(before))
        assert [(r.architecture, r.origin) for r in own] == [tuple(p) for p in proposals]
        assert [r.index for r in own] == list(range(len(proposals)))
    fitness = [fitness_of(r.architecture) for r in result.records]
    best = max(f for f in fitness if not math.isnan(f))
    assert result.best is result.records[fitness.index(best)]
    assert all(r.seconds >= 0 for r in result.records)


def test_every_evaluation_is_in_the_ledger_before_the_next_begins(tmp_path):
    seen: list[Architecture] = []

    def watch(architecture):
        assert [r.architecture for r in read_ledger(tmp_path / "study.db")[1]] == seen
        seen.append(architecture)
        return evaluate(architecture)

    run(tmp_path, watch, SearchSettings(population=3, generations=1, seed=7))
    assert len(seen) == 6


def test_a_finished_search_is_not_evaluated_again(whole, finished):
    def refuse(architecture):
        raise AssertionError(f"{architecture} was evaluated again")

    _, first = whole
    again = run(finished, refuse)
    assert again.evaluated_now == 0
    assert again.best == first.best
    assert [r.architecture for r in again.records] == [r.architecture for r in first.records]


def test_evaluations_may_be_missing_anywhere_in_a_generation(whole, tmp_path):
    """As several workers would leave them: the result does not depend on the order of writing."""
    _, result = whole
    written = [r for r in result.records if (r.generation == 0 and r.index != 2) or (r.generation == 1 and r.index > 3)]
    with open_ledger(tmp_path / "study.db", fingerprint()) as ledger:
        for r in written[::-1]:
            ledger.add(r)
    partly = run(tmp_path)
    assert [(r.architecture, r.origin) for r in partly.records] == [(r.architecture, r.origin) for r in result.records]
    assert partly.best.architecture == result.best.architecture
    assert partly.evaluated_now == len(result.records) - len(written)


def test_the_first_of_equals_wins():
    def record(index, fitness):
        return Record((index,), fitness, 0, index, "random", 0.0)

    assert best_record([record(0, math.nan), record(1, 0.5), record(2, 0.75), record(3, 0.75)]).index == 2
    assert best_record([record(0, math.nan)]) is None
    assert best_record([]) is None


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_a_network_with_few_architectures_is_searched_to_the_end(tmp_path, n_blocks):
    result = run(tmp_path, lambda a: Evaluation(sum(a)), SearchSettings(population=6, generations=9), n_blocks=n_blocks)
    assert result.exhausted
    assert len({r.architecture for r in result.records}) == len(result.records) == 4**n_blocks
    assert result.best.architecture == (3,) * n_blocks


def test_a_search_without_any_defined_fitness_fails_after_one_generation_and_keeps_it(tmp_path):
    for _ in range(2):  # the second time from the ledger
        with pytest.raises(
            SearchFailedError, match=r"fitness of all 6 architectures evaluated is undefined.* Check the fold"
        ):
            run(tmp_path, lambda a: Evaluation(math.nan))
    assert len(read_ledger(tmp_path / "study.db")[1]) == 6


def test_an_error_while_evaluating_comes_through_and_what_was_before_it_is_kept(tmp_path):
    def fail_at_third(architecture):
        if len(read_ledger(tmp_path / "study.db")[1]) == 2:
            raise RuntimeError("out of memory")
        return evaluate(architecture)

    with pytest.raises(RuntimeError, match="out of memory"):
        run(tmp_path, fail_at_third)
    assert len(read_ledger(tmp_path / "study.db")[1]) == 2


def test_ctrl_c_says_what_is_kept_and_the_same_command_continues(whole, tmp_path):
    n = 0

    def interrupt_at_fourth(architecture):
        nonlocal n
        n += 1
        if n == 4:
            raise KeyboardInterrupt
        return evaluate(architecture)

    shown = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, interrupt_at_fourth, console=Console(file=shown))
    assert "Stopped after 3 of 30 evaluations; all 3 are kept in" in shown.getvalue()
    assert f"{tmp_path / 'study.evaluations'}. The same command continues" in shown.getvalue().replace("\n", "")
    assert [r.architecture for r in run(tmp_path).records] == [r.architecture for r in whole[1].records]


class Clock:
    """Stands for the clock of the search; every evaluation takes ten seconds."""

    def __init__(self, monkeypatch, fitness=fitness_of):
        self.now, self.fitness = 1000.0, fitness
        monkeypatch.setattr("nnunetv2_slicemamba.search.loop.time.monotonic", lambda: self.now)

    def evaluate(self, architecture):
        self.now += 10.0
        return Evaluation(self.fitness(architecture))


def test_a_time_budget_ends_after_the_evaluation_in_which_it_is_over_and_the_search_continues(
    whole, tmp_path, monkeypatch
):
    clock = Clock(monkeypatch)
    expected = [r.architecture for r in whole[1].records]
    for n_done in (4, 8):  # each call has its own budget
        result = run(tmp_path, clock.evaluate, time_budget=35.0)
        assert not result.complete
        assert result.evaluated_now == 4
        assert [r.architecture for r in result.records] == expected[:n_done]
        assert result.best == best_record(result.records)
        assert [r.architecture for r in read_ledger(tmp_path / "study.db")[1]] == expected[:n_done]
    result = run(tmp_path, clock.evaluate, time_budget=220.0)  # over within the last evaluation
    assert result.complete
    assert result.best.architecture == whole[1].best.architecture


def test_a_time_budget_shorter_than_an_evaluation_still_makes_progress(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, lambda a: 0.5)
    assert run(tmp_path, clock.evaluate, time_budget=1e-9).evaluated_now == 1


def test_a_time_budget_that_ends_without_any_defined_fitness_says_what_is_kept(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, lambda a: math.nan)
    with pytest.raises(
        SearchFailedError, match=r"ended after 2 evaluations, all with an undefined fitness .*continues"
    ):
        run(tmp_path, clock.evaluate, time_budget=15.0)
    assert len(read_ledger(tmp_path / "study.db")[1]) == 2


def test_a_log_file_gets_a_line_per_generation_with_best_and_mean(finished):
    shown = io.StringIO()
    result = run(finished, progress=True, console=Console(file=shown))
    lines = shown.getvalue().splitlines()
    assert len(lines) == SETTINGS.generations + 1
    assert lines[-1].startswith("generation 4/4: 6 architectures in")
    assert f"best so far {result.best.fitness:.4f}" in lines[-1]
    last = [r.fitness for r in result.records if r.generation == 4 and not math.isnan(r.fitness)]
    assert f"mean {sum(last) / len(last):.4f}" in lines[-1]


def test_a_terminal_shows_generation_best_and_mean(tmp_path):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    settings = SearchSettings(population=3, generations=1, seed=7)
    result = run(tmp_path, settings=settings, progress=True, console=console)
    text = shown.getvalue()
    assert "generation 1/1" in text
    assert "6/6" in text
    assert f"best {result.best.fitness:.4f}" in text
    assert "mean" in text


def test_a_search_without_progress_is_silent(tmp_path, capfd):
    run(tmp_path, settings=SearchSettings(population=3, generations=1, seed=7))
    assert capfd.readouterr() == ("", "")


def test_settings_other_than_the_ledgers_are_refused(tmp_path):
    with (
        open_ledger(tmp_path / "study.db", fingerprint()) as ledger,
        pytest.raises(ValueError, match=r"seed=8.*seed=7"),
    ):
        run_search(evaluate, SearchSettings(6, 4, 3, seed=8), ledger, progress=False)


def test_a_ledger_that_does_not_hold_what_is_proposed_is_refused(tmp_path):
    with open_ledger(tmp_path / "study.db", fingerprint()) as ledger:
        ledger.add(Record((0, 0, 0, 0, 0), 0.5, 0, 0, "random", 0.0))
        with pytest.raises(LedgerError, match=r"evaluation 0 of generation 0 .* is of \(0, 0, 0, 0, 0\), .* proposes"):
            run_search(evaluate, SETTINGS, ledger, progress=False)


@pytest.mark.parametrize("fitness", [math.inf, -math.inf])
def test_an_infinite_fitness_is_refused(fitness):
    with pytest.raises(ValueError, match=r"finite or NaN, got -?inf"):
        Evaluation(fitness)


def test_a_bare_number_is_no_evaluation(tmp_path):
    with pytest.raises(TypeError, match="evaluate returned a float, it must return an Evaluation"):
        run(tmp_path, lambda a: 0.5)


@pytest.mark.parametrize(("fitness", "told"), [(lambda a: 0.0, True), (lambda a: a[0] / 3, False)])
def test_a_search_that_cannot_tell_architectures_apart_says_so(fitness, told, tmp_path):
    shown = io.StringIO()
    with open_ledger(tmp_path / "study.db", fingerprint()) as ledger:
        run_search(lambda a: Evaluation(fitness(a)), SETTINGS, ledger, console=Console(file=shown, width=400))
    message = f"Every one of the {SETTINGS.evaluations} architectures has the same fitness, 0.0000"
    assert (message in shown.getvalue()) is told
