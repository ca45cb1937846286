"""What a bench's cells say about a method, and about two of them.

Two things vary: the seed a student is trained with and the questions it is tested on. `summarize`
is about seeds alone, on the bench's own test questions; `compare` is about both.

scipy.stats takes more than a second to import and is therefore imported where it is used.
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
    """A method on one share of the data; None where too few seeds are there to tell."""

    method: str
    share: float
    accuracies: dict[int, float]
    """Test accuracy by seed, [0, 1], in the order of seeds; a failed cell has none."""
    num_failed: int
    mean: float | None
    """Mean over seeds."""
    standard_deviation: float | None
    """Of the seeds' accuracies, with n - 1 below; None with fewer than two seeds."""
    interval: Interval | None
    """t-interval of the mean over seeds, as `mean_interval` makes it."""


@dataclass(frozen=True)
class McNemar:
    """Answers of two students to the same questions, and how likely chance made them differ so."""

    seed: int
    num_only_method: int
    """Questions that the method alone answers right."""
    num_only_reference: int
    """Questions that the reference alone answers right."""
    p: float
    """Exact, two-sided; 1 where the two never differ."""


@dataclass(frozen=True)
class Comparison:
    """A method against a reference, over the seeds that both have and the same questions."""

    method: str
    reference: str
    share: float
    seeds: tuple[int, ...]
    confidence: float
    difference: float
    """Accuracy of the method minus that of the reference, [-1, 1]."""
    interval: Interval | None
    """Of the difference, from `crossed_bootstrap`; None with one seed."""
    t_test_p: float | None
    """Paired t-test over seeds, two-sided; None where the seeds' differences do not vary."""
    mcnemar: tuple[McNemar, ...]
    """One a seed. A seed's p is about these two students on all questions like those of the test:
    it knows nothing of how another seed would turn out. There is no p of all seeds together: their
    answers to one question are not independent, and counting them as if they were makes p too
    small."""

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0 and the t-test rejects equality at the same level.

        Both must agree because each is too bold where the other is not. The t-test over seeds takes
        the test questions as given; the bootstrap has a handful of seeds to draw from, and its
        interval is too narrow where seeds differ much more than questions. Of two equal methods (5
        seeds, 200 questions, simulated, level 95%) the t-test alone calls 6% to 10% different, the
        bootstrap alone 1% to 9%, both together 1% to 5%, by how much the seeds differ.

        Each comparison is judged by itself: of many, some are significant by chance.
        """
        if self.interval is None or self.t_test_p is None:
            return False
        excludes_zero = self.interval.low > 0 or self.interval.high < 0
        return excludes_zero and self.t_test_p < 1 - self.confidence


def summarize(cells: pl.DataFrame, *, confidence: float) -> list[Summary]:
    """Sum up each method on each share of the data.

    Args:
        cells: Table `bench_cells`.
        confidence: Level of the intervals, in (0, 1).

    Returns:
        One summary a method and share, sorted by both; failed cells are counted.
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

    It is about further seeds on the same test questions; that other questions could have been
    asked does not widen it.

    Args:
        accuracies: One a seed, [0, 1].
        confidence: Level in (0, 1).

    Returns:
        The interval, cut at 0 and 1; None where the accuracies do not vary, as one alone does not:
        nothing can then be told of the spread.

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
        method: Name of the one method.
        reference: Name of the other.
        share: Share of the training questions.
        confidence: Level of the interval, in (0, 1).

    Returns:
        The comparison; None without a seed that both have.

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
    the mean over their crossings. The generator is fixed: the same answers give the same interval.

    Args:
        differences: Right (1) or wrong (0) of one method minus that of the other, [S, Q].
        confidence: Level in (0, 1).
        num_resamples: How many means the percentiles are taken of.

    Returns:
        The interval, both ends in [-1, 1].

    Source:
        Owen, "The pigeonhole bootstrap" (2007). Conservative while the noise of single answers
        dominates, too narrow with few seeds that differ much: see
        `Comparison.is_significant`.
    """
    generator = np.random.default_rng(0)
    num_seeds, num_questions = differences.shape
    # Questions with the same outcome at every seed are alike: drawing how many of each kind comes
    # is the same as drawing the questions, and much less work.
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
    """Right answers as 1 of each method, [S, Q], rows and columns in the same order for both."""
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
                    "Methods must be compared on the same test questions; "
                    f"{len(set(asked) ^ set(ids))} ids are on one side only "
                    f"({names[0]} seed {seeds[0]} and {name} seed {seed}). Run the bench afresh "
                    "after a change of its data set."
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
