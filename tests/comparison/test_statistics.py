"""Differences between arms and rank correlations are those of their definitions, and their intervals cover."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from nnunetv2_slicemamba.comparison import correlation
from nnunetv2_slicemamba.comparison.correlation import conclusion, needed_tau, rank_agreement
from nnunetv2_slicemamba.comparison.statistics import equivalence, foreground_dice, paired_difference, pooled_spread


def tables(seed=0, n=30, shift=0.02):
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0.8, 0.1, n)
    one = difficulty + shift + rng.normal(0, 0.01, (1, 1, n))
    return one, difficulty + rng.normal(0, 0.01, (1, 1, n))


def test_the_difference_is_paired_and_its_interval_scipys_of_the_cases_differences():
    one, other = tables()
    found = paired_difference(one, other)
    plain = (one - other)[0, 0]
    assert found.mean == pytest.approx(plain.mean())
    expected = stats.bootstrap(
        (plain,), np.mean, method="BCa", n_resamples=9999, random_state=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=5e-4)
    unpaired = np.std(one) / math.sqrt(30)
    assert found.high - found.low < unpaired, "cases differ far more than the arms do"


def test_classes_are_averaged_as_nnunet_does_and_undefined_cases_left_out():
    table = np.array([[[0.5, np.nan, 0.7], [1.0, 0.8, 0.6]], [[0.4, np.nan, 0.6], [0.9, np.nan, 0.5]]])
    expected = (((0.5 + 0.7) / 2 + 0.8) / 2 + ((0.4 + 0.6) / 2 + 0.7) / 2) / 2
    assert foreground_dice(table) == pytest.approx(expected)
    never = np.array([[[0.5, 0.7], [np.nan, np.nan]]])
    assert foreground_dice(never) == pytest.approx(0.6)


def test_arms_with_different_numbers_of_trainings_can_be_compared_but_not_other_cases():
    one, other = tables()
    both = np.concatenate([one, one + 0.01])
    assert paired_difference(both, other).mean == pytest.approx(paired_difference(one, other).mean + 0.005)
    with pytest.raises(ValueError, match="not paired"):
        paired_difference(one, other[..., 1:])


def test_equal_differences_in_all_cases_have_no_interval():
    one, _ = tables()
    found = paired_difference(one, one)
    assert found.mean == 0
    assert math.isnan(found.low)
    assert math.isnan(paired_difference(one[..., :1], one[..., :1] - 0.1).high)


def test_equivalence_is_shown_where_the_interval_of_both_one_sided_tests_lies_within_the_margin():
    # 16 differences of 0.002 +- 0.01: their mean has a standard error of 0.0025, and 5 % lie beyond 1.645 of them
    other = np.full((1, 1, 16), 0.8)
    one = other + 0.002 + 0.01 * np.tile([1.0, -1.0], 8)
    found = equivalence(one, other, 0.005)
    half = 1.645 * 0.0025
    assert (found.low, found.high) == pytest.approx((0.002 - half, 0.002 + half), abs=5e-4)
    assert not found.is_shown, "0.0061 is above the margin"
    assert equivalence(one, other, 0.0075).is_shown
    assert equivalence(other, one, 0.0075).is_shown
    assert not equivalence(other, one, 0.002).is_shown, "the lower bound counts as well"
    assert not equivalence(one, one, 0.005).is_shown, "without an interval nothing is shown"


def test_equivalence_decides_as_two_one_sided_t_tests_do():
    difference = 0.002 + np.random.default_rng(4).normal(0, 0.012, 80)
    other = np.full((1, 1, 80), 0.8)
    decided = set()
    for margin in (0.0005, 0.002, 0.003, 0.006, 0.008):
        above = stats.ttest_1samp(difference, -margin, alternative="greater").pvalue
        below = stats.ttest_1samp(difference, margin, alternative="less").pvalue
        p = max(above, below)
        assert not 0.03 < p < 0.08, "too near to the level for a comparison of two methods"
        assert equivalence(other + difference, other, margin).is_shown == (p < 0.05)
        decided.add(bool(p < 0.05))
    assert decided == {True, False}


def test_noise_is_pooled_over_the_arms():
    sd, freedom = pooled_spread([[1.0, 3.0], [5.0], [2.0, 4.0, 6.0]])
    assert freedom == 3
    assert sd == pytest.approx(math.sqrt((2 + 8) / 3))
    assert math.isnan(pooled_spread([[1.0], [2.0]])[0])


def test_both_coefficients_and_their_p_values_are_scipys():
    rng = np.random.default_rng(3)
    for n in (4, 7, 12):
        x = rng.normal(size=n)
        y = x + rng.normal(size=n)
        found = rank_agreement(x, y, draws=500)
        tau, rho = stats.kendalltau(x, y), stats.spearmanr(x, y)
        assert (found.kendall.value, found.kendall.p_value) == pytest.approx((tau.statistic, tau.pvalue))
        assert found.spearman.value == pytest.approx(rho.statistic)
        if n <= 8:
            orders = [abs(stats.spearmanr(range(n), order).statistic) for order in itertools.permutations(range(n))]
            exact = np.mean(np.array(orders) >= abs(rho.statistic) - 1e-9) if n < 6 else found.spearman.p_value
            assert found.spearman.p_value == pytest.approx(exact)
        else:
            assert found.spearman.p_value == pytest.approx(rho.pvalue)
        assert found.kendall.low <= found.kendall.value <= found.kendall.high


def test_ties_make_it_tau_b():
    x, y = [1.0, 2.0, 2.0, 3.0, 4.0], [1.0, 1.0, 2.0, 3.0, 3.0]
    assert rank_agreement(x, y, draws=200).kendall.value == pytest.approx(stats.kendalltau(x, y, variant="b").statistic)


def test_rows_are_scored_as_scipy_does_one_by_one():
    x, y = np.random.default_rng(0).normal(size=(2, 20, 6))
    assert correlation.kendall_rows(x, y) == pytest.approx(
        [stats.kendalltau(a, b).statistic for a, b in zip(x, y, strict=True)]
    )
    assert correlation.spearman_rows(x, y) == pytest.approx(
        [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    )


def test_without_association_the_simulated_tail_is_the_exact_tests():
    """The interval inverts a test that, for independent values, is the permutation test: it excludes 0 where that
    rejects."""
    x, y = np.random.default_rng(1).standard_normal((2, 20000, 6))
    drawn = correlation.kendall_rows(x, y)
    for order in ((0, 1, 2, 3, 5, 4), (1, 0, 2, 4, 3, 5)):
        observed = stats.kendalltau(range(6), order)
        assert np.mean(drawn >= observed.statistic - 1e-9) == pytest.approx(observed.pvalue / 2, abs=0.006)


def test_intervals_cover_the_true_correlation_even_for_few_pairs():
    rng = np.random.default_rng(5)
    latent, n, runs = 0.7, 6, 60
    true = 2 / math.pi * math.asin(latent)
    covered = 0
    for _ in range(runs):
        x, error = rng.standard_normal((2, n))
        found = rank_agreement(x, latent * x + math.sqrt(1 - latent**2) * error, draws=1000).kendall
        covered += found.low <= true <= found.high
    assert covered >= 0.88 * runs


def test_perfect_order_of_few_pairs_has_a_wide_interval():
    found = rank_agreement([1, 2, 3, 4], [1, 2, 3, 4], draws=4000).kendall
    assert found.high == 1
    assert found.low < 0.05, "four arms in perfect order do not prove much"
    reversed_ = rank_agreement([1, 2, 3, 4], [4, 3, 2, 1], draws=4000).kendall
    assert reversed_.low == -1
    assert reversed_.high == pytest.approx(-found.low, abs=0.06)


def test_the_smallest_tau_that_can_be_told_from_chance_is_that_of_the_exact_test():
    assert needed_tau(3) is None
    assert needed_tau(4) is None
    for n in (5, 8):
        needed = needed_tau(n)
        pairs = n * (n - 1) // 2
        significant = min(
            abs(tau)
            for discordant in range(pairs + 1)
            if (p := _exact_p(n, discordant)) <= 0.05 and (tau := 1 - 2 * discordant / pairs) >= 0 and p >= 0
        )
        assert needed == pytest.approx(significant)


def _exact_p(n, discordant):
    """SciPy's p value of an order of n with so many discordant pairs."""
    order, left = list(range(n)), discordant
    for i in range(n):  # bubbles until enough pairs are out of order
        for j in range(n - 1 - i):
            if left:
                order[j], order[j + 1] = order[j + 1], order[j]
                left -= 1
    return stats.kendalltau(range(n), order, method="exact").pvalue


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([1, 2], [1, 2], "at least 3"),
        ([1, 2, 3], [1, 1, 1], "all values are equal"),
        ([1, 2, math.nan], [1, 2, 3], "finite"),
        ([1, 2, 3], [1, 2], "not paired"),
    ],
)
def test_what_has_no_rank_correlation_is_refused(x, y, words):
    with pytest.raises(ValueError, match=words):
        rank_agreement(x, y)


def test_the_conclusion_claims_no_more_than_the_arms_allow():
    assert "3 arms allow no conclusion" in conclusion(rank_agreement([1, 2, 3], [1, 2, 3], draws=500))
    assert "probability 0.33" in conclusion(rank_agreement([1, 2, 3], [1, 2, 3], draws=500))
    eight = list(range(8))
    assert "better than chance" in conclusion(rank_agreement(eight, eight, draws=2000))
    assert "against their retrained order" in conclusion(rank_agreement(eight, eight[::-1], draws=2000))
    undecided = conclusion(rank_agreement(eight, [3, 0, 7, 1, 5, 2, 6, 4], draws=2000))
    assert "8 arms do not show whether" in undecided
    assert f"at least {needed_tau(8):.2f}" in undecided
