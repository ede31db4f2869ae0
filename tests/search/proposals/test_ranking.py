"""Better means: feasible first, then non-dominated, then where the front is sparse; the chosen has the most Dice."""

import math
import random

import pytest

from nnunetv2_slicemamba.search import Record, best_record, history_of
from nnunetv2_slicemamba.search.objectives import Cost
from nnunetv2_slicemamba.search.proposals.ranking import (
    Elite,
    cheapest_record,
    chosen_record,
    crowding_distances,
    feasible_history,
    non_dominated_fronts,
    pareto_front,
    ranked,
)

BOTH = Cost("latency", True)
LIMITED = Cost("latency", True, 5.0)
ONLY_LIMITED = Cost("latency", False, 5.0)


def records_of(*values):
    """(fitness, cost) of one record after the other."""
    return [Record((i,), fitness, 0, i, "random", 1.0, cost=cost) for i, (fitness, cost) in enumerate(values)]


def some(seed, n=60, steps=8):
    """With many ties, and some of undefined fitness."""
    rng = random.Random(seed)
    values = [(rng.randrange(steps) / steps, float(rng.randrange(1, steps))) for _ in range(n)]
    return records_of(*((math.nan if rng.random() < 0.1 else f, c) for f, c in values))


def dominates(a, b):
    return a.fitness >= b.fitness and a.cost <= b.cost and (a.fitness, a.cost) != (b.fitness, b.cost)


def names(records):
    return [record.index for record in records]


@pytest.mark.parametrize("seed", range(20))
def test_the_fronts_are_those_that_comparing_all_pairs_gives(seed):
    rest = [r for r in some(seed) if not math.isnan(r.fitness)]
    for front in non_dominated_fronts(rest):
        expected = [r for r in rest if not any(dominates(other, r) for other in rest)]
        assert sorted(names(front)) == sorted(names(expected))
        rest = [r for r in rest if r not in expected]
    assert rest == []


@pytest.mark.parametrize("seed", range(5))
def test_the_pareto_front_rises_in_both_and_the_chosen_one_is_at_its_end(seed):
    records = some(seed)
    front = pareto_front(records, LIMITED)
    assert [r.cost for r in front] == sorted(r.cost for r in front)
    assert [r.fitness for r in front] == sorted(r.fitness for r in front)
    assert all(r.cost <= 5.0 for r in front)
    assert chosen_record(records, LIMITED) in front
    assert chosen_record(records, LIMITED).fitness == front[-1].fitness


def test_the_highest_dice_within_the_limit_is_chosen_then_the_cheapest_then_the_first():
    records = records_of((0.9, 6.0), (0.8, 5.0), (0.8, 4.0), (0.8, 4.0), (math.nan, 1.0), (0.7, 2.0))
    assert chosen_record(records, LIMITED).index == 2
    assert chosen_record(records, ONLY_LIMITED).index == 2
    assert chosen_record(records, BOTH).index == 0
    assert chosen_record(records, None) == best_record(records)
    assert chosen_record(records, Cost("latency", True, 1.5)) is None
    assert cheapest_record(records).index == 5


def test_crowding_distances_are_the_neighbours_spans_and_infinite_at_the_ends():
    front = records_of((0.1, 1.0), (0.2, 2.0), (0.5, 3.0), (0.9, 11.0))
    assert crowding_distances(front) == pytest.approx([math.inf, 0.4 / 0.8 + 2 / 10, 0.7 / 0.8 + 9 / 10, math.inf])
    # a front of equal architectures, as peak memory makes them
    assert crowding_distances(records_of((0.5, 1.0), (0.5, 1.0), (0.5, 1.0))) == [math.inf, 0.0, math.inf]
    assert crowding_distances(records_of((0.5, 1.0))) == [math.inf]


def test_parents_are_taken_front_by_front_sparse_first_and_infeasible_ones_last_by_their_excess():
    records = records_of(
        (0.9, 9.0),  # 0: infeasible
        (0.8, 4.0),  # 1: first front, an end
        (0.99, 7.0),  # 2: infeasible, less so
        (0.5, 2.0),  # 3: first front, between neighbours that are far apart
        (0.1, 1.0),  # 4: first front, an end
        (0.45, 1.9),  # 5: first front, crowded
        (math.nan, 1.0),
        (0.4, 3.0),  # 7: second front
    )
    assert names(ranked(records, LIMITED)) == [1, 4, 3, 5, 7, 2, 0]
    assert names(ranked(records, ONLY_LIMITED)) == [1, 3, 5, 7, 4, 2, 0]


def test_without_a_cost_the_history_is_that_of_fitness():
    records = some(1)
    assert str(feasible_history(records, None)) == str(history_of(records))


def test_a_consensus_hears_nothing_of_what_may_not_be_chosen():
    assert str(feasible_history(records_of((0.9, 9.0), (0.8, 4.0)), LIMITED)) == "[((0,), nan), ((1,), 0.8)]"


@pytest.mark.parametrize("cost", [None, BOTH, LIMITED, ONLY_LIMITED])
@pytest.mark.parametrize("seed", range(6))
def test_the_elite_is_that_of_all_records_however_they_come(cost, seed, monkeypatch):
    monkeypatch.setattr(Elite, "MARGIN", 1 + seed % 3)  # small ones, so that what was dropped is missed at times
    rng = random.Random(seed)
    elite, records = Elite(cost, 5), []
    for step in range(60):
        better = step / 60 if seed % 2 else 0.0  # a search that makes progress, or none
        steps = 8 if seed < 3 else 10**6  # with many ties, or none
        before = len(records)
        for place in range(before, before + rng.randrange(8)):
            fitness = math.nan if rng.random() < 0.1 else rng.randrange(steps) / steps + better
            records.append(Record((place,), fitness, 0, place, "", 1.0, cost=9 * rng.randrange(1, steps) / steps))
        found = elite.add(records[before:], records)
        assert names(found) == names(ranked(records, cost)[:5])
