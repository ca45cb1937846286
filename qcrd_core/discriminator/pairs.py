"""What the discriminator learns from in one step: positives, and as many negatives.

bce draws positives and negatives of all questions. ratio and infonce compare within a question:
they draw a question and take its positives, and as many negatives. Corrupted positives make up for
missing real negatives.
"""

import random
from collections import defaultdict
from dataclasses import dataclass

import polars as pl

from qcrd_core.config.models import DiscriminatorSection
from qcrd_core.discriminator.corrupt import corrupt

Pair = tuple[str, str]

BATCH_SIZE = 32
"""Rationales per step, half of them positive."""
# The paper's review says that words are masked and replaced, not how many. BERT masks 15%.
_MASK_FRACTION = 0.15
_REPLACE_FRACTION = 0.15
"""(question, rationale)"""


@dataclass(frozen=True)
class Pairs:
    """Of equal length."""

    positives: list[Pair]
    negatives: list[Pair]


class PairSource:
    """Draws pairs; the same ones for the same seed."""

    def __init__(
        self, rows: pl.DataFrame, config: DiscriminatorSection, mask: str, seed: int
    ) -> None:
        """Sort rationales by kind and question.

        Args:
            rows: Columns question, rationale, polarity.
            config: Batch size, loss, corruption.
            mask: Text that replaces a masked word.
            seed: Of the draws.
        """
        self.config, self.mask, self.random = config, mask, random.Random(seed)
        self.positives = self._pairs(rows, "positive")
        self.negatives = self._pairs(rows, "negative")
        # Sorted, for the order of a set differs between processes and draws are to repeat.
        self.vocabulary = sorted({word for _, r in self.positives for word in r.split()})
        self.positives_of = _by_question(self.positives)
        self.negatives_of = _by_question(self.negatives)
        self.questions = list(self.positives_of)

    @staticmethod
    def _pairs(rows: pl.DataFrame, polarity: str) -> list[Pair]:
        return rows.filter(pl.col("polarity") == polarity).select("question", "rationale").rows()

    @property
    def is_empty(self) -> bool:
        """Whether there is no positive to learn from."""
        return not self.positives

    def draw(self) -> Pairs:
        """Draw the pairs of one step, `BATCH_SIZE` // 2 of each kind.

        Returns:
            Equally many positives and negatives, so that the classes are balanced.
        """
        half = BATCH_SIZE // 2
        if self.config.loss != "bce":
            return self._within_questions(half)
        # With replacement: there may be fewer positives than half a batch.
        positives = self.random.choices(self.positives, k=half)
        return Pairs(positives, [self._negative() for _ in range(half)])

    def _negative(self) -> Pair:
        # Real negatives are rarer than positives: corrupted positives make up the difference.
        real_share = min(1.0, len(self.negatives) / len(self.positives))
        if self.random.random() < real_share:
            return self.random.choice(self.negatives)
        return self._corrupted(self.random.choice(self.positives))

    def _within_questions(self, half: int) -> Pairs:
        pairs = Pairs([], [])
        while len(pairs.positives) < half:
            question = self.random.choice(self.questions)
            # Of the last question only as many positives as fill the half.
            known, wrong = self.positives_of[question], self.negatives_of.get(question, [])
            num_taken = min(len(known), half - len(pairs.positives))
            taken = self.random.sample(known, num_taken)
            real = self.random.sample(wrong, min(len(wrong), num_taken))
            pairs.positives.extend(taken)
            pairs.negatives.extend(real)
            # As many negatives as positives, which keeps equation 2 in (-1, 1) for each question.
            pairs.negatives.extend(self._corrupted(pair) for pair in taken[len(real) :])
        return pairs

    def _corrupted(self, pair: Pair) -> Pair:
        question, rationale = pair
        changed = corrupt(
            rationale,
            self.vocabulary,
            mask=self.mask,
            mask_fraction=_MASK_FRACTION,
            replace_fraction=_REPLACE_FRACTION,
            source=self.random,
        )
        return question, changed


def _by_question(pairs: list[Pair]) -> dict[str, list[Pair]]:
    grouped: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        grouped[pair[0]].append(pair)
    return dict(grouped)
