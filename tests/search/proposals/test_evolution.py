"""Proposing a generation: pure, distinct, never twice, and the best are the parents."""

import itertools
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nnunetv2_slicemamba.search import Record, SearchSettings, propose, propose_with_origins, select_parents
from nnunetv2_slicemamba.search.proposals.evolution import ATTEMPTS_PER_CHILD, Evolution
from nnunetv2_slicemamba.search.proposals.ranking import ranked

FITNESS = st.one_of(st.floats(0, 1), st.just(math.nan), st.sampled_from([0.25, 0.5]))


@st.composite
def situations(draw):
    """(settings, candidates per block, generation, history) of networks from one block on."""
    n_candidates = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    genes = st.tuples(*(st.integers(0, n - 1) for n in n_candidates))
    architectures = draw(st.lists(genes, max_size=40, unique=True))
    history = [(a, draw(FITNESS)) for a in architectures]
    settings = SearchSettings(
        population=draw(st.integers(1, 20)),
        parents=draw(st.integers(1, 12)),
        mutation_probability=draw(st.sampled_from([0.0, 0.1, 1.0])),
        seed=draw(st.integers(0, 2**64)),
    )
    return settings, n_candidates, draw(st.integers(0, 5)), history


@hypothesis_settings(deadline=None, max_examples=150)
@given(situations())
def test_the_same_arguments_always_give_the_same_generation(situation):
    settings, n_candidates, generation, history = situation
    before = list(history)
    first = propose_with_origins(settings, n_candidates, generation, history)
    assert history == before, "the history was changed"
    assert propose_with_origins(settings, tuple(n_candidates), generation, tuple(history)) == first
    assert propose(settings, n_candidates, generation, history) == [p.architecture for p in first]


@hypothesis_settings(deadline=None, max_examples=150)
@given(situations())
def test_proposals_are_new_distinct_and_as_many_as_there_are(situation):
    settings, n_candidates, generation, history = situation
    proposed = propose(settings, n_candidates, generation, history)
    left = math.prod(n_candidates) - len(history)
    assert len(proposed) == len(set(proposed)) == min(settings.population, left)
    assert not set(proposed) & {a for a, _ in history}
    for architecture in proposed:
        assert len(architecture) == len(n_candidates)
        assert all(type(gene) is int and 0 <= gene < n for gene, n in zip(architecture, n_candidates, strict=True))


def history_of_22_blocks(n=60, seed=0):
    architectures = propose(SearchSettings(population=n, seed=seed), [4] * 22, 0, [])
    return [(a, i / n) for i, a in enumerate(architectures)]


@pytest.mark.parametrize("change", ["seed", "generation", "history"])
def test_seed_generation_and_history_each_matter(change):
    history = history_of_22_blocks()
    base = propose(SearchSettings(seed=1), [4] * 22, 3, history)
    other = {
        "seed": lambda: propose(SearchSettings(seed=2), [4] * 22, 3, history),
        "generation": lambda: propose(SearchSettings(seed=1), [4] * 22, 4, history),
        "history": lambda: propose(SearchSettings(seed=1), [4] * 22, 3, [(a, 1 - f) for a, f in history]),
    }[change]()
    assert len(set(base) & set(other)) < 10  # mutants of the same parents, with one gene changed, may be equal


def test_generation_zero_is_random_and_uniform():
    proposals = propose_with_origins(SearchSettings(population=2000), [4] * 22, 0, [])
    assert {p.origin for p in proposals} == {"random"}
    for block in range(22):
        for candidate in range(4):
            share = sum(p.architecture[block] == candidate for p in proposals) / 2000
            assert abs(share - 0.25) < 0.06  # six standard deviations


def test_a_bred_generation_has_25_mutants_25_crossovers_of_the_ten_best():
    history = history_of_22_blocks()
    parents = [a for a, _ in history[-10:]]
    proposals = propose_with_origins(SearchSettings(seed=5), [4] * 22, 1, history)
    assert [p.origin for p in proposals] == ["mutant"] * 25 + ["crossover"] * 25

    def differing(a, b):
        return sum(x != y for x, y in zip(a, b, strict=True))

    for p in proposals[:25]:  # a gene changes with probability 0.1 * 3/4; unrelated architectures differ in 16.5 genes
        assert 1 <= min(differing(p.architecture, parent) for parent in parents) <= 8
    for p in proposals[25:]:
        pairs = itertools.combinations(parents, 2)
        assert any(all(g in (a, b) for g, a, b in zip(p.architecture, *pair, strict=True)) for pair in pairs)


def test_mutation_redraws_a_tenth_of_the_genes():
    parent = (0,) * 1000
    settings = SearchSettings(population=40, mutants=40, parents=1)
    mutants = propose(settings, [1000] * 1000, 1, [(parent, 0.5)])
    changed = sum(gene != 0 for mutant in mutants for gene in mutant)
    assert abs(changed / 40_000 - 0.1) < 0.01


def test_crossover_takes_each_gene_from_either_parent_half_the_time():
    parents = [((0,) * 1000, 0.5), ((1,) * 1000, 0.4)]
    settings = SearchSettings(population=40, mutants=0, parents=2)
    children = propose_with_origins(settings, [2] * 1000, 1, parents)
    assert {p.origin for p in children} == {"crossover"}
    ones = sum(sum(p.architecture) for p in children)
    assert abs(ones / 40_000 - 0.5) < 0.02


def test_any_two_of_the_parents_are_crossed_as_often_as_any_other_two():
    parents = [((i,) * 40, 0.5 - i / 100) for i in range(4)]
    settings = SearchSettings(population=600, mutants=0, parents=4)
    children = propose_with_origins(settings, [4] * 40, 1, parents)
    assert {p.origin for p in children} == {"crossover"}, "one parent crossed with itself would be no new architecture"
    pairs = Counter(tuple(sorted({*p.architecture})) for p in children)
    assert sorted(pairs) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert all(60 < n < 140 for n in pairs.values()), pairs


def test_parents_are_the_best_first_evaluated_first_and_never_undefined():
    nan = math.nan
    history = [((0,), nan), ((1,), 0.5), ((2,), 0.9), ((3,), 0.5), ((4,), nan), ((5,), 0.1)]
    assert select_parents(history, 3) == [(2,), (1,), (3,)]
    assert select_parents(history, 10) == [(2,), (1,), (3,), (5,)]


def test_without_any_defined_fitness_the_generation_is_random():
    history = [(a, math.nan) for a, _ in history_of_22_blocks()]
    proposals = propose_with_origins(SearchSettings(), [4] * 22, 1, history)
    assert [p.origin for p in proposals] == ["random"] * 50


def test_one_parent_has_mutants_and_random_ones_stand_in_for_crossovers():
    proposals = propose_with_origins(SearchSettings(parents=1), [4] * 22, 1, history_of_22_blocks())
    assert [p.origin for p in proposals] == ["mutant"] * 25 + ["random"] * 25


def test_converged_parents_leave_their_places_to_random_ones():
    assert ATTEMPTS_PER_CHILD > 0
    settings = SearchSettings(population=10, mutation_probability=0.0)
    proposals = propose_with_origins(settings, [4] * 22, 1, history_of_22_blocks())
    origins = [p.origin for p in proposals]
    assert "mutant" not in origins  # a mutant without mutation is its parent
    assert origins.count("random") >= 5
    assert len(origins) == 10


@pytest.mark.parametrize("n_candidates", [[4], [4, 4], [1], [1, 3, 1], [2] * 6])
def test_a_small_space_is_searched_to_its_end_and_then_no_further(n_candidates):
    settings = SearchSettings(population=5)
    history: list[tuple[tuple[int, ...], float]] = []
    for generation in range(50):
        proposed = propose(settings, n_candidates, generation, history)
        if not proposed:
            break
        history += [(a, sum(a)) for a in proposed]
    assert sorted(a for a, _ in history) == sorted(itertools.product(*(range(n) for n in n_candidates)))


@pytest.mark.parametrize(
    ("n_candidates", "generation", "history", "words"),
    [
        ([], 0, [], "every block needs at least one candidate"),
        ([4, 0], 0, [], r"at least one candidate, got \[4, 0\]"),
        ([4, 4], -1, [], "generation is -1"),
        ([4, 4], 1, [((0, 0, 0), 0.5)], "has 3 blocks, this network has 2"),
        ([4, 4], 1, [((0, 4), 0.5)], "candidate 4 at block 1, which has candidates 0 to 3"),
        ([4, 2], 1, [((0, 1), 0.5), ((3, 2), 0.5)], "candidate 2 at block 1, which has candidates 0 to 1"),
        ([4, 4], 1, [((-1, 0), 0.5)], "candidate -1 at block 0, which has candidates 0 to 3"),
        ([4, 4], 1, [((2**64, 0), 0.5)], "candidate 18446744073709551616 at block 0"),
    ],
)
def test_arguments_of_another_network_are_refused(n_candidates, generation, history, words):
    with pytest.raises(ValueError, match=words):
        propose(SearchSettings(), n_candidates, generation, history)


class Watched(list):
    """A list that counts how many of its items are looked at."""

    looked_at = 0

    def __getitem__(self, place):
        found = super().__getitem__(place)
        self.looked_at += len(found) if isinstance(place, slice) else 1
        return found

    def __iter__(self):
        self.looked_at += len(self)
        return super().__iter__()


@pytest.mark.parametrize("cost", [{}, {"objective": "dice-latency"}, {"max_latency_ms": 30.0}])
def test_a_searchs_generations_are_those_of_its_whole_history_and_look_at_each_record_once(cost):
    settings = SearchSettings(population=8, generations=30, parents=3, **cost)
    evolution, records = Evolution(settings, [4] * 12), Watched()
    for generation in range(settings.generations):
        history = [(r.architecture, -place) for place, r in enumerate(ranked(list(records), settings.cost))]
        records.looked_at = 0
        proposals = evolution(generation, records)
        assert proposals == propose_with_origins(settings, [4] * 12, generation, history)
        assert records.looked_at <= (len(records) if "objective" in cost else settings.population)
        for index, (architecture, origin) in enumerate(proposals):
            fitness = sum(gene * place for place, gene in enumerate(architecture)) / 198
            costs = float(sum(architecture)) + architecture[0] / 7 if cost else None
            records.append(Record(architecture, fitness, generation, index, origin, 0.0, cost=costs))
