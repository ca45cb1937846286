"""Decide by a rule whether a new student is better than the champion, question by question.

    decision = compare(champion_answers, challenger_answers, config.promotion)

The frozen test set is the one that the champion was tested on. The challenger must have answered
every one of its questions, unchanged: same id, text, choices and gold answer. It may have answered
more, because a growing data set also adds test questions.

Limits: every night uses the same test set, so over many nights some student will pass by chance.
`promotion.max_p_value` limits this for one night, not for a year. A fresh test set now and then
shows how much was luck.
"""

from dataclasses import dataclass
from typing import Annotated

import polars as pl
from pydantic import Field

from qcrd_core.config.operations import PromotionSection
from qcrd_core.evaluation import mcnemar_p_value
from qcrd_core.teacher.plan import prompt_hashes

_KEYS = ["question_id", "asked", "gold_answer"]


@dataclass(frozen=True)
class Slice:
    """Right answers of both students on a slice of the test questions."""

    name: str
    num_questions: Annotated[int, Field(ge=1)]
    champion_correct: int
    challenger_correct: int

    @property
    def gain(self) -> float:
        """Accuracy of the challenger minus that of the champion, in [-1, 1]."""
        return (self.challenger_correct - self.champion_correct) / self.num_questions


@dataclass(frozen=True)
class Comparison:
    """Right answers of both students on the champion's test questions."""

    whole: Slice
    num_gained: int
    """Questions that only the challenger answers correctly."""
    num_lost: int
    """Questions that only the champion answers correctly."""
    p_value: float
    """p-value of the exact one-sided McNemar test."""
    slices: tuple[Slice, ...]
    """One slice per `template` of the questions, sorted by name."""


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and the reasons as sentences."""

    promote: bool
    reasons: tuple[str, ...]
    comparison: Comparison | None
    """None if there is no champion, or if the two cannot be compared."""


def frozen_answers(questions: pl.DataFrame, predictions: pl.DataFrame) -> pl.DataFrame:
    """Join test questions with a student's answers, for `compare`.

    Args:
        questions: Table `questions`; rows of other splits are ignored.
        predictions: Table `predictions` of the test split.

    Returns:
        question_id, asked (hash of text and choices), gold_answer, template, is_correct. Questions
        without a gold answer are left out, because no answer to them counts as right.
    """
    asked = questions.with_columns(prompt_hashes(questions).alias("asked"))
    answered = predictions.select("question_id", "is_correct")
    joined = asked.filter(pl.col("split") == "test").join(answered, on="question_id", how="inner")
    return joined.select(*_KEYS, "template", "is_correct").drop_nulls("is_correct")


def compare(
    champion: pl.DataFrame | None, challenger: pl.DataFrame, rule: PromotionSection
) -> Decision:
    """Decide whether the challenger replaces the champion.

    Args:
        champion: From `frozen_answers`; None if there is no champion yet. The challenger must then
            beat the most frequent right answer, or have `promotion.first_accuracy`.
        challenger: From `frozen_answers`.
        rule: Section `promotion`.

    Returns:
        The decision, with a reason for each condition, met or not.
    """
    if challenger.is_empty():
        return _refused("The challenger answered no test question that has a gold answer.")
    if champion is None:
        return _first(challenger, rule)
    paired = _paired(champion, challenger)
    num_changed = champion.height - paired.height
    if num_changed or paired.is_empty():
        return _refused(
            f"The test set has changed since the champion was tested: {num_changed:,} of its "
            f"{champion.height:,} questions were removed, or their text or gold answer changed. "
            "The students cannot be compared. A person can decide with `qcrd promote --anyway`."
        )
    found = _comparison(paired)
    conditions = [_gain(found, rule), _chance(found, rule), *_guarded(found, rule)]
    whole = found.whole
    opening = (
        f"{whole.challenger_correct:,} of {whole.num_questions:,} test answers are right, against "
        f"{whole.champion_correct:,} of the champion: {found.num_gained:,} gained, "
        f"{found.num_lost:,} lost."
    )
    return _decided(opening, conditions, found)


def _first(challenger: pl.DataFrame, rule: PromotionSection) -> Decision:
    """Decide about the first champion. A student that always gives one answer is not worth it."""
    correct, total = int(challenger["is_correct"].sum()), challenger.height
    opening = f"There was no champion before. {correct:,} of {total:,} test answers are right"
    if rule.first_accuracy is not None:
        held = correct >= rule.first_accuracy * total
        reason = f"{opening}; at least {rule.first_accuracy:.1%} required: {_verdict(held)}."
        return Decision(promote=held, reasons=(reason,), comparison=None)
    counts = challenger["gold_answer"].value_counts(sort=True, name="count")
    # Sorted by name too, so that the answer does not depend on the order of the questions.
    frequent = counts.sort("count", "gold_answer", descending=[True, False])["gold_answer"][0]
    constant = challenger.select(*_KEYS, "template", is_correct=pl.col("gold_answer") == frequent)
    found = _comparison(_paired(constant, challenger))
    conditions = [_gain(found, rule), _chance(found, rule)]
    reason = (
        f"{opening}, against {found.whole.champion_correct:,} for the most frequent answer, "
        f"{frequent!r}."
    )
    return _decided(reason, conditions, None)


def _decided(
    opening: str, conditions: list[tuple[bool, str]], found: Comparison | None
) -> Decision:
    """Promote if all conditions hold; each is a reason, met or not."""
    return Decision(
        promote=all(held for held, _ in conditions),
        reasons=(opening, *(text for _, text in conditions)),
        comparison=found,
    )


def _paired(champion: pl.DataFrame, challenger: pl.DataFrame) -> pl.DataFrame:
    now = challenger.select(*_KEYS, pl.col("is_correct").alias("is_now_correct"))
    return champion.join(now, on=_KEYS)


def _refused(reason: str) -> Decision:
    return Decision(promote=False, reasons=(reason,), comparison=None)


def _comparison(paired: pl.DataFrame) -> Comparison:
    was, now = pl.col("is_correct"), pl.col("is_now_correct")
    num_gained = paired.filter(now & ~was).height
    num_lost = paired.filter(was & ~now).height
    parts = paired.drop_nulls("template").partition_by("template", as_dict=True)
    return Comparison(
        whole=_slice("all", paired),
        num_gained=num_gained,
        num_lost=num_lost,
        p_value=mcnemar_p_value(num_gained, num_lost, alternative="greater"),
        slices=tuple(_slice(str(key[0]), part) for key, part in sorted(parts.items())),
    )


def _slice(name: str, paired: pl.DataFrame) -> Slice:
    return Slice(
        name, paired.height, int(paired["is_correct"].sum()), int(paired["is_now_correct"].sum())
    )


def _gain(found: Comparison, rule: PromotionSection) -> tuple[bool, str]:
    gain = found.whole.gain
    held = gain > 0 and gain >= rule.min_gain
    wanted = f"at least {100 * rule.min_gain:.2f}" if rule.min_gain else "more than 0"
    return held, f"Gain of {100 * gain:+.2f} points, {wanted} required: {_verdict(held)}."


def _chance(found: Comparison, rule: PromotionSection) -> tuple[bool, str]:
    held = found.p_value <= rule.max_p_value
    return held, (
        f"Exact McNemar test p = {found.p_value:.3g}, at most {rule.max_p_value:g} required: "
        f"{_verdict(held)}."
    )


def _guarded(found: Comparison, rule: PromotionSection) -> list[tuple[bool, str]]:
    by_name = {part.name: part for part in found.slices}
    conditions = []
    for name in rule.guarded_slices:
        part = by_name.get(name)
        if part is None:
            known = ", ".join(by_name) or "none"
            text = f"Slice {name} has no test questions (slices: {known}): not met."
            conditions.append((False, text))
            continue
        # The small term makes 0.1 of 10 questions one whole question despite rounding.
        lost = part.champion_correct - part.challenger_correct
        held = lost <= rule.slice_tolerance * part.num_questions + 1e-9
        text = (
            f"Slice {name}: {part.challenger_correct:,} of {part.num_questions:,} right, against "
            f"{part.champion_correct:,} of the champion: {_verdict(held)}."
        )
        conditions.append((held, text))
    return conditions


def _verdict(held: bool) -> str:
    return "met" if held else "not met"
