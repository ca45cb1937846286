"""Statistics of a bench: one method by itself, and two methods compared.

Two things vary: the seed that a student is trained with, and the questions that it is tested on.
`summarize` covers only seeds, on the bench's own test questions; `compare` covers both.

scipy.stats takes more than a second to import, so it is imported where it is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from qcrd_core.errors import DataError
from qcrd_core.evaluation import Interval, mcnemar_p_value


@dataclass(frozen=True)
class Summary:
    """A method on one share of the data. Values are None if there are too few seeds."""

    method: str
    share: float
    accuracies: dict[int, float]
    """Test accuracy by seed, in [0, 1], sorted by seed; failed cells are absent."""
    num_failed: int
    mean: float | None
    """Mean over seeds."""
    standard_deviation: float | None
    """Standard deviation over seeds, with denominator n - 1; None with fewer than two seeds."""
    interval: Interval | None
    """t-interval of the mean over seeds, from `mean_interval`."""


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two students' answers to the same questions."""

    seed: int
    num_only_method: int
    """Questions that only the method's student answers correctly."""
    num_only_reference: int
    """Questions that only the reference's student answers correctly."""
    p: float
    """Exact two-sided p-value; 1 if the two never differ."""


@dataclass(frozen=True)
class Comparison:
    """A method compared with a reference, over their common seeds and the same questions."""

    method: str
    reference: str
    share: float
    seeds: tuple[int, ...]
    confidence: float
    difference: float
    """Accuracy of the method minus that of the reference, in [-1, 1]."""
    interval: Interval | None
    """Interval of the difference, from `crossed_bootstrap`; None with one seed."""
    t_test_p: float | None
    """p-value of a two-sided paired t-test over seeds; None if the seeds' differences are equal."""
    mcnemar: tuple[McNemar, ...]
    """One test per seed. Its p-value holds for these two students and other questions of the same
    kind, and says nothing about other seeds. There is no p-value over all seeds: their answers to
    the same question are not independent, so pooling them would make p too small."""

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0 and the t-test rejects equality at the same level.

        Both must agree, because each alone rejects too often in cases where the other does not.
        The t-test over seeds treats the test questions as fixed. The bootstrap has only a handful
        of seeds to draw from, so its interval is too narrow if seeds differ much more than
        questions. In simulations of two equal methods (5 seeds, 200 questions, level 95%), the
        t-test alone calls 6% to 10% of pairs different, the bootstrap alone 1% to 9%, and both
        together 1% to 5%, depending on how much the seeds differ.

        Comparisons are not corrected for their number: of many, some are significant by chance.
        """
        if self.interval is None or self.t_test_p is None:
            return False
        excludes_zero = self.interval.low > 0 or self.interval.high < 0
        return excludes_zero and self.t_test_p < 1 - self.confidence


def summarize(cells: pl.DataFrame, *, confidence: float) -> list[Summary]:
    """Summarize each method on each share of the data.

    Args:
        cells: Table `bench_cells`.
        confidence: Level of the intervals, in (0, 1).

    Returns:
        One summary per method and share, sorted by both. Failed cells are counted.
    """
    groups = cells.sort("method", "share", "seed").partition_by(
        "method", "share", as_dict=True, maintain_order=True
    )
    summaries = []
    for (method, share), part in groups.items():
        rows = part.filter(pl.col("status") == "ok").select(
            "seed", pl.col("num_correct") / pl.col("num_test")
        )
        accuracies: dict[int, float] = dict(rows.iter_rows())
        values = np.array(list(accuracies.values()))
        summaries.append(
            Summary(
                method=method,
                share=share,
                accuracies=accuracies,
                num_failed=part.height - rows.height,
                mean=float(values.mean()) if values.size else None,
                standard_deviation=float(values.std(ddof=1)) if values.size > 1 else None,
                interval=mean_interval(list(accuracies.values()), confidence),
            )
        )
    return summaries


def mean_interval(accuracies: Sequence[float], confidence: float) -> Interval | None:
    """t-interval of the mean accuracy over seeds.

    It covers other seeds on the same test questions. It does not include that other questions
    could have been asked.

    Args:
        accuracies: One accuracy per seed, in [0, 1].
        confidence: Level in (0, 1).

    Returns:
        The interval, cut at 0 and 1. None if all accuracies are equal (always with one seed),
        because they then say nothing about the spread.

    Source:
        Student (1908): normal accuracies, independent seeds.
    """
    from scipy import stats

    values = np.asarray(accuracies)
    if len(set(accuracies)) < 2:
        return None
    scale = values.std(ddof=1) / values.size**0.5
    low, high = stats.t.interval(confidence, values.size - 1, loc=values.mean(), scale=scale)
    return Interval(low=max(0.0, float(low)), high=min(1.0, float(high)))


def compare(
    answers: pl.DataFrame, method: str, reference: str, *, share: float, confidence: float
) -> Comparison | None:
    """Compare two methods on one share of the data.

    Args:
        answers: Table `bench_answers`.
        method: Name of the method.
        reference: Name of the reference.
        share: Share of the training questions.
        confidence: Level of the interval, in (0, 1).

    Returns:
        The comparison; None without common seeds.

    Raises:
        DataError: If two cells were not tested on the same questions.
    """
    at_share = answers.filter(pl.col("share") == share)
    first, second = (at_share.filter(pl.col("method") == name) for name in (method, reference))
    seeds = sorted(set(first["seed"]) & set(second["seed"]))
    if not seeds:
        return None
    # [S, Q]: S seeds, Q questions
    right, reference_right = _paired_marks([first, second], seeds, (method, reference))
    differences = right - reference_right
    return Comparison(
        method=method,
        reference=reference,
        share=share,
        seeds=tuple(seeds),
        confidence=confidence,
        difference=float(differences.mean()),
        interval=crossed_bootstrap(differences, confidence) if len(seeds) > 1 else None,
        t_test_p=_paired_t_test(right, reference_right),
        mcnemar=tuple(_mcnemar(seed, row) for seed, row in zip(seeds, differences, strict=True)),
    )


def crossed_bootstrap(
    differences: NDArray[np.int64], confidence: float, num_resamples: int = 10_000
) -> Interval:
    """Percentile interval of a mean difference, for other seeds and other questions.

    Each resample draws S seeds and, independently, Q questions, both with replacement, and takes
    the mean over all pairs of them. The generator is seeded, so the same answers always give the
    same interval.

    Args:
        differences: 1 (right) or 0 (wrong) of one method minus that of the other, [S, Q].
        confidence: Level in (0, 1).
        num_resamples: Number of resampled means.

    Returns:
        The interval, both ends in [-1, 1].

    Source:
        Owen, "The pigeonhole bootstrap" (2007). It is conservative while the noise of single
        answers dominates, and too narrow for few seeds that differ much; see
        `Comparison.is_significant`.
    """
    generator = np.random.default_rng(0)
    num_seeds, num_questions = differences.shape
    # Questions with the same outcome at every seed are interchangeable. Drawing the number of each
    # kind gives the same distribution as drawing questions, with much less work.
    kinds, counts = np.unique(differences, axis=1, return_counts=True)  # [S, U], [U]
    drawn = generator.multinomial(num_questions, counts / num_questions, size=num_resamples)
    by_seed = drawn @ kinds.T / num_questions  # [num_resamples, S]
    chosen = generator.integers(num_seeds, size=by_seed.shape)
    means = np.take_along_axis(by_seed, chosen, axis=1).mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(low=float(low), high=float(high))


def _paired_marks(
    methods: Sequence[pl.DataFrame], seeds: Sequence[int], names: Sequence[str]
) -> list[NDArray[np.int64]]:
    """Marks of both methods, 1 for a right answer, [S, Q], in the same order of seeds and ids."""
    marks: list[NDArray[np.int64]] = []
    ids: list[str] | None = None
    for rows, name in zip(methods, names, strict=True):
        for seed in seeds:
            cell = rows.filter(pl.col("seed") == seed).sort("question_id")
            asked = cell["question_id"].to_list()
            if ids is None:
                ids = asked
            if asked != ids:
                msg = (
                    f"{names[0]} with seed {seeds[0]} and {name} with seed {seed} were tested on "
                    f"different questions: {len(set(asked) ^ set(ids))} question ids are in only "
                    "one of them. If the data set has changed, run the bench again."
                )
                raise DataError(msg)
            marks.append(cell["is_correct"].cast(pl.Int64).to_numpy())
    return [np.stack(marks[: len(seeds)]), np.stack(marks[len(seeds) :])]


def _paired_t_test(right: NDArray[np.int64], reference_right: NDArray[np.int64]) -> float | None:
    from scipy import stats

    counts, reference_counts = right.sum(axis=1), reference_right.sum(axis=1)  # [S]
    if np.unique(counts - reference_counts).size < 2:
        return None
    return float(stats.ttest_rel(counts, reference_counts).pvalue)


def _mcnemar(seed: int, differences: NDArray[np.int64]) -> McNemar:
    only_method, only_reference = int((differences > 0).sum()), int((differences < 0).sum())
    p = mcnemar_p_value(only_method, only_reference, alternative="two-sided")
    return McNemar(seed, only_method, only_reference, p)
