"""Ranking of evaluated architectures by Dice and, where one counts, by cost.

Non-dominated sorting and crowding distance, with feasible architectures before infeasible ones, as in NSGA-II (Deb et
al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE Transactions on Evolutionary Computation 6,
2002). Without a cost the fitness alone decides. An undefined fitness (NaN) is never better than anything.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from nnunetv2_slicemamba.search.objectives import Cost
from nnunetv2_slicemamba.search.records import Record, best_record, history_of
from nnunetv2_slicemamba.slicing.candidates import Architecture


def chosen_record(records: Sequence[Record], cost: Cost | None) -> Record | None:
    """The highest fitness within the cost's limit; of equals the cheapest, then the first. None if there is none."""
    if cost is None:
        return best_record(records)
    return min(feasible_of(records, cost), key=lambda record: (-record.fitness, _cost(record)), default=None)


def feasible_of(records: Sequence[Record], cost: Cost | None) -> list[Record]:
    """Records with a defined fitness within the cost's limit, in the given order."""
    return [r for r in records if not math.isnan(r.fitness) and (cost is None or cost.allows(r.cost))]


def cheapest_record(records: Sequence[Record]) -> Record | None:
    """The lowest measured cost among those with a defined fitness, the first of equals."""
    measured = [r for r in records if r.cost is not None and not math.isnan(r.fitness)]
    return min(measured, key=_cost, default=None)


def pareto_front(records: Sequence[Record], cost: Cost) -> tuple[Record, ...]:
    """The feasible records than which no other feasible one has as much Dice for less or more for as much; equals stay.

    Ordered by rising cost, which is by rising fitness too. The last ones have the highest fitness.
    """
    fronts = non_dominated_fronts(feasible_of(records, cost))
    return tuple(sorted(fronts[0], key=lambda record: (_cost(record), record.fitness))) if fronts else ()


def non_dominated_fronts(records: Sequence[Record]) -> list[list[Record]]:
    """Records by front: the first is dominated by none, each later one only by those before it.

    Taken by falling fitness, then rising cost, a record can only be dominated by those before it; and by a front only
    if the front's last record, its cheapest so far, dominates it.
    """
    fronts: list[list[Record]] = []
    last: list[tuple[float, float]] = []  # (cost, -fitness) of every front's last record; never falls
    for record in sorted(records, key=lambda r: (-r.fitness, _cost(r))):
        key = (_cost(record), -record.fitness)
        number = bisect_left(last, key)
        if number == len(fronts):
            fronts.append([])
            last.append(key)
        fronts[number].append(record)
        last[number] = key
    return fronts


def crowding_distances(front: Sequence[Record]) -> list[float]:
    """Distances between each record's neighbours on its front, as shares of the front's spans; infinite at its ends."""
    distances = [0.0] * len(front)
    for values in ([record.fitness for record in front], [_cost(record) for record in front]):
        order = sorted(range(len(front)), key=values.__getitem__)
        span = values[order[-1]] - values[order[0]]
        distances[order[0]] = distances[order[-1]] = math.inf
        for before, own, after in zip(order, order[1:], order[2:], strict=False):
            distances[own] += (values[after] - values[before]) / span if span else 0.0
    return distances


def ranked_history(records: Sequence[Record], cost: Cost | None) -> list[tuple[Architecture, float]]:
    """(architecture, worth) in the given order: what the evolution breeds from. NaN where the fitness is undefined.

    Without a cost the worth is the fitness. With one it is minus the place among all: feasible ones first, by front and
    then by crowding distance where the cost is minimised, by fitness where it is only limited; then the infeasible ones
    by how far they exceed the limit.
    """
    if cost is None:
        return history_of(records)
    feasible = feasible_of(records, cost)
    if cost.minimised:
        ordered = []
        for front in non_dominated_fronts(feasible):
            distances = crowding_distances(front)
            ordered += [front[i] for i in sorted(range(len(front)), key=lambda i: -distances[i])]
    else:
        ordered = sorted(feasible, key=lambda record: -record.fitness)
    infeasible = [r for r in records if not math.isnan(r.fitness) and not cost.allows(r.cost)]
    ordered += sorted(infeasible, key=_cost)
    place = {record.architecture: -float(number) for number, record in enumerate(ordered)}
    return [(record.architecture, place.get(record.architecture, math.nan)) for record in records]


def feasible_history(records: Sequence[Record], cost: Cost | None) -> list[tuple[Architecture, float]]:
    """(architecture, fitness) in the given order; NaN for what may not be chosen."""
    return [(r.architecture, r.fitness if cost is None or cost.allows(r.cost) else math.nan) for r in records]


def _cost(record: Record) -> float:
    """inf where nothing was measured."""
    return math.inf if record.cost is None else record.cost
