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
from nnunetv2_slicemamba.search.records import Record, best_record
from nnunetv2_slicemamba.slicing.candidates import Architecture


def chosen_record(records: Sequence[Record], cost: Cost | None) -> Record | None:
    """The highest fitness within the cost's limit; of equals the cheapest, then the first. None if there is none."""
    if cost is None:
        return best_record(records)
    return min(feasible_of(records, cost), key=lambda record: (-record.fitness, _cost(record)), default=None)


def best_records(records: Sequence[Record], cost: Cost | None, number: int) -> list[Record]:
    """The `number` records with the highest fitness, best first: of the front where the cost is minimised.

    Otherwise of all that may be chosen. The first of them is chosen_record's. Fewer if there are not so many.
    """
    among = pareto_front(records, cost) if cost is not None and cost.minimised else feasible_of(records, cost)
    return sorted(among, key=lambda record: (-record.fitness, _cost(record)))[:number]


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


def ranked(records: Sequence[Record], cost: Cost | None) -> list[Record]:
    """Records with a defined fitness in the order in which the evolution prefers them; the first of equals first.

    Feasible ones come first: by front and then by crowding distance where the cost is minimised, else by fitness. Then
    come the infeasible ones, by how far they exceed the limit.
    """
    feasible = feasible_of(records, cost)
    if cost is not None and cost.minimised:
        ordered = _by_crowding(non_dominated_fronts(feasible))
    else:
        ordered = sorted(feasible, key=lambda record: -record.fitness)
    return ordered + _by_excess(records, cost)


def _by_crowding(fronts: Sequence[Sequence[Record]]) -> list[Record]:
    ordered: list[Record] = []
    for front in fronts:
        distances = crowding_distances(front)
        ordered += [front[i] for i in sorted(range(len(front)), key=lambda i: -distances[i])]
    return ordered


def _by_excess(records: Sequence[Record], cost: Cost | None) -> list[Record]:
    if cost is None:
        return []
    return sorted((r for r in records if not math.isnan(r.fitness) and not cost.allows(r.cost)), key=_cost)


class Elite:
    """The first `size` of all records by `ranked`, kept up to date as a search goes on.

    Only new records and a few old ones are ranked each time. So a search's time grows as its records do, and not as
    their square.
    """

    # fronts are kept until they have so many times the size: a new record can move others to a later front
    MARGIN = 20

    def __init__(self, cost: Cost | None, size: int) -> None:
        self._cost, self._size = cost, size
        self._pool: list[Record] = []  # in their original order where the cost is minimised
        self._n_fronts: int | None = None  # first fronts of all records that are wholly in the pool; None for all

    def add(self, new: Sequence[Record], everything: Sequence[Record]) -> list[Record]:
        """The elite with the new records. everything: all records so far, the new ones at the end."""
        pool = [*self._pool, *new]
        if self._cost is None or not self._cost.minimised:
            self._pool = ranked(pool, self._cost)[: self._size]
            return self._pool
        # A record that is not in the pool lies behind these fronts. New records push it further back. The chain of
        # those that dominate a record of these fronts is wholly before it: ranking the pool alone finds them all.
        fronts = non_dominated_fronts(feasible_of(pool, self._cost))[: self._n_fronts]
        if self._n_fronts is not None and sum(map(len, fronts)) < self._size:
            pool = list(everything)
            fronts = non_dominated_fronts(feasible_of(pool, self._cost))
            self._n_fronts = None
        kept: list[Record] = []
        for number, front in enumerate(fronts):
            if len(kept) >= self.MARGIN * self._size:
                fronts, self._n_fronts = fronts[:number], number
                break
            kept += front
        infeasible = _by_excess(pool, self._cost)[: self._size]
        ids = set(map(id, [*kept, *infeasible]))
        self._pool = [record for record in pool if id(record) in ids]
        return [*_by_crowding(fronts), *infeasible][: self._size]


def feasible_history(records: Sequence[Record], cost: Cost | None) -> list[tuple[Architecture, float]]:
    """(architecture, fitness) in the given order; NaN for what may not be chosen."""
    return [(r.architecture, r.fitness if cost is None or cost.allows(r.cost) else math.nan) for r in records]


def _cost(record: Record) -> float:
    """inf where nothing was measured."""
    return math.inf if record.cost is None else record.cost
