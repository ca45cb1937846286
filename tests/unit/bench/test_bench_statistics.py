"""Statistics of a bench against hand numbers, scipy, statsmodels, a slow loop and simulations."""

import numpy as np
import polars as pl
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.weightstats import DescrStatsW

from qcrd_core.bench.statistics import (
    Comparison,
    compare,
    crossed_bootstrap,
    mean_interval,
    summarize,
)
from qcrd_core.errors import DataError
from qcrd_core.evaluation import Interval
from tests.support.tables import make_answers, make_cells


def cells_of(method, counts, num_test=20):
    return [
        {"method": method, "seed": seed, "num_test": num_test, "num_correct": count}
        for seed, count in enumerate(counts)
    ]


def test_summarize_with_three_seeds_gives_hand_computed_numbers():
    # Accuracies 0.80, 0.90, 0.85: deviations -0.05, 0.05, 0, so the variance is 0.005 / 2 = 0.05^2;
    # t with 2 degrees of freedom at 97.5% is 4.302653, half a width 4.302653 * 0.05 / sqrt(3).
    (summary,) = summarize(make_cells(cells_of("qcrd", [16, 18, 17])), confidence=0.95)
    assert summary.accuracies == {0: 0.8, 1: 0.9, 2: 0.85}
    assert summary.mean == pytest.approx(0.85)
    assert summary.standard_deviation == pytest.approx(0.05)
    assert summary.interval.low == pytest.approx(0.85 - 0.1242069, abs=1e-6)
    assert summary.interval.high == pytest.approx(0.85 + 0.1242069, abs=1e-6)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_mean_interval_is_that_of_statsmodels(confidence):
    values = [0.61, 0.58, 0.64, 0.6, 0.615]
    interval = mean_interval(values, confidence)
    expected = DescrStatsW(values).tconfint_mean(alpha=1 - confidence)
    assert (interval.low, interval.high) == pytest.approx(expected)


def test_mean_interval_that_leaves_the_range_is_cut():
    assert mean_interval([0.6, 0.99], 0.95) == Interval(0.0, 1.0)


@pytest.mark.parametrize("counts", [[12], [12, 12, 12]], ids=["one-seed", "equal-seeds"])
def test_summarize_without_spread_has_no_interval(counts):
    (summary,) = summarize(make_cells(cells_of("dss", counts)), confidence=0.95)
    assert summary.mean == pytest.approx(0.6)
    assert summary.interval is None
    assert summary.standard_deviation == (None if len(counts) == 1 else pytest.approx(0.0))


def test_summarize_counts_failed_cells_and_keeps_shares_apart():
    rows = [
        *cells_of("mi", [10, 12]),
        {"method": "mi", "seed": 2, "error": "the loss is NaN"},
        {"method": "mi", "seed": 0, "share": 0.25, "error": "the loss is NaN"},
        {"method": "mi", "seed": 0, "share": 0.5, "num_correct": 1},
    ]
    quarter, half, whole = summarize(make_cells(rows), confidence=0.95)
    assert (quarter.share, quarter.accuracies, quarter.num_failed) == (0.25, {}, 1)
    assert (quarter.mean, quarter.standard_deviation, quarter.interval) == (None, None, None)
    assert (half.share, half.accuracies) == (0.5, {0: 0.1})
    assert (whole.accuracies, whole.num_failed) == ({0: 0.5, 1: 0.6}, 1)


ANSWERS = {
    # Only the first is right / only the second: seed 0: 1 and 6, seed 1: 2 and 0, seed 2: none.
    ("qcrd", 1.0, 0): "1110000000",
    ("dss", 1.0, 0): "0111111110",
    ("qcrd", 1.0, 1): "1111000000",
    ("dss", 1.0, 1): "0011000000",
    ("qcrd", 1.0, 2): "1111100000",
    ("dss", 1.0, 2): "1111100000",
    ("qcrd", 1.0, 3): "0000000000",
    ("qcrd", 0.5, 0): "1111111111",
    ("dss", 0.5, 0): "0000000000",
}


def test_compare_gives_hand_computed_counts_and_p():
    comparison = compare(make_answers(ANSWERS), "qcrd", "dss", share=1.0, confidence=0.95)
    assert comparison.seeds == (0, 1, 2)
    assert comparison.difference == pytest.approx((-5 + 2 + 0) / 30)
    # Seed 0: two-sided binomial of 1 in 7 is 2 (1 + 7) / 2^7; seed 1: 2 of 2 is 2 / 2^2.
    found = [(m.num_only_method, m.num_only_reference, m.p) for m in comparison.mcnemar]
    assert found == [(1, 6, pytest.approx(0.125)), (2, 0, pytest.approx(0.5)), (0, 0, 1.0)]
    # Differences -0.5, 0.2, 0: mean -0.1, variance 0.13, t = -0.1 / sqrt(0.13 / 3) = -0.4804,
    # and with 2 degrees of freedom p = 1 - |t| / sqrt(2 + t^2).
    assert comparison.t_test_p == pytest.approx(1 - 0.4803845 / (2 + 0.2307692) ** 0.5, abs=1e-6)
    assert not comparison.is_significant


def test_compare_agrees_with_statsmodels():
    marks = np.random.default_rng(3).random((2, 5, 60)) < [[[0.7]], [[0.6]]]
    rows = {
        (name, 1.0, seed): "".join("01"[int(mark)] for mark in marks[index, seed])
        for index, name in enumerate(("qcrd", "dss"))
        for seed in range(5)
    }
    comparison = compare(make_answers(rows), "qcrd", "dss", share=1.0, confidence=0.95)
    gaps = marks[0].mean(axis=1) - marks[1].mean(axis=1)
    assert comparison.t_test_p == pytest.approx(DescrStatsW(gaps).ttest_mean(0)[1])
    for seed, found in enumerate(comparison.mcnemar):
        table = [[int(((marks[0, seed] == a) & (marks[1, seed] == b)).sum()) for b in (1, 0)]
                 for a in (1, 0)]  # fmt: skip
        assert found.p == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_compare_with_one_common_seed_has_mcnemar_alone():
    rows = {key: ANSWERS[key] for key in [("qcrd", 1.0, 1), ("dss", 1.0, 1), ("qcrd", 1.0, 3)]}
    comparison = compare(make_answers(rows), "qcrd", "dss", share=1.0, confidence=0.95)
    assert comparison.seeds == (1,)
    assert (comparison.interval, comparison.t_test_p) == (None, None)
    assert [m.num_only_method for m in comparison.mcnemar] == [2]
    assert not comparison.is_significant


def test_compare_without_common_seed_is_none():
    rows = {("qcrd", 1.0, 0): "10", ("dss", 1.0, 1): "10", ("dss", 0.5, 0): "10"}
    assert compare(make_answers(rows), "qcrd", "dss", share=1.0, confidence=0.95) is None


def test_compare_with_equal_answers_finds_nothing():
    rows = {(name, 1.0, seed): "1101" for name in ("qcrd", "dss") for seed in (0, 1)}
    comparison = compare(make_answers(rows), "qcrd", "dss", share=1.0, confidence=0.95)
    assert (comparison.difference, comparison.interval) == (0.0, Interval(0.0, 0.0))
    assert comparison.t_test_p is None
    assert [m.p for m in comparison.mcnemar] == [1.0, 1.0]


@pytest.mark.parametrize("change", ["missing", "other"])
def test_compare_on_different_questions_is_refused(change):
    rows = {(name, 1.0, seed): "1101" for name in ("qcrd", "dss") for seed in (0, 1)}
    answers = make_answers(rows)
    odd = (pl.col("method") == "dss") & (pl.col("seed") == 1) & (pl.col("question_id") == "q0002")
    if change == "missing":
        answers = answers.filter(~odd)
    else:
        renamed = pl.when(odd).then(pl.lit("new")).otherwise("question_id")
        answers = answers.with_columns(question_id=renamed)
    with pytest.raises(DataError, match="qcrd with seed 0 and dss with seed 1 were tested on"):
        compare(answers, "qcrd", "dss", share=1.0, confidence=0.95)


def slow_crossed_bootstrap(differences, confidence, num_resamples):
    generator = np.random.default_rng(12)
    num_seeds, num_questions = differences.shape
    means = []
    for _ in range(num_resamples):
        seeds = generator.integers(num_seeds, size=num_seeds)
        questions = generator.integers(num_questions, size=num_questions)
        means.append(differences[np.ix_(seeds, questions)].mean())
    return np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_crossed_bootstrap_is_that_of_a_plain_loop(confidence):
    generator = np.random.default_rng(5)
    differences = generator.integers(-1, 2, size=(4, 50)) * (generator.random((1, 50)) < 0.5)
    interval = crossed_bootstrap(differences, confidence)
    expected = slow_crossed_bootstrap(differences, confidence, 20_000)
    # Means are multiples of 1/200; in 20 generators the loop differed by 2/200 at most.
    assert (interval.low, interval.high) == pytest.approx(expected, abs=0.011)


def test_crossed_bootstrap_with_alike_seeds_is_that_of_questions():
    # 30 of 100 questions differ, at every seed alike: resampled they are binomial.
    differences = np.repeat([[1] * 30 + [0] * 70], 3, axis=0)
    interval = crossed_bootstrap(differences, 0.95)
    expected = stats.binom.ppf([0.025, 0.975], 100, 0.3) / 100
    assert (interval.low, interval.high) == pytest.approx(expected, abs=0.011)


def test_crossed_bootstrap_with_alike_questions_is_that_of_seeds():
    # Two seeds, drawn twice: 0, 1/2 or 1 in a quarter, half and quarter of the resamples.
    differences = np.repeat([[0], [1]], 40, axis=1)
    assert crossed_bootstrap(differences, 0.95) == Interval(0.0, 1.0)
    assert crossed_bootstrap(differences, 0.4) == Interval(0.5, 0.5)


def test_crossed_bootstrap_is_the_same_in_any_order_of_questions():
    differences = np.random.default_rng(1).integers(-1, 2, size=(3, 40))
    assert crossed_bootstrap(differences, 0.95) == crossed_bootstrap(differences[:, ::-1], 0.95)


@pytest.mark.parametrize("seed_spread", [0.0, 0.15, 0.6], ids=["none", "some", "much"])
def test_equal_methods_are_seldom_called_different(seed_spread):
    # 5 seeds, 200 questions; 1 mistake in 20 would be nominal. In 2,000 such benches the t-test
    # alone was wrong in 9.6%, 8.7% and 5.6%, the bootstrap alone in 1.0%, 2.0% and 8.8%, both
    # together in 1.0%, 1.9% and 5.0%.
    generator = np.random.default_rng(8)
    num_benches, num_wrong = 300, 0
    for _ in range(num_benches):
        difficulty = generator.normal(0.5, 2, size=200)
        right = []
        for _ in range(2):
            skill = difficulty + generator.normal(0, 1, size=200)
            logits = skill + generator.normal(0, seed_spread, size=(5, 1))
            right.append(generator.random((5, 200)) < 1 / (1 + np.exp(-logits)))
        counts = [marks.sum(axis=1) for marks in right]
        differences = right[0].astype(np.int64) - right[1]
        p = float(stats.ttest_rel(*counts).pvalue)
        interval = crossed_bootstrap(differences, 0.95, 400)
        comparison = Comparison("a", "b", 1.0, (0, 1, 2, 3, 4), 0.95, 0.0, interval, p, ())
        num_wrong += comparison.is_significant
    assert num_wrong / num_benches < 0.07


def test_clear_difference_is_called_significant():
    rows = {
        (name, 1.0, seed): "1" * (60 + better + seed) + "0" * (40 - better - seed)
        for name, better in (("qcrd", 20), ("dss", 0))
        for seed in range(5)
    }
    rows["dss", 1.0, 0] = "1" * 58 + "0" * 42
    answers = make_answers(rows)
    comparison = compare(answers, "qcrd", "dss", share=1.0, confidence=0.95)
    reverse = compare(answers, "dss", "qcrd", share=1.0, confidence=0.95)
    assert comparison.is_significant
    assert reverse.is_significant
    assert comparison.difference == pytest.approx(-reverse.difference)
