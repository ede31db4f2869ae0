"""A search with a cost, by any sampler: kept with every trial, limited, continued only where it was measured."""

import dataclasses
import math

import optuna
import pytest

from nnunetv2_slicemamba.search import (
    SAMPLERS,
    Evaluation,
    SearchFailedError,
    StudyRefusedError,
    open_ledger,
    read_ledger,
    run_search,
)
from nnunetv2_slicemamba.search.ledger.evaluation_log import as_json, record_of
from nnunetv2_slicemamba.search.records import Done, Record, Task
from nnunetv2_slicemamba.search.workers.shared import done_of
from tests.search.costly_search import CONDITIONS, cost_of, evaluate, fingerprint_of, settings_of
from tests.search.killable_search import SETTINGS, fingerprint, fitness_of


def run(file, settings, evaluate=evaluate, **changes):
    with open_ledger(file, fingerprint_of(settings)) as ledger:
        return run_search(evaluate, settings, ledger, progress=False, **changes)


def exported(file, settings):
    """The study of a search, as Optuna's tools see it."""
    with open_ledger(file, fingerprint_of(settings)) as ledger:
        ledger.export()
    return optuna.load_study(study_name=None, storage=f"sqlite:///{file}")


def is_defined(record):
    return not math.isnan(record.fitness)


@pytest.mark.parametrize(("objective", "limit"), [("dice-latency", None), ("dice-memory", 16.0)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_searches_with_a_cost_and_the_best_dice_within_the_limit_wins(
    sampler, objective, limit, tmp_path
):
    name = {"dice-latency": "max_latency_ms", "dice-memory": "max_memory_mib"}[objective]
    settings = settings_of(sampler, objective, seed=12, **{name: limit})
    result = run(tmp_path / "study.db", settings)
    assert len({r.architecture for r in result.records}) == len(result.records) == settings.evaluations
    assert any(not is_defined(r) for r in result.records), "the test should include an undefined fitness"
    allowed = [r for r in result.records if is_defined(r) and (limit is None or r.cost <= limit)]
    assert limit is None or len(allowed) < sum(map(is_defined, result.records)), "the limit should exclude something"
    assert result.best.fitness == max(r.fitness for r in allowed)
    assert result.best in allowed
    assert [r.cost for r in result.records] == [cost_of(r.architecture) for r in result.records]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_stopped_search_continues_with_the_costs_that_were_measured(sampler, tmp_path):
    settings = settings_of(sampler, generations=2, max_latency_ms=16.0)
    whole = run(tmp_path / "whole.db", settings)
    calls = 0

    def stop(architecture):
        nonlocal calls
        calls += 1
        if calls > 10:
            raise KeyboardInterrupt
        return evaluate(architecture)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "study.db", settings, stop)
    continued = run(tmp_path / "study.db", settings)
    assert continued.evaluated_now == settings.evaluations - 10
    assert [r.architecture for r in continued.records] == [r.architecture for r in whole.records]
    assert [r.cost for r in continued.records] == [r.cost for r in whole.records]


@pytest.mark.parametrize("sampler", ["evolution", "nsga2", "tpe"])
def test_a_sampler_finds_what_costs_less(sampler, tmp_path):
    """Two blocks decide the fitness, the others the cost, which is 14.5 in the uniform mean; both become better."""
    settings = settings_of(sampler, population=10, generations=4, seed=8)
    result = run(tmp_path / "study.db", settings, lambda a: Evaluation(sum(a[:2]) / 6, {}, cost_of(a[2:])))
    later = [r for r in result.records if r.generation > 1]
    assert sum(r.cost for r in later) / len(later) < 13.7
    assert sum(r.fitness for r in later) / len(later) > 0.55


@pytest.mark.parametrize("sampler", ["evolution", "nsga2", "tpe"])
def test_a_limit_alone_leads_to_feasible_architectures(sampler, tmp_path):
    """Dice rises with the cost, so that a search that knew nothing of the limit would leave the feasible part."""
    settings = settings_of(sampler, "dice", population=10, generations=5, max_latency_ms=14.0)
    result = run(tmp_path / "study.db", settings, lambda a: Evaluation(cost_of(a) / 100, {}, cost_of(a)))
    first, later = ([r.cost <= 14 for r in result.records if (r.generation > 1) == is_later] for is_later in (0, 1))
    assert sum(later) / len(later) > sum(first) / len(first)
    assert result.best.cost == 14.0


def test_a_trial_holds_both_values_or_the_cost_as_an_attribute(tmp_path):
    both, limited = settings_of(), settings_of(objective="dice", max_latency_ms=20.0)
    for settings, directions in ((both, ["MAXIMIZE", "MINIMIZE"]), (limited, ["MAXIMIZE"])):
        file = tmp_path / f"{len(directions)}.db"
        run(file, settings)
        study = exported(file, settings)
        assert [direction.name for direction in study.directions] == directions
        for trial in study.trials:
            architecture = tuple(trial.user_attrs["architecture"])
            assert trial.user_attrs["cost"] == cost_of(architecture)
            assert trial.user_attrs["device"] == "a device"
            values = [fitness_of(architecture), cost_of(architecture)][: len(directions)]
            assert trial.values == (None if math.isnan(values[0]) else values)
        assert len(directions) == 1 or len(study.best_trials) > 1


def test_a_search_for_dice_is_stored_as_before(tmp_path):
    """Its study has the same name, content and single direction, and its trials no new attribute."""
    plain = fingerprint(SETTINGS)
    assert fingerprint_of(SETTINGS).as_dict() == plain.as_dict()
    assert "objective" not in plain.as_dict()["settings"]
    assert fingerprint_of(settings_of()).study_name == plain.study_name
    with open_ledger(tmp_path / "study.db", plain) as ledger:
        run_search(lambda a: Evaluation(fitness_of(a)), SETTINGS, ledger, progress=False)
    study = exported(tmp_path / "study.db", SETTINGS)
    assert set(study.trials[0].user_attrs) == {"architecture", "generation", "index", "origin", "seconds"}
    assert {r.cost for r in read_ledger(tmp_path / "study.db")[1]} == {None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "another GPU"}, "device a device, this search has another GPU"),
        ({"pytorch": "2.1"}, "pytorch 2.0, this search has 2.1"),
        ({"scan_backend": "cuda"}, "scan backend torch, this search has cuda"),
    ],
)
def test_a_search_is_not_continued_where_its_cost_would_be_another_one(changes, words, tmp_path):
    settings = settings_of()
    open_ledger(tmp_path / "study.db", fingerprint_of(settings)).close()
    with pytest.raises(StudyRefusedError, match=rf"{words}.*--study NAME.*--discard"):
        open_ledger(tmp_path / "study.db", fingerprint_of(settings, evaluation={**CONDITIONS, **changes}))


def test_another_objective_or_limit_is_another_search(tmp_path):
    open_ledger(tmp_path / "study.db", fingerprint(settings_of(objective="dice"))).close()
    with pytest.raises(StudyRefusedError, match=r"objective dice, this search has dice-latency"):
        open_ledger(tmp_path / "study.db", fingerprint(settings_of()))
    with pytest.raises(StudyRefusedError, match=r"with --max-latency-ms None, this search has 4"):
        open_ledger(tmp_path / "study.db", fingerprint(settings_of(objective="dice", max_latency_ms=4)))


def test_a_limit_that_nothing_keeps_names_the_fastest_and_what_is_kept(tmp_path):
    settings = settings_of(max_latency_ms=1.0)
    with pytest.raises(SearchFailedError) as failed:
        run(tmp_path / "study.db", settings)
    _, records = read_ledger(tmp_path / "study.db")
    fastest = min((r for r in records if is_defined(r)), key=lambda r: r.cost)
    assert len(records) == settings.evaluations
    assert f"none of the {settings.evaluations} architectures evaluated is within --max-latency-ms 1" in str(
        failed.value
    )
    assert f"the fastest, {fastest.architecture}, has {fastest.cost:g} ms" in str(failed.value)
    assert f"All are kept in {tmp_path / 'study.evaluations'}" in str(failed.value)
    assert "give a higher limit" in str(failed.value)


def test_a_time_budget_that_ends_before_anything_feasible_lets_the_search_continue(tmp_path):
    settings = settings_of(max_latency_ms=1.0)
    with pytest.raises(SearchFailedError, match=r"the time budget ended early: none of the 1 .* let the same command"):
        run(tmp_path / "study.db", settings, lambda a: Evaluation(0.5, {}, cost_of(a)), time_budget=1e-9)


@pytest.mark.parametrize("objective", ["dice", "dice-latency"])
def test_an_evaluation_gives_a_cost_exactly_where_one_is_asked_for(objective, tmp_path):
    cost = 3.0 if objective == "dice" else None
    with pytest.raises(ValueError, match="evaluate must give one exactly where the settings have one"):
        run(tmp_path / "study.db", settings_of(objective=objective), lambda a: Evaluation(0.5, {}, cost))


@pytest.mark.parametrize("cost", [-1.0, math.nan, math.inf])
def test_a_cost_that_is_none_is_refused(cost):
    with pytest.raises(ValueError, match="a cost is finite and at least 0"):
        Evaluation(0.5, {}, cost)


def test_what_another_process_measured_arrives_with_its_cost():
    done = Done(Task(1, 3, (0, 1), "mutant"), Evaluation(0.5, {"device": "a device"}, 4.25), 0.1)
    without = dataclasses.replace(done, evaluation=Evaluation(0.5))
    for sent in (done, without):
        message = as_json(Record.of(sent))
        assert message["cost"] == sent.evaluation.cost
        assert done_of(record_of(message)) == dataclasses.replace(sent, kept=True)
