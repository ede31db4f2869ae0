"""The settings of the search: their defaults are the paper's, and nonsense is refused with a remedy."""

import dataclasses

import pytest

from nnunetv2_slicemamba.search import SearchSettings


def test_defaults_are_the_papers_1050_evaluations():
    settings = SearchSettings()
    assert settings.evaluations == 1050
    assert (settings.population, settings.generations, settings.parents) == (50, 20, 10)
    assert settings.children == (settings.mutants, settings.crossovers) == (25, 25)
    assert settings.mutation_probability == 0.1


@pytest.mark.parametrize(("population", "children"), [(1, (0, 1)), (7, (3, 4)), (10, (5, 5))])
def test_children_follow_the_population(population, children):
    assert SearchSettings(population=population).children == children


def test_crossovers_take_what_mutants_leave_and_none_means_the_default():
    assert SearchSettings(population=10, mutants=8).children == (8, 2)
    assert SearchSettings(population=10, mutants=None, crossovers=None) == SearchSettings(population=10)
    assert SearchSettings(population=10, mutants=2, crossovers=3).children == (2, 3)


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SearchSettings().seed = 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"population": 0}, "population is 0, it must be at least 1; give 1 or more"),
        ({"generations": -1}, "generations is -1, it must be at least 0"),
        ({"parents": 0}, "parents is 0, it must be at least 1"),
        ({"seed": -3}, "seed is -3, it must be at least 0"),
        ({"mutants": -1}, "mutants is -1"),
        ({"crossovers": -1}, "crossovers is -1"),
        ({"population": 10, "mutants": 11}, "11 mutants and 0 crossovers .* population of 10; .* at least 11"),
        ({"population": 10, "mutants": 6, "crossovers": 6}, "6 mutants and 6 crossovers .* at least 12"),
        ({"mutation_probability": 1.5}, "mutation_probability is 1.5, it must lie between 0 and 1; the default is 0.1"),
        ({"mutation_probability": float("nan")}, "mutation_probability is nan"),
    ],
)
def test_a_value_out_of_range_is_refused_with_value_rule_and_remedy(changes, words):
    with pytest.raises(ValueError, match=words):
        SearchSettings(**changes)


@pytest.mark.parametrize(
    "changes", [{"population": 2.5}, {"seed": True}, {"parents": "3"}, {"mutation_probability": "x"}]
)
def test_a_value_of_another_type_is_refused(changes):
    with pytest.raises(TypeError, match=next(iter(changes))):
        SearchSettings(**changes)
