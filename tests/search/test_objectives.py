"""A search for Dice alone is kept as before there were costs; what cannot be measured together is refused."""

import json

import pytest

from nnunetv2_slicemamba.report.history import search_flags
from nnunetv2_slicemamba.search import SearchSettings
from nnunetv2_slicemamba.search.objectives import Cost, stored_cost

BEFORE = {
    "population": 50,
    "generations": 20,
    "parents": 10,
    "mutants": 25,
    "crossovers": 25,
    "mutation_probability": 0.1,
    "seed": 0,
}


def test_a_search_for_dice_is_kept_as_before_there_were_objectives():
    assert SearchSettings().cost is None
    assert SearchSettings().as_dict() == BEFORE
    assert SearchSettings(objective="dice").as_dict() == BEFORE
    assert set(SearchSettings(sampler="tpe").as_dict()) == {"population", "generations", "seed", "sampler"}


@pytest.mark.parametrize("sampler", ["evolution", "random", "tpe", "nsga2"])
@pytest.mark.parametrize(
    ("changes", "cost"),
    [
        ({"objective": "dice-latency"}, Cost("latency", True)),
        ({"objective": "dice-memory"}, Cost("memory", True)),
        ({"objective": "dice-latency", "max_latency_ms": 5}, Cost("latency", True, 5)),
        ({"max_latency_ms": 2.5}, Cost("latency", False, 2.5)),
        ({"max_memory_mib": 900.0}, Cost("memory", False, 900.0)),
    ],
)
def test_an_objective_or_a_limit_names_the_cost_and_is_kept(sampler, changes, cost):
    settings = SearchSettings(sampler=sampler, **changes)
    assert settings.cost == cost
    kept = json.loads(json.dumps(settings.as_dict()))
    assert {name: kept.get(name) for name in changes} == changes
    assert stored_cost(kept) == cost
    assert SearchSettings(**kept) == settings or sampler != "evolution"


def test_a_report_repeats_the_search_with_its_objective_and_limit():
    assert search_flags(SearchSettings().as_dict()) == []
    flags = search_flags(SearchSettings(objective="dice-latency", max_latency_ms=5).as_dict())
    assert flags == ["--objective", "dice-latency", "--max-latency-ms", "5"]


def test_what_a_later_version_keeps_is_no_error_when_it_is_read():
    assert stored_cost({"objective": "dice-energy"}) is None
    assert stored_cost({}) is None
    assert stored_cost(BEFORE) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "speed"}, "objective is 'speed', it must be one of dice, dice-latency, dice-memory"),
        ({"max_latency_ms": 0}, "--max-latency-ms is 0, it must be above 0 and finite; leave it out for no limit"),
        ({"max_memory_mib": float("nan")}, "--max-memory-mib is nan, it must be above 0"),
        ({"max_latency_ms": float("inf")}, "--max-latency-ms is inf"),
        (
            {"max_latency_ms": 5, "max_memory_mib": 5},
            "dice and --max-latency-ms and --max-memory-mib ask for two costs, latency and peak memory; a search meas",
        ),
        (
            {"objective": "dice-latency", "max_memory_mib": 5},
            "--objective dice-latency and --max-memory-mib ask for two costs, .* give the limit of the objective",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_with_value_rule_and_remedy(changes, words):
    with pytest.raises(ValueError, match=words):
        SearchSettings(**changes)


def test_a_limit_of_another_type_is_refused():
    with pytest.raises(TypeError, match="--max-latency-ms is '5', it must be a number"):
        SearchSettings(max_latency_ms="5")


def test_a_limit_allows_what_is_not_above_it_and_nothing_that_was_not_measured():
    limited = Cost("latency", False, 5.0)
    assert limited.allows(5.0)
    assert not limited.allows(5.001)
    assert not limited.allows(None)
    assert Cost("latency", True).allows(1e9)
    assert (limited.shown(3.14159), Cost("memory", True).shown(812.345)) == ("3.142 ms", "812.3 MiB")
    assert Cost("step", False).shown(15739.12) == "15739.1 ms"
