"""Optuna's samplers search through the same ledger, never evaluate twice, and continue to the same result."""

import dataclasses
import math

import pytest

from nnunetv2_slicemamba.search import (
    SAMPLERS,
    Evaluation,
    LedgerError,
    Record,
    SearchSettings,
    StudyRefusedError,
    open_ledger,
    read_ledger,
    run_search,
)
from nnunetv2_slicemamba.search.proposals.optuna_samplers import OptunaProposals
from tests.search.killable_search import SETTINGS, evaluate, fingerprint, fitness_of

OPTUNAS = [sampler for sampler in SAMPLERS if sampler != "evolution"]


def settings_of(sampler, **changes):
    return SearchSettings(**{"population": 6, "generations": 2, "seed": 7, "sampler": sampler, **changes})


def run(file, settings, evaluate=evaluate, **changes):
    with open_ledger(file, fingerprint(settings, **changes)) as ledger:
        return run_search(evaluate, settings, ledger, progress=False)


def drawn(settings, n_blocks=5, fitness=fitness_of):
    """The architectures of a whole search, without a ledger."""
    propose, records = OptunaProposals(settings, (4,) * n_blocks), []
    for generation in range(settings.generations + 1):
        proposed = propose(generation, records)
        records += [Record(a, fitness(a), generation, i, origin, 0.0) for i, (a, origin) in enumerate(proposed)]
    return [r.architecture for r in records]


def test_there_are_the_samplers_that_are_named():
    assert SAMPLERS == ("evolution", "random", "tpe", "nsga2")


@pytest.mark.parametrize("sampler", OPTUNAS)
def test_a_sampler_evaluates_as_many_distinct_architectures_and_the_best_wins(sampler, tmp_path):
    settings = settings_of(sampler)
    result = run(tmp_path / "study.db", settings)
    assert len({r.architecture for r in result.records}) == len(result.records) == settings.evaluations == 18
    assert [(r.generation, r.index) for r in result.records] == [(g, i) for g in range(3) for i in range(6)]
    assert result.best.fitness == max(f for r in result.records if not math.isnan(f := fitness_of(r.architecture)))
    assert {r.origin for r in result.records} <= {sampler, "random"}
    assert read_ledger(tmp_path / "study.db")[0]["settings"]["sampler"] == sampler


@pytest.mark.parametrize("sampler", OPTUNAS)
def test_a_stopped_search_ends_as_one_that_was_never_stopped(sampler, tmp_path):
    settings = settings_of(sampler, generations=2)
    whole = drawn(settings)
    assert any(math.isnan(fitness_of(a)) for a in whole), "the test should include an undefined fitness"
    calls = 0

    def stop(architecture):
        nonlocal calls
        calls += 1
        if calls > 9:
            raise KeyboardInterrupt
        return evaluate(architecture)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "study.db", settings, stop)
    continued = run(tmp_path / "study.db", settings)
    assert continued.evaluated_now == 9
    assert [r.architecture for r in continued.records] == whole


@pytest.mark.parametrize("sampler", OPTUNAS)
def test_the_seed_decides_what_is_drawn(sampler):
    one, other = (drawn(settings_of(sampler, seed=seed)) for seed in (1, 2))
    assert one == drawn(settings_of(sampler, seed=1))
    assert one != other


@pytest.mark.parametrize("sampler", OPTUNAS)
def test_a_network_with_few_architectures_is_searched_to_the_end(sampler, tmp_path):
    """The sampler repeats itself long before; what is missing is drawn at random."""
    settings = settings_of(sampler, generations=9)
    result = run(tmp_path / "study.db", settings, lambda a: Evaluation(sum(a)), n_blocks=2)
    assert result.exhausted
    assert len({r.architecture for r in result.records}) == len(result.records) == 16
    assert result.best.architecture == (3, 3)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_sampler_learns_from_what_was_evaluated(sampler):
    """On a fitness that blocks decide one by one, the later half is better than the uniform mean, 0.25."""
    target = (0, 1, 2, 3, 0, 1, 2, 3, 0, 1)

    def fitness(architecture):
        return sum(x == y for x, y in zip(architecture, target, strict=True)) / 10

    later = [fitness(a) for a in drawn(settings_of(sampler, population=10, generations=5), 10, fitness)[30:]]
    assert sum(later) / len(later) > 0.4


def test_a_ledger_of_another_sampler_is_refused_and_one_from_before_there_were_any_is_the_evolutions(tmp_path):
    assert "sampler" not in fingerprint(SETTINGS).as_dict()["settings"]
    open_ledger(tmp_path / "study.db", fingerprint(SETTINGS)).close()
    with pytest.raises(StudyRefusedError, match=r"with sampler None, this search has tpe"):
        open_ledger(tmp_path / "study.db", fingerprint(settings_of("tpe")))
    # what a sampler does not use does not matter to it
    assert settings_of("tpe", parents=3).as_dict() == settings_of("tpe", mutation_probability=0.3).as_dict()
    assert settings_of("nsga2").as_dict() != settings_of("nsga2", mutation_probability=0.3).as_dict()


def test_evaluations_that_the_sampler_does_not_propose_are_refused(tmp_path):
    first = run(tmp_path / "first.db", settings_of("tpe", generations=0)).records[0]
    with open_ledger(tmp_path / "study.db", fingerprint(settings_of("tpe"))) as ledger:
        ledger.add(dataclasses.replace(first, architecture=tuple((i + 1) % 4 for i in first.architecture)))
        with pytest.raises(LedgerError, match=r"evaluation 0 of generation 0 .* another version .* of Optuna drew it"):
            run_search(evaluate, settings_of("tpe"), ledger, progress=False)


def test_an_unknown_sampler_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="sampler is 'cma', it must be one of evolution, random, tpe, nsga2"):
        settings_of("cma")
    with pytest.raises(ValueError, match="population is 1, nsga2 crosses two parents; give 2 or more"):
        settings_of("nsga2", population=1)


@pytest.mark.parametrize("sampler", OPTUNAS)
def test_optuna_is_silent(sampler, tmp_path, capfd):
    run(tmp_path / "study.db", settings_of(sampler, generations=0))
    assert capfd.readouterr() == ("", "")
